// Machines on the host's own vsock where there is none: told before anything is built. Those that run are in the lab.

import { existsSync } from 'node:fs';
import test from 'ava';

import { MicroVM, MicroVMError } from '../../index.ts';

test('a device that is not there', async (t) => {
  const vsock = { type: 'vhost', device: '/no/such/device' } as const;
  const phases: string[] = [];
  const error = await t.throwsAsync(
    MicroVM.create({ accelerator: 'tcg', vsock, onPhase: (phase) => phases.push(phase) }),
    { instanceOf: MicroVMError },
  );
  t.is(error.code, 'ERR_VHOST_VSOCK_MISSING');
  t.regex(error.message, /\/no\/such\/device/);
  t.deepEqual(phases, ['choose']);
});

test('a file that is no such device', async (t) => {
  const vsock = { type: 'vhost', device: '/dev/null' } as const;
  await t.throwsAsync(MicroVM.create({ accelerator: 'tcg', vsock }), {
    code: 'ERR_VHOST_VSOCK_FAILED',
    message: /refuses the guest CID \d+/,
  });
});

test('a host without the device says what mends it', async (t) => {
  if (existsSync('/dev/vhost-vsock')) {
    t.log('this host has the device');
    return t.pass();
  }
  const error = await t.throwsAsync(MicroVM.create({ accelerator: 'tcg', vsock: 'vhost' }), {
    instanceOf: MicroVMError,
  });
  t.is(error.code, 'ERR_VHOST_VSOCK_MISSING');
  t.regex(error.hint ?? '', /To mend it: /);
});
