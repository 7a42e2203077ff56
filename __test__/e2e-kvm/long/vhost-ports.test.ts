// Streams of programs, on the host's own vsock.

import { portBehaviours } from '../../helpers/behaviours/ports.ts';

portBehaviours('kvm', { vsock: 'vhost' });
