// Trees into a guest and out of it, from this process and from others, on the host's own vsock.

import { copyBehaviours } from '../../helpers/behaviours/copies.ts';

// The other processes take the port that is usual: each process has one of its own.
copyBehaviours('kvm', { vsock: { type: 'vhost', port: 5000 } }, ['--vsock', 'vhost']);
