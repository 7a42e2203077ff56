import { documentationBehaviours } from '../../helpers/behaviours/documentation.ts';

documentationBehaviours('kvm');
