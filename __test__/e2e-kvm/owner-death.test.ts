import { ownerDeathBehaviours } from '../helpers/behaviours/owner-death.ts';

ownerDeathBehaviours('kvm');
