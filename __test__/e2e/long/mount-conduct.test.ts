import { privateRuntimeFolder } from '../../helpers/guest.ts';
import { mountConductBehaviours } from '../../helpers/behaviours/mount-conduct.ts';

privateRuntimeFolder();
mountConductBehaviours('tcg');
