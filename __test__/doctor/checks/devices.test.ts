// Devices for networks and file systems.

import test from 'ava';

import { checkDevices } from '../../../src/doctor/checks/devices.ts';
import { says } from '../../helpers/says.ts';
import { kvmNode } from '../../helpers/fake-host.ts';

test(
  'TUN/TAP that is there',
  says,
  checkDevices,
  { nodes: { '/dev/net/tun': kvmNode() } },
  'tun',
  'info',
  '/dev/net/tun',
);

test('FUSE that is not', says, checkDevices, {}, 'fuse', 'info', 'no /dev/fuse');

test(
  'FUSE that may not be opened',
  says,
  checkDevices,
  { nodes: { '/dev/fuse': kvmNode() }, openErrors: { '/dev/fuse': 'EACCES' } },
  'fuse',
  'info',
  /cannot be opened \(EACCES\)/,
);
