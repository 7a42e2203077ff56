import { processBehaviours } from '../../helpers/behaviours/process.ts';

processBehaviours('kvm');
