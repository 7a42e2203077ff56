import { bootFailureBehaviours } from '../helpers/behaviours/boot-failures.ts';

bootFailureBehaviours('kvm');
