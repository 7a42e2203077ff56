import { terminalBehaviours } from '../../helpers/behaviours/terminal.ts';

terminalBehaviours('kvm');
