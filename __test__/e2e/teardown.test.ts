import { teardownBehaviours } from '../helpers/behaviours/teardown.ts';
import { privateRuntimeFolder } from '../helpers/guest.ts';

privateRuntimeFolder();
teardownBehaviours('tcg');
