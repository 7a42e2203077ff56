// Files of a guest, on the host's own vsock.

import { fileBehaviours } from '../../helpers/behaviours/files.ts';

fileBehaviours('kvm', { vsock: 'vhost' });
