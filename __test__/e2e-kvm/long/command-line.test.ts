import { commandLineDetails } from '../../helpers/behaviours/command-line.ts';

commandLineDetails('kvm');
