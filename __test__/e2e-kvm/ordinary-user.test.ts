// A user who has no other right than the one to open the KVM device.

import { execFile } from 'node:child_process';
import { chmod, chown, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import test from 'ava';

import { PATIENCE_MS } from '../helpers/guest.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

const pathOf = (file: string): string => fileURLToPath(new URL(`../../${file}`, import.meta.url));

/** Runs a line in a guest as such a user; whoever runs the tests as one is one already. */
async function run(options: readonly string[], line: string): Promise<string> {
  const microvm = [process.execPath, pathOf('src/cli/main.ts'), 'run', '--accelerator', 'kvm'];
  const words = [...microvm, '--boot-timeout', String(PATIENCE_MS), ...options, '--', 'sh', '-c', line];
  const [file, ...args] = process.getuid?.() === 0 ? [pathOf('lab/as-user'), ...words] : words;
  return (await promisify(execFile)(file as string, args)).stdout;
}

test.serial('an ordinary user with access to the KVM device runs a command', async (t) => {
  t.is(await run([], 'id -u; echo out'), '0\nout\n', 'root in the guest, nobody outside');
});

test.serial(
  "an ordinary user's folder is served from a namespace, and the user's files are root's in the guest",
  async (t) => {
    const folder = await temporaryFolder(t);
    const user = process.getuid?.() === 0 ? 1000 : (process.getuid?.() ?? 0);
    if (process.getuid?.() === 0) await chown(folder, user, user);
    await chmod(folder, 0o755);
    const stdout = await run(['--mount', `${folder}:/work`], 'echo x > /work/made; stat -c %u /work/made');
    t.is(stdout, '0\n');
    t.is((await stat(join(folder, 'made'))).uid, user);
  },
);
