import { fileBehaviours } from '../../helpers/behaviours/files.ts';

fileBehaviours('kvm');
