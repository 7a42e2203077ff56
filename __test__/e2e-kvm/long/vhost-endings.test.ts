// Owners that end without stopping their machine, by themselves and by a signal, on the host's own vsock.

import { ownerDeathBehaviours, ownerSignalBehaviours } from '../../helpers/behaviours/owner-death.ts';
import { teardownBehaviours } from '../../helpers/behaviours/teardown.ts';

ownerDeathBehaviours('kvm', 'vhost');
ownerSignalBehaviours('kvm', 'vhost');
teardownBehaviours('kvm', 'vhost');
