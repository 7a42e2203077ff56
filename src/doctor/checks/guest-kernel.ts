// The kernel that a machine boots when none is asked for, and its drivers.

import type { Context } from '../context.ts';
import { type Finding, fix, found, type Problem, together } from '../model.ts';

const [ID, DRIVERS] = ['guest-kernel', 'guest-drivers'] as const;

export async function checkGuestKernel({ host }: Pick<Context, 'host'>): Promise<Finding> {
  const kernel = await host.guestKernel();
  if ('code' in kernel) {
    const problem: Problem = {
      id: ID,
      check: ID,
      title: 'no guest kernel can be used',
      causes: kernel.message.split('\n').map((line) => line.trim()),
      fixes: kernel.hint === undefined ? [] : [fix(kernel.hint)],
    };
    return { ...found(ID, 'Guest kernel', 'warn', `cannot be used (${kernel.code})`), problems: [problem] };
  }
  const release = kernel.release === undefined ? '' : `${kernel.release} `;
  const own = found(ID, 'Guest kernel', 'pass', `${release}(${kernel.image})`);
  if (kernel.missingDrivers !== undefined) {
    const problem: Problem = {
      id: DRIVERS,
      check: DRIVERS,
      title: 'the guest kernel lacks drivers',
      causes: [kernel.missingDrivers],
      fixes: [fix('give a kernel with virtio and vsock, such as the cloud kernel of a distribution')],
    };
    return together(own, { ...found(DRIVERS, 'Guest drivers', 'warn', 'missing'), problems: [problem] });
  }
  return together(
    own,
    kernel.modules === undefined
      ? found(DRIVERS, 'Guest drivers', 'info', 'no modules beside it: virtio and vsock must be built in')
      : found(DRIVERS, 'Guest drivers', 'pass', kernel.modules),
  );
}
