// What each option of a sandbox may be, and what the addon gets for them.

import * as v from 'valibot';
import { environment, isRecord } from '../config/environment.ts';
import { parseMemorySize } from '../config/memory-size.ts';
import { invalidOptions, problemsOf, unknownOptions } from '../config/problems.ts';
import { isText } from '../config/text.ts';
import { milliseconds, path, wholeNumber } from '../config/values.ts';
import type { BindingSandboxOptions } from './binding.ts';
import { Platform } from './platform.ts';

/** What a program may use up; each counts for one run. */
export interface SandboxLimits {
  /** Milliseconds of processor time, of the program and of answering its calls. @default none */
  readonly cpuTime?: number | undefined;
  /** Milliseconds that a run may take. @default none */
  readonly wallTime?: number | undefined;
  /** Bytes of stdout and stderr together: `'64MiB'`, or a number. @default '64MiB' */
  readonly output?: string | number | undefined;
  /** Descriptors that are open at once, 3 to 4096. @default 256 */
  readonly openFiles?: number | undefined;
  /** Bytes of the stack, a part of `memory`: `'8MiB'`, or a number. @default '8MiB' */
  readonly stack?: string | number | undefined;
}

/** What `UserSandbox.create` takes. Everything has a default. */
export interface UserSandboxOptions {
  /**
   * Memory of a program: its pages and page tables, and its files in memory. `'64MiB'`, or a number of bytes.
   * @default '256MiB'
   */
  readonly memory?: string | number | undefined;
  /**
   * Folder of the host that programs see as `/`. It is only read: what they write and remove there is their own view,
   * in memory.
   * @default none: there are only files in memory
   */
  readonly root?: string | undefined;
  /**
   * Environment variables. Those of this process are not passed on.
   * @default {}
   */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /**
   * Folder in which programs start, an absolute path in their tree.
   * @default '/'
   */
  readonly cwd?: string | undefined;
  /** Limits of each run. */
  readonly limits?: SandboxLimits | undefined;
  /**
   * The machine to run in, which several sandboxes may share; it stays the caller's. Programs that must never share
   * anything get a machine each.
   * @default one of its own
   */
  readonly platform?: Platform | undefined;
}

const KIB = 2 ** 10;
const PAGE = 4 * KIB;
const MIN_MEMORY = 2 ** 20;
const MAX_MEMORY = 2 ** 40;
const MIN_STACK = 64 * KIB;
const MAX_STACK = 2 ** 30;

const size = (from: number, to: number, words: string): v.GenericSchema<string | number> =>
  v.custom<string | number>((value) => {
    const bytes = parseMemorySize(value);
    return bytes !== undefined && bytes >= from && bytes <= to;
  }, words);

const limitEntries = {
  cpuTime: v.optional(milliseconds),
  wallTime: v.optional(milliseconds),
  output: v.optional(size(0, MAX_MEMORY, "'64MiB' or a number of bytes, up to 1 TiB")),
  openFiles: v.optional(wholeNumber(3, 4096)),
  stack: v.optional(
    v.pipe(
      size(MIN_STACK, MAX_STACK, "'8MiB' or a number of bytes: 64 KiB to 1 GiB, a multiple of 4096"),
      v.check(
        (value) => Number(parseMemorySize(value)) % PAGE === 0,
        "'8MiB' or a number of bytes: 64 KiB to 1 GiB, a multiple of 4096",
      ),
    ),
  ),
};

const entries = {
  memory: v.optional(size(MIN_MEMORY, MAX_MEMORY, "'64MiB', '1GiB' or a number of bytes: 1 MiB to 1 TiB")),
  root: v.optional(path),
  env: v.optional(environment),
  cwd: v.optional(
    v.custom<string>((value) => isText(value) && value.startsWith('/'), 'an absolute path: text without NUL'),
  ),
  limits: v.optional(v.pipe(v.custom<object>(isRecord, 'an object of limits'), v.looseObject(limitEntries))),
  platform: v.optional(v.custom<Platform>((value) => value instanceof Platform, 'a Platform')),
};
const schema = v.pipe(v.custom<object>(isRecord, 'an object of options'), v.looseObject(entries));

/** Checks all options at once. Throws `ERR_INVALID_OPTIONS` with every problem. */
export function checkSandboxOptions(options: unknown): void {
  const { issues } = v.safeParse(schema, options);
  const limits = (options as UserSandboxOptions | null)?.limits;
  const problems = [
    ...problemsOf(issues ?? []),
    ...unknownOptions(options, Object.keys(entries)),
    ...unknownOptions(limits, Object.keys(limitEntries), ['limits']),
  ];
  if (problems.length > 0) throw invalidOptions(problems);
}

/** Options that were checked, as the addon takes them. */
export function bindingOptions({
  memory,
  root,
  env = {},
  cwd = '/',
  limits = {},
}: UserSandboxOptions): BindingSandboxOptions {
  const { cpuTime, wallTime, output, openFiles, stack } = limits;
  return {
    env: variables(env),
    cwd,
    ...(root !== undefined && { root }),
    ...(memory !== undefined && { memory: bytes(memory) }),
    ...(cpuTime !== undefined && { cpuTimeMs: cpuTime }),
    ...(wallTime !== undefined && { wallTimeMs: wallTime }),
    ...(output !== undefined && { outputBytes: bytes(output) }),
    ...(openFiles !== undefined && { openFiles }),
    ...(stack !== undefined && { stack: bytes(stack) }),
  };
}

/** An environment as `NAME=value` texts; what is undefined is left out. */
export function variables(env: Readonly<Record<string, string | undefined>>): string[] {
  return Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`]));
}

function bytes(size: string | number): bigint {
  return BigInt(parseMemorySize(size) ?? 0);
}
