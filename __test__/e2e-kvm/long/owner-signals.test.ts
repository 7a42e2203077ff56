import { ownerSignalBehaviours } from '../../helpers/behaviours/owner-death.ts';
import { privateRuntimeFolder } from '../../helpers/guest.ts';

privateRuntimeFolder();
ownerSignalBehaviours('kvm');
