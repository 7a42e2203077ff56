import { join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import { parseMemorySize } from '../../src/config/memory-size.ts';
import { normalize } from '../../src/config/normalize.ts';
import type { MicroVMOptions } from '../../src/config/options.ts';
import { MicroVMError, type OptionProblem } from '../../src/errors.ts';

const MIB = 2 ** 20;

/** What is wrong with options, as `path: value`. */
function problems(options: unknown): readonly OptionProblem[] {
  try {
    normalize(options as MicroVMOptions);
  } catch (error) {
    if (error instanceof MicroVMError && error.code === 'ERR_INVALID_OPTIONS') return error.problems ?? [];
    throw error;
  }
  return [];
}

const refused = test.macro({
  exec(t, options: unknown, path: string, allowed: RegExp) {
    const found = problems(options);
    t.deepEqual(
      found.map((problem) => problem.path),
      [path],
    );
    t.regex(found[0]?.allowed ?? '', allowed);
  },
  title: (providedTitle) => `${providedTitle} is refused`,
});

const accepted = test.macro({
  exec(t, options: MicroVMOptions, expected: object) {
    t.like(normalize(options), expected);
  },
  title: (providedTitle) => `${providedTitle} is accepted`,
});

test('no options give one CPU, 256 MiB and the default places', (t) => {
  t.like(normalize(), {
    accelerator: 'auto',
    cpus: 1,
    memoryBytes: 256 * MIB,
    hugePages: false,
    kernel: undefined,
    rootfs: { kind: 'default' },
    commandLine: '',
    env: {},
    hostname: 'microvm',
    bootTimeoutMs: { kvm: 30_000, tcg: 120_000 },
    vsock: { type: 'unix' },
    kvmDevice: '/dev/kvm',
  });
  t.deepEqual(normalize({ cpus: undefined, kernel: undefined, signal: undefined }), normalize());
});

test('a specification is plain data', (t) => {
  const spec = normalize({ signal: new AbortController().signal, env: { A: 'b' } });
  t.deepEqual(structuredClone(spec), spec);
});

test('relative paths are resolved', (t) => {
  const { kernel, rootfs } = normalize({ kernel: { image: 'vmlinuz', modules: 'modules' }, rootfs: './default' });
  t.deepEqual(kernel, { image: join(process.cwd(), 'vmlinuz'), modules: join(process.cwd(), 'modules') });
  t.deepEqual(rootfs, { kind: 'path', path: join(process.cwd(), 'default') });
});

test('too many mounts are told with what else is wrong of them', (t) => {
  const mounts = Object.fromEntries(Array.from({ length: 9 }, (_, index) => [`/${index}`, '/x']));
  const error = t.throws(() => normalize({ mounts: { ...mounts, '/a': { source: '/x', cache: 'x' } } } as never), {
    instanceOf: MicroVMError,
  });
  t.deepEqual(error.problems?.map(({ path }) => path).toSorted(), ['mounts', 'mounts["/a"].cache']);
});

test('mounts are in the order in which they can be mounted, with all defaults', (t) => {
  const { mounts } = normalize({ mounts: { '/a/b': { source: '.', readonly: true }, '/a': '/x' } });
  t.deepEqual(
    mounts.map(({ target, source, readonly, cache }) => [target, source, readonly, cache]),
    [
      ['/a', '/x', false, 'auto'],
      ['/a/b', process.cwd(), true, 'auto'],
    ],
  );
});

test('a root folder is given by its path, or is that of this host', (t) => {
  t.deepEqual(normalize({ rootfs: { dir: 'x' } }).rootfs, {
    kind: 'share',
    path: join(process.cwd(), 'x'),
    writable: false,
  });
  t.deepEqual(normalize({ rootfs: 'host' }).rootfs, { kind: 'share', path: '/', writable: false });
  t.deepEqual(normalize({ rootfs: './host' }).rootfs, { kind: 'path', path: join(process.cwd(), 'host') });
});

test('a path alone is a kernel too', (t) => {
  t.deepEqual(normalize({ kernel: '/k' }).kernel, { image: '/k', modules: undefined });
});

test('one boot timeout holds for both accelerators', (t) => {
  t.deepEqual(normalize({ bootTimeout: 5 }).bootTimeoutMs, { kvm: 5, tcg: 5 });
});

test('every problem is listed at once, with its path and what is allowed', (t) => {
  const found = problems({
    kernal: 'x',
    kernel: { imag: 'x' },
    cpus: 0,
    memory: 256,
    env: { 'A B': 'x', C: 1, D: 'secret\0' },
    accelerator: 'hvf',
    bootTimeout: 0,
    signal: {},
  });
  t.deepEqual(
    found.map(({ path, value }) => `${path}: ${value}`),
    [
      'kernel.image: undefined',
      'cpus: 0',
      'memory: 256',
      `env["A B"]: 'A B'`,
      'env.C: a number',
      'env.D: a string',
      "accelerator: 'hvf'",
      'bootTimeout: 0',
      'signal: {}',
      "kernal: 'x'",
      "kernel.imag: 'x'",
    ],
  );
  t.regex(found.find(({ path }) => path === 'kernal')?.allowed ?? '', /did you mean kernel\?/);
  t.true(found.every(({ allowed }) => allowed.length > 5));
});

test('each problem has the code of what is wrong', (t) => {
  const wrong = { kernal: 'x', kernel: { image: '/k\0', modlues: '/m' }, cpus: 0, memory: 0, accelerator: 'hvf' };
  const codes = problems({ ...wrong, env: { A: 'b\0' } }).map(({ path, code }) => [path, code]);
  t.deepEqual(Object.fromEntries(codes), {
    kernal: 'ERR_UNKNOWN_OPTION',
    'kernel.image': 'ERR_NUL_BYTE',
    'kernel.modlues': 'ERR_UNKNOWN_OPTION',
    cpus: 'ERR_CPU_COUNT',
    memory: 'ERR_MEMORY_SIZE',
    accelerator: 'ERR_OPTION_VALUE',
    'env.A': 'ERR_NUL_BYTE',
  });
});

test('the message names each problem and no environment value', (t) => {
  const error = t.throws(() => normalize({ cpus: -1, memory: '1PiB', env: { TOKEN: 'secret\0' } }));
  t.regex(error.message, /cpus: -1 is not allowed \(a whole number, 1 to 64\)/);
  t.regex(error.message, /memory: '1PiB'/);
  t.notRegex(error.message, /secret/);
});

test('an unknown option that resembles none lists all', refused, { zzzzzz: 1 }, 'zzzzzz', /one of kernel, cmdline/);
test('null', refused, null, 'options', /object/);
test('an array', refused, [], 'options', /object/);
test('no memory', refused, { memory: 0 }, 'memory', /32 MiB to 1 TiB/);
test('a memory of 256 bytes', refused, { memory: 256 }, 'memory', /'256MiB'/);
test('a memory of part of a page', refused, { memory: 256 * MIB + 1 }, 'memory', /multiple of 4096/);
test('an absurd memory', refused, { memory: '100000GiB' }, 'memory', /1 TiB/);
test('a memory in megabytes', refused, { memory: '256MB' }, 'memory', /MiB/);
test('a memory that is no number', refused, { memory: Number.NaN }, 'memory', /MiB/);
test('huge pages for an odd memory', refused, { hugePages: true, memory: '33MiB' }, 'memory', /2 MiB/);
test('half a CPU', refused, { cpus: 1.5 }, 'cpus', /1 to 64/);
test('65 CPUs', refused, { cpus: 65 }, 'cpus', /1 to 64/);
test('CPUs as text', refused, { cpus: '2' }, 'cpus', /whole number/);
test('a NUL in a path', refused, { kernel: '/boot/\0' }, 'kernel', /NUL/);
test('an empty path', refused, { kernel: { image: '' } }, 'kernel.image', /not empty/);
test('a NUL in the modules folder', refused, { kernel: { image: '/k', modules: '\0' } }, 'kernel.modules', /NUL/);
test('a NUL in rootfs', refused, { rootfs: 'a\0' }, 'rootfs', /cpio/);
test('a rootfs of no path', refused, { rootfs: { writable: true } }, 'rootfs.dir', /path/);
test(
  'a rootfs with a wrong name',
  refused,
  { rootfs: { dir: '/', readonly: true } },
  'rootfs.readonly',
  /dir, writable/,
);
test('mounts as a list', refused, { mounts: ['/a'] }, 'mounts', /guest paths/);
test('a mount at the root', refused, { mounts: { '/': '/a' } }, 'mounts["/"]', /absolute path/);
test('a mount in a file system of the kernel', refused, { mounts: { '/proc/x': '/a' } }, 'mounts["/proc/x"]', /\/proc/);
test('a mount at a relative path', refused, { mounts: { work: '/a' } }, 'mounts.work', /absolute path/);
test('a mount at a path with ..', refused, { mounts: { '/a/../b': '/a' } }, 'mounts["/a/../b"]', /\.\./);
test('a mount of nothing', refused, { mounts: { '/a': '' } }, 'mounts["/a"]', /path/);
test(
  'a mount with a wrong cache',
  refused,
  { mounts: { '/a': { source: '/', cache: 'x' } } },
  'mounts["/a"].cache',
  /auto/,
);
test(
  'a mount with a wrong name',
  refused,
  { mounts: { '/a': { source: '/', ro: true } } },
  'mounts["/a"].ro',
  /readonly/,
);
test(
  'a mount with a translation that is none',
  refused,
  { mounts: { '/a': { source: '/', translateUid: ['0:1:2'] } } },
  'mounts["/a"].translateUid[0]',
  /TYPE:SOURCE/,
);
test(
  'a mount with translations and access control lists',
  refused,
  { mounts: { '/a': { source: '/', posixAcl: true, translateGid: ['map:0:1:1'] } } },
  'mounts["/a"].posixAcl',
  /false where ids are translated/,
);
test(
  'a mount without a request queue',
  refused,
  { mounts: { '/a': { source: '/', requestQueues: 0 } } },
  'mounts["/a"].requestQueues',
  /1 to 63/,
);
test(
  'a mount with 64 request queues',
  refused,
  { mounts: { '/a': { source: '/', requestQueues: 64 } } },
  'mounts["/a"].requestQueues',
  /1 to 63/,
);
test(
  'nine mounts',
  refused,
  { mounts: Object.fromEntries('abcdefghi'.split('').map((n) => [`/${n}`, '/'])) },
  'mounts',
  /8/,
);
test('a line break in cmdline', refused, { cmdline: 'a\nb' }, 'cmdline', /one line/);
test('a NUL in cmdline', refused, { cmdline: 'a\0b' }, 'cmdline', /ASCII/);
test('an environment list', refused, { env: ['A=b'] }, 'env', /names and texts/);
test('a variable with an empty name', refused, { env: { '': 'x' } }, 'env[""]', /no digit first/);
test('half a surrogate pair', refused, { env: { A: '\ud800' } }, 'env.A', /Unicode/);
for (const name of ['', 'a/b', '..', '.hidden', 'a b', 'a:b', 'x'.repeat(33), '0123456789ab', 1]) {
  test(`the name ${JSON.stringify(name)}`, refused, { name }, 'name', /up to 32 letters/);
}

test('a host name with spaces', refused, { hostname: 'a b' }, 'hostname', /letters/);
test('a boot timeout over what a timer can hold', refused, { bootTimeout: 2 ** 31 }, 'bootTimeout', /milliseconds/);
test('a signal that is none', refused, { signal: 'abort' }, 'signal', /AbortSignal/);

test('64 CPUs and 1.5 GiB', accepted, { cpus: 64, memory: '1.5GiB' }, { cpus: 64, memoryBytes: 1536 * MIB });
test('memory in bytes', accepted, { memory: 64 * MIB }, { memoryBytes: 64 * MIB });
test('a command line with spaces around', accepted, { cmdline: ' a b ' }, { commandLine: 'a b' });
test('an empty environment value', accepted, { env: { A: '' } }, { env: { A: '' } });

test('a command line that the kernel would cut off has a code of its own', (t) => {
  t.throws(() => normalize({ cmdline: 'x'.repeat(1536) }), { code: 'ERR_COMMAND_LINE_TOO_LONG' });
  t.is(normalize({ cmdline: 'x'.repeat(1535) }).commandLine.length, 1535);
});

test('any value for any option gives a specification or a MicroVMError', (t) => {
  const names = [
    'kernel',
    'cmdline',
    'cpus',
    'memory',
    'rootfs',
    'mounts',
    'env',
    'hostname',
    'accelerator',
    'signal',
    'x',
  ];
  const options = fc.dictionary(fc.constantFrom(...names), fc.anything({ withBigInt: true, withNullPrototype: true }));
  const property = fc.property(fc.oneof(options, fc.anything()), (value) => {
    try {
      normalize(value as MicroVMOptions);
    } catch (error) {
      t.true(error instanceof MicroVMError, String(error));
    }
  });
  t.notThrows(() => fc.assert(property, { numRuns: 2000 }));
});

test('memory sizes are read with their units', (t) => {
  t.deepEqual(
    ['1KiB', '1MiB', '2 GiB', '0.5GiB', '4096', 4096, '', 'MiB', '1.5', '-1MiB', '1e3', null].map(parseMemorySize),
    [1024, MIB, 2048 * MIB, 512 * MIB, 4096, 4096, ...Array.from({ length: 6 }, () => undefined)],
  );
});

test(
  "the host's own vsock has the usual port and a free context ID",
  accepted,
  { vsock: 'vhost' },
  {
    vsock: { type: 'vhost', cid: undefined, port: undefined, device: '/dev/vhost-vsock' },
  },
);
test(
  'vsock in its long form',
  accepted,
  { vsock: { type: 'vhost', cid: 2 ** 32 - 2, port: 1, device: '/dev/./v' } },
  { vsock: { type: 'vhost', cid: 2 ** 32 - 2, port: 1, device: '/dev/v' } },
);
test('vsock of another kind', refused, { vsock: 'tcp' }, 'vsock', /'unix', 'vhost'/);
test(
  'a reserved context ID',
  refused,
  { vsock: { type: 'vhost', cid: 2 } },
  'vsock.cid',
  /^a whole number, 3 to 4294967294$/,
);
test(
  'the port of any',
  refused,
  { vsock: { type: 'vhost', port: 2 ** 32 - 1 } },
  'vsock.port',
  /^a whole number, 1 to /,
);
test('a misspelt option of vsock', refused, { vsock: { type: 'vhost', prot: 1 } }, 'vsock.prot', /did you mean port/);
test('a long form without its type', refused, { vsock: { port: 5 } }, 'vsock.type', /vhost/);
