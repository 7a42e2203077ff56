import { runningBehaviours } from '../helpers/behaviours/running.ts';
import { privateRuntimeFolder } from '../helpers/guest.ts';

privateRuntimeFolder();
runningBehaviours('tcg');
