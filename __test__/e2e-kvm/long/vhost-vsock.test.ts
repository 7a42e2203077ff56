// Machines on the host's own vsock, beside one another and beside those of other processes. What they do otherwise is the same as
// on a device of ours: `vhost-exec` tells.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import test from 'ava';

import { MicroVM, MicroVMError } from '../../../index.ts';
import { bootGuest, PATIENCE_MS, privateRuntimeFolder } from '../../helpers/guest.ts';
import { holdings, processEnd } from '../../helpers/leftovers.ts';

privateRuntimeFolder();

const OWNER = fileURLToPath(new URL('../../fixtures/owner.ts', import.meta.url));
const CID = 4_000_123;
/** In the lab it is an emulator on an emulated processor that runs this guest. */
const EMULATED_TWICE_MS = 20 * 60_000;

test.serial('machines of one process are told apart, and leave nothing', async (t) => {
  const before = await holdings();
  // They share a listening socket.
  const [first, second] = await Promise.all([
    bootGuest(t, 'kvm', { vsock: 'vhost', hostname: 'first' }),
    bootGuest(t, 'kvm', { vsock: 'vhost', hostname: 'second' }),
  ]);
  const names = await Promise.all([first, second].map(async (vm) => (await vm.exec('hostname')).stdout));
  t.deepEqual(names, ['first\n', 'second\n']);

  // One that stands keeps no other from answering; the device goes on where it was.
  await first.pause();
  const later = first.exec('echo', ['late']);
  t.is((await second.exec('echo', ['soon'])).stdout, 'soon\n');
  await first.resume();
  t.is((await later).stdout, 'late\n');

  t.deepEqual(await first.stop({ timeout: PATIENCE_MS }), { reason: 'power-off' });
  t.is((await second.exec('echo', ['alone'])).stdout, 'alone\n');
  t.deepEqual(await second.kill(), { reason: 'stopped' });
  t.deepEqual(await holdings(), before);
});

test.serial('a killed owner gives its port and its context ID back', async (t) => {
  const owner = spawn(process.execPath, [OWNER, 'kvm', JSON.stringify({ type: 'vhost', cid: CID })], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => owner.kill('SIGKILL'));
  await once(createInterface(owner.stdout), 'line');

  const beside = (vsock: object) =>
    t.throwsAsync(MicroVM.create({ accelerator: 'kvm', vsock: { type: 'vhost', ...vsock } }), {
      instanceOf: MicroVMError,
    });
  const port = await beside({});
  t.is(port.code, 'ERR_VSOCK_PORT_TAKEN');
  t.regex(port.hint ?? '', /port/);
  t.is((await beside({ cid: CID, port: 5000 })).code, 'ERR_VSOCK_CID_TAKEN');

  owner.kill('SIGKILL');
  await once(owner, 'exit');
  await processEnd(owner.pid ?? 0);
  const vm = await bootGuest(t, 'kvm', { vsock: { type: 'vhost', cid: CID } });
  t.is((await vm.exec('echo', ['next'])).stdout, 'next\n');
});

test.serial('an emulated machine is on it too, and reports at the port that it was given', async (t) => {
  t.timeout(2 * EMULATED_TWICE_MS);
  const vsock = { type: 'vhost', port: 5000 } as const;
  const vm = await MicroVM.create({ accelerator: 'tcg', vsock, bootTimeout: EMULATED_TWICE_MS });
  t.teardown(() => vm.kill());
  t.is((await vm.exec('cat', [], { input: 'there and back' })).stdout, 'there and back');
  t.deepEqual(await vm.stop({ timeout: EMULATED_TWICE_MS }), { reason: 'power-off' });
});
