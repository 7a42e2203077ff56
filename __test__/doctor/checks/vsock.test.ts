// The host's own vsock.

import test from 'ava';

import { checkVsock } from '../../../src/doctor/checks/vsock.ts';
import { says } from '../../helpers/says.ts';
import { kvmNode, refused } from '../../helpers/fake-host.ts';

const vsock = { '/dev/vhost-vsock': kvmNode() };

test('AF_VSOCK that is there', says, checkVsock, {}, 'af-vsock', 'info', 'available');

test(
  'AF_VSOCK that is not',
  says,
  checkVsock,
  { interfaces: { af_vsock: refused('EAFNOSUPPORT') } },
  'af-vsock',
  'info',
  /EAFNOSUPPORT/,
);

test('no vhost-vsock', says, checkVsock, {}, 'vhost-vsock', 'info', /module vhost_vsock is not loaded/);

test(
  'vhost-vsock with its CID free',
  says,
  checkVsock,
  { nodes: vsock },
  'vhost-vsock',
  'info',
  '/dev/vhost-vsock, CID 3 is free',
);

test(
  'vhost-vsock with its CID taken',
  says,
  checkVsock,
  { nodes: vsock, tryVsockCid: () => refused('EADDRINUSE') },
  'vhost-vsock',
  'info',
  /CID 3 is taken by another machine/,
);

test(
  'vhost-vsock that may not be opened',
  says,
  checkVsock,
  { nodes: vsock, openErrors: { '/dev/vhost-vsock': 'EACCES' } },
  'vhost-vsock',
  'info',
  /cannot be opened \(EACCES; needed for vsock: 'vhost' alone\)/,
);

test(
  'vhost-vsock whose module is loaded but whose device is not here',
  says,
  checkVsock,
  { nodes: { '/sys/module/vhost_vsock': kvmNode({ kind: 'folder' }) } },
  'vhost-vsock',
  'info',
  /module is loaded, but the device is not passed in/,
);
