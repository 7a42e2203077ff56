import { privateRuntimeFolder } from '../helpers/guest.ts';
import { ownerBehaviours, requestQueueBehaviours } from '../helpers/behaviours/mount-options.ts';

privateRuntimeFolder();
ownerBehaviours('tcg');
requestQueueBehaviours('tcg', { name: 'a kernel before Linux 6.11', uses: 1 });
