import { ownerDeathBehaviours, ownerSignalBehaviours } from '../helpers/behaviours/owner-death.ts';

ownerDeathBehaviours('tcg');
ownerSignalBehaviours('tcg');
