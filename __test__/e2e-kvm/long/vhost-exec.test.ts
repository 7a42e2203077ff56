// What machines do, on the host's own vsock.

import { endingBehaviours } from '../../helpers/behaviours/endings.ts';
import { execBehaviours } from '../../helpers/behaviours/exec.ts';
import { runningBehaviours } from '../../helpers/behaviours/running.ts';

const options = { vsock: 'vhost' } as const;

execBehaviours('kvm', options);
runningBehaviours('kvm', options);
endingBehaviours('kvm', options);
