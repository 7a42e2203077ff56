import { spawn } from 'node:child_process';
import { once } from 'node:events';
import test from 'ava';

import { kibibytes, processMemory, processorTime } from '../../src/host/process-figures.ts';

test('processor time and memory of a process are those that it knows itself', async (t) => {
  const begun = process.cpuUsage();
  // More than the hundredth of a second that the system counts by.
  while (process.cpuUsage(begun).user < 30_000);
  const { user, system } = process.cpuUsage();
  const time = await processorTime(process.pid);
  t.true(Math.abs(time - (user + system) / 1000) < 200, `${time} ms, ${user + system} us`);
  t.true((await processorTime(process.pid, process.pid)) <= time + 10);

  const memory = await processMemory(process.pid);
  const { rss } = process.memoryUsage();
  t.true(Math.abs(memory.residentBytes - rss) < 64 * 2 ** 20, `${memory.residentBytes}, ${rss}`);
  t.true((memory.proportionalBytes ?? Infinity) <= memory.residentBytes + 2 ** 20);
  t.true(memory.sharedFileBytes < memory.residentBytes);
});

test('a name with blanks and parentheses does not disturb the figures', async (t) => {
  const child = spawn('sh', ['-c', 'printf "a) 1 2 (b" > /proc/self/comm; echo ready; read line'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  const time = await processorTime(child.pid ?? 0);
  t.true(time >= 0 && time < 10_000, `${time}`);
  child.stdin.end('\n');
  await once(child, 'close');
  await t.throwsAsync(processorTime(child.pid ?? 0), { code: 'ENOENT' });
  await t.throwsAsync(processMemory(child.pid ?? 0), { code: 'ENOENT' });
});

test("lines of the kernel's are bytes, and others are nothing", (t) => {
  const text = 'MemTotal:         500 kB\nMemFree: 12 MB\nNoMemTotal: 1 kB\n';
  t.is(kibibytes(text, 'MemTotal'), 512_000);
  t.is(kibibytes(text, 'MemFree'), undefined);
  t.is(kibibytes(text, 'Pss'), undefined);
});
