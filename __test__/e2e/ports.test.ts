import { portBehaviours } from '../helpers/behaviours/ports.ts';

portBehaviours('tcg');
