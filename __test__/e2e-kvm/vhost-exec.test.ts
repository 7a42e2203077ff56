import { execBehaviours } from '../helpers/behaviours/exec.ts';

execBehaviours('kvm', { vsock: 'vhost' });
