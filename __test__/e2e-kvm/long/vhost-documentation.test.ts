// The examples of the documentation, on the host's own vsock.

import { documentationBehaviours } from '../../helpers/behaviours/documentation.ts';

documentationBehaviours('kvm', { vsock: 'vhost' });
