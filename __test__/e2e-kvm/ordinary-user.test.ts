// A user who has no other right than the one to open the KVM device.

import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import test from 'ava';

import { PATIENCE_MS } from '../helpers/guest.ts';

const pathOf = (file: string): string => fileURLToPath(new URL(`../../${file}`, import.meta.url));

test.serial('an ordinary user with access to the KVM device runs a command', async (t) => {
  const microvm = [process.execPath, pathOf('src/cli/main.ts'), 'run', '--accelerator', 'kvm'];
  const line = ['sh', '-c', 'id -u; echo out'];
  const words = [...microvm, '--boot-timeout', String(PATIENCE_MS), '--', ...line];
  // Whoever runs the tests as such a user is one already.
  const [file, ...args] = process.getuid?.() === 0 ? [pathOf('lab/as-user'), ...words] : words;
  const { stdout } = await promisify(execFile)(file as string, args);
  t.is(stdout, '0\nout\n', 'root in the guest, nobody outside');
});
