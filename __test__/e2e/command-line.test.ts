import { commandLineBehaviours, commandLineDetails } from '../helpers/behaviours/command-line.ts';

commandLineBehaviours('tcg');
commandLineDetails('tcg');
