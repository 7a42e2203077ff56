// What each option may be. The message of a check says what is allowed, so that every problem can be put as "path, value, allowed".

import * as v from 'valibot';
import type { OptionProblem } from '../errors.ts';
import { environment, isRecord } from './environment.ts';
import { parseMemorySize } from './memory-size.ts';
import { mountOptionNames, mounts } from './mount-options.ts';
import type { BootPhase, KernelFiles, MicroVMOptions, RootfsFolder, VhostVsockOptions } from './options.ts';
import { forward, forwardOptionNames, vsockNumber } from './port-options.ts';
import { problemsOf, unknownOptions } from './problems.ts';
import { abortSignal, isPath, isWhole, milliseconds, path, wholeNumber } from './values.ts';

/** Options that passed all checks, with the defaults that do not depend on anything. */
export interface CheckedOptions extends MicroVMOptions {
  readonly kernel?: string | KernelFiles | undefined;
  readonly cmdline: string;
  readonly cpus: number;
  readonly memory: string | number;
  readonly hugePages: boolean;
  readonly rootfs: string | RootfsFolder;
  readonly env: Readonly<Record<string, string>>;
  readonly hostname: string;
  readonly name?: string | undefined;
  readonly accelerator: 'auto' | 'kvm' | 'tcg';
  readonly bootTimeout?: number | undefined;
  readonly vsock: 'unix' | 'vhost' | VhostVsockOptions;
  readonly kvmDevice: string;
}

const PAGE_BYTES = 4096;
const HUGE_PAGE_BYTES = 2 ** 21;
const MIN_MEMORY_BYTES = 2 ** 25;
const MAX_MEMORY_BYTES = 2 ** 40;
const MAX_CPUS = 64;

const memory = v.custom<string | number>((value) => {
  const bytes = parseMemorySize(value);
  return isWhole(bytes, MIN_MEMORY_BYTES, MAX_MEMORY_BYTES) && bytes % PAGE_BYTES === 0;
}, `'256MiB', '1GiB' or a number of bytes: 32 MiB to 1 TiB, a multiple of ${PAGE_BYTES} bytes`);

const cmdline = v.custom<string>(
  (value) => typeof value === 'string' && /^[\x20-\x7e]*$/.test(value),
  'printable ASCII text in one line',
);

const rootfsEntries = { dir: path, writable: v.optional(v.boolean('true or false'), false) };
const ROOTFS_RULE = "'default', 'none', 'host', the path of a folder or a cpio archive, or { dir, writable }";
const rootfs = v.union(
  [v.custom<string>(isPath, ROOTFS_RULE), v.looseObject(rootfsEntries, 'the path of the folder')],
  ROOTFS_RULE,
);

const hostname = v.custom<string>(
  (value) => typeof value === 'string' && /^[a-z0-9](?:[a-z0-9.-]{0,62}[a-z0-9])?$/i.test(value),
  'up to 64 letters, digits, dots and hyphens, no dot or hyphen at an end',
);

/** It is a part of a socket's path, which has 107 bytes, and an id of 12 digits is no name. */
const name = v.custom<string>(
  (value) => typeof value === 'string' && /^(?![0-9a-f]{12}$)[a-z0-9][a-z0-9_.-]{0,31}$/i.test(value),
  'up to 32 letters, digits, dots, hyphens and underscores, a letter or digit first, no 12 hexadecimal digits',
);

const kernelEntries = { image: path, modules: v.optional(path) };

const vsockEntries = {
  type: v.literal('vhost', "'vhost'"),
  cid: v.optional(vsockNumber(3)),
  port: v.optional(vsockNumber(1)),
  device: v.optional(path),
};

const optionEntries = {
  kernel: v.optional(
    v.union(
      [path, v.looseObject(kernelEntries, 'the path of the image')],
      'a path without NUL, or { image, modules } with the path of the modules folder',
    ),
  ),
  cmdline: v.optional(cmdline, ''),
  cpus: v.optional(wholeNumber(1, MAX_CPUS), 1),
  memory: v.optional(memory, '256MiB'),
  hugePages: v.optional(v.boolean('true or false'), false),
  rootfs: v.optional(rootfs, 'default'),
  mounts: v.optional(mounts, {}),
  env: v.optional(environment, {}),
  hostname: v.optional(hostname, 'microvm'),
  name: v.optional(name),
  accelerator: v.optional(v.picklist(['auto', 'kvm', 'tcg'], "'auto', 'kvm' or 'tcg'"), 'auto'),
  bootTimeout: v.optional(milliseconds),
  vsock: v.optional(
    v.union(
      [v.picklist(['unix', 'vhost']), v.looseObject(vsockEntries, "{ type: 'vhost' }")],
      "'unix', 'vhost', or { type: 'vhost', cid, port, device }",
    ),
    'unix',
  ),
  ports: v.optional(v.array(forward, 'a list of { guest, host, hostAddress }'), []),
  kvmDevice: v.optional(path, '/dev/kvm'),
  onPhase: v.optional(v.custom<(phase: BootPhase) => void>((value) => typeof value === 'function', 'a function')),
  onConsole: v.optional(v.custom<(chunk: Uint8Array) => void>((value) => typeof value === 'function', 'a function')),
  signal: v.optional(abortSignal),
};

const optionsSchema = v.pipe(
  v.custom<object>(isRecord, 'an object of options'),
  v.looseObject(optionEntries),
  v.forward(
    v.partialCheck(
      [['hugePages'], ['memory']],
      (options) => !options.hugePages || Number(parseMemorySize(options.memory)) % HUGE_PAGE_BYTES === 0,
      'a multiple of 2 MiB, as hugePages is set',
    ),
    ['memory'],
  ),
);

/** All that is wrong with the options, or the options with their defaults. */
export function checkOptions(options: unknown): CheckedOptions | readonly OptionProblem[] {
  const { success, output, issues } = v.safeParse(optionsSchema, options);
  const problems = [
    ...problemsOf(issues ?? []),
    ...unknownOptions(options, Object.keys(optionEntries)),
    ...unknownOptions(partOf(options, 'kernel'), Object.keys(kernelEntries), ['kernel']),
    ...unknownOptions(partOf(options, 'rootfs'), Object.keys(rootfsEntries), ['rootfs']),
    ...mountsOf(options).flatMap(([at, mount]) =>
      unknownOptions(typeof mount === 'string' ? {} : mount, mountOptionNames, ['mounts', at]),
    ),
    ...unknownOptions(partOf(options, 'vsock'), Object.keys(vsockEntries), ['vsock']),
    ...portsOf(options).flatMap((port, index) => unknownOptions(port, forwardOptionNames, ['ports', index])),
  ];
  return success && problems.length === 0 ? output : problems;
}

function partOf(options: unknown, name: string): unknown {
  return isRecord(options) ? (options as Record<string, unknown>)[name] : undefined;
}

function portsOf(options: unknown): unknown[] {
  const given = partOf(options, 'ports');
  return Array.isArray(given) ? given : [];
}

function mountsOf(options: unknown): [string, unknown][] {
  const given = partOf(options, 'mounts');
  return typeof given === 'object' && given !== null && !Array.isArray(given) ? Object.entries(given) : [];
}
