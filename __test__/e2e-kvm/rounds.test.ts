import { roundsLeaveNothing } from '../helpers/behaviours/rounds.ts';

roundsLeaveNothing('kvm', 20);
