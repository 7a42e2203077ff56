import { acceleratorBehaviours } from '../helpers/behaviours/accelerator.ts';
import { privateRuntimeFolder } from '../helpers/guest.ts';

privateRuntimeFolder();
acceleratorBehaviours('tcg');
