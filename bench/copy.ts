// What a tree of 10,000 files costs to copy into a warm machine: `vm.fs.copyIn` against `tar c` here, whose output goes through a
// plain vsock stream to `tar x` in the guest. The table goes to stderr, the figures as JSON to stdout. The guest's end of the
// stream is a few lines of C: a compiler has to be there. node bench/copy.ts [kvm|tcg] [ROUNDS]; it ends with 1 where copyIn
// is slower than 0.8 of that.

import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';

import { MicroVM } from '../index.ts';
import { findMachine } from '../src/host/running-machines.ts';
import { unixTransport } from '../src/vsock/transport.ts';

const [accelerator = 'auto', rounds = '3'] = process.argv.slice(2);
const FOLDERS = 100;
const FILES = 100;
const LIMIT = 0.8;
const PORT = 5000;

/** Connects to the host and runs a program with that as its standard input. */
const CLIENT = `
#include <linux/vm_sockets.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int count, char **words) {
  struct sockaddr_vm host = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = atoi(words[1])};
  int stream = socket(AF_VSOCK, SOCK_STREAM, 0);
  if (connect(stream, (struct sockaddr *)&host, sizeof host) != 0) return 1;
  dup2(stream, 0);
  execvp(words[2], words + 2);
  return 2;
}
`;

const median = (times: readonly number[]): number =>
  times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)] ?? Number.NaN;

async function timed(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

const home = mkdtempSync(join(tmpdir(), 'microvm-bench-'));
const tree = join(home, 'tree');
for (let folder = 0; folder < FOLDERS; folder += 1) {
  mkdirSync(join(tree, `${folder}`), { recursive: true });
  for (let file = 0; file < FILES; file += 1) {
    writeFileSync(join(tree, `${folder}`, `${file}`), Buffer.alloc(1000 + ((file * 977) % 7000), 'x'));
  }
}
writeFileSync(join(home, 'client.c'), CLIENT);
execFileSync('cc', ['-O2', '-static', '-o', join(home, 'client'), join(home, 'client.c')]);

const vm = await MicroVM.create({ accelerator: accelerator as 'auto' | 'kvm' | 'tcg', memory: '1GiB' });
try {
  await vm.fs.copyIn(join(home, 'client'), '/tmp/client');
  const listener = await unixTransport((await findMachine(vm.name)).socket).listen(PORT);
  const plain = async (): Promise<void> => {
    const unpacking = vm.exec('/tmp/client', [`${PORT}`, 'tar', 'x', '-C', '/tmp/plain']);
    const stream = await listener.accept(AbortSignal.timeout(10_000));
    const tar = spawn('tar', ['c', '-C', tree, '.'], { stdio: ['ignore', 'pipe', 'inherit'] });
    await Promise.all([pipeline(tar.stdout, stream), unpacking]);
  };
  const times = { plain: [] as number[], copyIn: [] as number[], copyOut: [] as number[] };
  for (let round = 0; round < Number(rounds); round += 1) {
    await vm.exec('rm -rf /tmp/plain /tmp/copy; mkdir /tmp/plain', { shell: true });
    times.plain.push(await timed(plain));
    times.copyIn.push(await timed(() => vm.fs.copyIn(tree, '/tmp/copy')));
    times.copyOut.push(await timed(() => vm.fs.copyOut('/tmp/copy', join(home, `out-${round}`))));
  }
  await listener.close();
  const [plainMs, copyInMs, copyOutMs] = [median(times.plain), median(times.copyIn), median(times.copyOut)];
  const ratio = plainMs / copyInMs;
  console.error(
    `${vm.accelerator}: ${FOLDERS * FILES} files by tar over vsock ${plainMs.toFixed(0)} ms, by copyIn ${copyInMs.toFixed(0)} ms: ${ratio.toFixed(2)} times as fast; by copyOut ${copyOutMs.toFixed(0)} ms`,
  );
  console.log(
    JSON.stringify({ accelerator: vm.accelerator, files: FOLDERS * FILES, plainMs, copyInMs, copyOutMs, ratio }),
  );
  process.exitCode = ratio >= LIMIT ? 0 : 1;
} finally {
  await vm.stop();
  rmSync(home, { recursive: true, force: true });
}
