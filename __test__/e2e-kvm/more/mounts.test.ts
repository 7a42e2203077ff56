import { privateRuntimeFolder } from '../../helpers/guest.ts';
import { mountBehaviours } from '../../helpers/behaviours/mounts.ts';
import { mountedFileBehaviours } from '../../helpers/behaviours/mounted-files.ts';

privateRuntimeFolder();
mountBehaviours('kvm');
mountedFileBehaviours('kvm');
