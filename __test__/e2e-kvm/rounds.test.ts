import { roundsLeaveNothing } from '../helpers/behaviours/rounds.ts';

roundsLeaveNothing('kvm', process.env['MICROVM_SOAK'] ? 300 : 20);
