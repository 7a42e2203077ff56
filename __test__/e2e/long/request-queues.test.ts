import { NEWER_KERNEL, privateRuntimeFolder } from '../../helpers/guest.ts';
import { requestQueueBehaviours } from '../../helpers/behaviours/mount-options.ts';

privateRuntimeFolder();
requestQueueBehaviours('tcg', { name: 'a newer kernel', kernel: NEWER_KERNEL, uses: 2 });
