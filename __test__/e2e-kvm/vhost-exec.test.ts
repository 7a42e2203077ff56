// What machines do, on the host's own vsock. How they run and end takes as many boots as it has tests, and differs from exec in
// nothing that a vsock could tell: that is left to the soak.

import { endingBehaviours } from '../helpers/behaviours/endings.ts';
import { execBehaviours } from '../helpers/behaviours/exec.ts';
import { runningBehaviours } from '../helpers/behaviours/running.ts';

const options = { vsock: 'vhost' } as const;

execBehaviours('kvm', options);
if (process.env['MICROVM_SOAK']) {
  runningBehaviours('kvm', options);
  endingBehaviours('kvm', options);
}
