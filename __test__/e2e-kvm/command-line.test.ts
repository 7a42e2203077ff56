import { commandLineBehaviours } from '../helpers/behaviours/command-line.ts';

commandLineBehaviours('kvm');
