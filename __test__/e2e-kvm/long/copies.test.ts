import { copyBehaviours } from '../../helpers/behaviours/copies.ts';

copyBehaviours('kvm');
