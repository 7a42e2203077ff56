import { fileExerciserBehaviours } from '../../helpers/behaviours/file-exerciser.ts';

fileExerciserBehaviours('kvm');
