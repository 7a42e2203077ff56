import { endingBehaviours } from '../helpers/behaviours/endings.ts';

endingBehaviours('kvm');
