// Commands as processes, on the host's own vsock.

import { processBehaviours } from '../../helpers/behaviours/process.ts';

processBehaviours('kvm', { vsock: 'vhost' });
