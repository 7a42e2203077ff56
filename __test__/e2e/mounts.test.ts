import { privateRuntimeFolder } from '../helpers/guest.ts';
import { mountBehaviours } from '../helpers/behaviours/mounts.ts';

privateRuntimeFolder();
mountBehaviours('tcg');
