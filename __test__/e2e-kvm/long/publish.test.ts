import { publishBehaviours } from '../../helpers/behaviours/publish.ts';

publishBehaviours('kvm');
