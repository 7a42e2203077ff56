// Containers and virtual machines around this process: they decide what has to be passed in from outside.

import { containerOf, machineOf } from '../container.ts';
import type { Context } from '../context.ts';
import { type Finding, found, together } from '../model.ts';

export function checkSurroundings({ host, device }: Context): Finding {
  // With a device at hand there is nothing to pass in.
  const isThere = device.state !== 'missing';
  const [container, machine] = [containerOf(host), machineOf(host)];
  const line = (name: string, advice: string): string => (isThere ? name : `${name}; for KVM ${advice}`);
  return together(
    found('container', 'Container', 'info', container === undefined ? 'none' : line(container.name, container.advice)),
    found(
      'machine',
      'Machine',
      'info',
      machine === undefined ? 'no virtual machine that shows' : line(machine.name, machine.advice),
    ),
  );
}
