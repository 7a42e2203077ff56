// Memory, and the limits of control groups.

import test from 'ava';

import { checkMemory } from '../../../src/doctor/checks/memory.ts';
import { says } from '../../helpers/says.ts';
import { contextOf, type FakeHost } from '../../helpers/fake-host.ts';

const memory = (kib: number): FakeHost => ({ texts: { '/proc/meminfo': `MemAvailable: ${kib} kB\n` } });

test('memory for a machine passes', says, checkMemory, memory(262_144), 'memory', 'pass', '256 MiB available');

test(
  'less memory than a machine takes is a warning',
  says,
  checkMemory,
  memory(262_143),
  'memory',
  'warn',
  /available$/,
);

test('/dev/shm is shown', says, checkMemory, {}, 'shared-memory', 'info', '1 GiB free');

test(
  '/dev/shm may be missing',
  says,
  checkMemory,
  { freeBytes: () => undefined },
  'shared-memory',
  'info',
  'not there',
);

const cgroup = (texts: Record<string, string>): FakeHost => ({ texts: { '/proc/self/cgroup': '0::/a/b\n', ...texts } });

test('no limit of the control group is none', says, checkMemory, cgroup({}), 'cgroup', 'info', 'none');

test(
  'the limits of the groups above count',
  says,
  checkMemory,
  cgroup({
    '/sys/fs/cgroup/a/b/memory.max': 'max\n',
    '/sys/fs/cgroup/a/memory.max': '2147483648\n',
    '/sys/fs/cgroup/a/b/cpu.max': '150000 100000\n',
    '/sys/fs/cgroup/a/cpu.max': 'max 100000\n',
    '/sys/fs/cgroup/a/pids.max': '99\n',
  }),
  'cgroup',
  'info',
  'memory 2 GiB, 1.5 CPUs, 99 tasks',
);

test(
  'a control group that leaves too little is a warning',
  says,
  checkMemory,
  cgroup({
    '/sys/fs/cgroup/a/memory.max': '536870912\n',
    '/sys/fs/cgroup/a/memory.current': '436207616\n',
  }),
  'cgroup-memory',
  'warn',
  '96 MiB left',
);

test(
  'version 1 limits memory too',
  says,
  checkMemory,
  {
    texts: { '/proc/self/cgroup': '4:memory:/x\n', '/sys/fs/cgroup/memory/x/memory.limit_in_bytes': '1073741824\n' },
  },
  'cgroup',
  'info',
  'memory 1 GiB',
);

test(
  'the endless limit of version 1 is none',
  says,
  checkMemory,
  {
    texts: {
      '/proc/self/cgroup': '4:memory:/x\n',
      '/sys/fs/cgroup/memory/x/memory.limit_in_bytes': '9223372036854771712\n',
    },
  },
  'cgroup',
  'info',
  'none',
);

test('file cache that the kernel gives up is not counted as used', async (t) => {
  const busy = cgroup({
    '/sys/fs/cgroup/a/memory.max': '536870912\n',
    '/sys/fs/cgroup/a/memory.current': '530000000\n',
    '/sys/fs/cgroup/a/memory.stat': 'anon 1000\ninactive_file 500000000\n',
  });
  t.deepEqual(checkMemory(await contextOf(busy)).problems, []);
});
