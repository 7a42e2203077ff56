import { privateRuntimeFolder } from '../helpers/guest.ts';
import { accessListBehaviours, requestQueueBehaviours } from '../helpers/behaviours/mount-options.ts';

privateRuntimeFolder();
accessListBehaviours('tcg');
requestQueueBehaviours('tcg', { name: 'a kernel before Linux 6.11', uses: 1 });
