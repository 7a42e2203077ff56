import { pjdfstestBehaviours } from '../../helpers/behaviours/pjdfstest.ts';

pjdfstestBehaviours('kvm');
