import { NEWER_KERNEL, privateRuntimeFolder } from '../../helpers/guest.ts';
import { ownerBehaviours, requestQueueBehaviours } from '../../helpers/behaviours/mount-options.ts';

privateRuntimeFolder();
ownerBehaviours('kvm');
requestQueueBehaviours('kvm', { name: 'a kernel before Linux 6.11', uses: 1 });
requestQueueBehaviours('kvm', { name: 'a newer kernel', kernel: NEWER_KERNEL, uses: 2 });
