// Containers and virtual machines, and what each is told.

import test from 'ava';

import { checkSurroundings } from '../../../src/doctor/checks/surroundings.ts';
import { says } from '../../helpers/says.ts';
import { kvmNode } from '../../helpers/fake-host.ts';

test('no container is none', says, checkSurroundings, {}, 'container', 'info', 'none');

test(
  'a container with the device needs no advice',
  says,
  checkSurroundings,
  { nodes: { '/.dockerenv': kvmNode() } },
  'container',
  'info',
  'docker',
);

test(
  'a container without it is told the flag',
  says,
  checkSurroundings,
  { nodes: { '/.dockerenv': kvmNode(), '/dev/kvm': 'ENOENT' } },
  'container',
  'info',
  /^docker; .*docker run --device \/dev\/kvm/,
);

test(
  'WSL2 is told of its setting',
  says,
  checkSurroundings,
  { nodes: { '/dev/kvm': 'ENOENT' }, texts: { '/proc/version': 'Linux version 5.15 (x@Microsoft.com)' } },
  'machine',
  'info',
  /^WSL2; .*nestedVirtualization=true/,
);

for (const [vendor, advice] of [
  ['Amazon EC2', /\.metal/],
  ['Microsoft Corporation', /ExposeVirtualizationExtensions/],
  ['VMware, Inc.', /hardware assisted/],
  ['innotek GmbH', /--nested-hw-virt/],
  ['Google', /--enable-nested-virtualization/],
  ['QEMU', /nested=1/],
] as const) {
  test(
    `a virtual machine of ${vendor} is told how to nest`,
    says,
    checkSurroundings,
    {
      nodes: { '/dev/kvm': 'ENOENT' },
      texts: { '/sys/class/dmi/id/sys_vendor': `${vendor}\n`, '/proc/cpuinfo': 'flags : hypervisor\n' },
    },
    'machine',
    'info',
    advice,
  );
}
