import { roundsLeaveNothing } from '../helpers/behaviours/rounds.ts';

roundsLeaveNothing('tcg', 3);
