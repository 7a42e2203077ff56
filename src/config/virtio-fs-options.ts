// What each option of `VirtioFs.serve` may be.

import { resolve } from 'node:path';
import * as v from 'valibot';
import type { MountSpec } from './machine-spec.ts';
import { mountOptionNames, mountSchema, mountSpec } from './mount-options.ts';
import type { MountOptions } from './options.ts';
import { invalidOptions, problemsOf, unknownOptions } from './problems.ts';
import { isPath, MAX_SOCKET_PATH_BYTES } from './values.ts';

/** What `VirtioFs.serve` takes: a mount's options, and those of its socket. */
export interface VirtioFsOptions extends MountOptions {
  /** Path of the vhost-user socket, which is created and removed at the end. */
  readonly socketPath: string;
  /**
   * Group whose members may connect to the socket.
   * @default none: this user alone
   */
  readonly socketGroup?: string | undefined;
  /**
   * The tag, 1 to 36 bytes, for monitors that ask the daemon for it.
   * @default none: the monitor names the device
   */
  readonly tag?: string | undefined;
  /**
   * After a monitor disconnects, wait for the next one.
   * @default false
   */
  readonly reconnect?: boolean | undefined;
}

/** The options with their defaults. */
export interface VirtioFsSpec {
  readonly share: MountSpec;
  readonly socketPath: string;
  readonly socketGroup: string | undefined;
  readonly tag: string | undefined;
  readonly reconnect: boolean;
}

const text = v.custom<string>(isPath, 'text that is not empty, without NUL');

const entries = {
  socketPath: v.custom<string>(
    (value) => isPath(value) && Buffer.byteLength(resolve(value)) <= MAX_SOCKET_PATH_BYTES,
    `a path of at most ${MAX_SOCKET_PATH_BYTES} bytes, without NUL`,
  ),
  socketGroup: v.optional(text),
  tag: v.optional(v.custom<string>((value) => isPath(value) && Buffer.byteLength(value) <= 36, '1 to 36 bytes')),
  reconnect: v.optional(v.boolean('true or false')),
};
const schema = v.intersect([mountSchema, v.looseObject(entries, 'an object of options')]);

/** Checks all options at once. Throws `ERR_INVALID_OPTIONS` with every problem. */
export function normalizeVirtioFs(options: VirtioFsOptions): VirtioFsSpec {
  const { issues } = v.safeParse(schema, options);
  const known = [...mountOptionNames, ...Object.keys(entries)];
  const problems = [...problemsOf(issues ?? []), ...unknownOptions(options, known)];
  if (problems.length > 0) throw invalidOptions(problems);
  const { socketPath, socketGroup, tag, reconnect = false } = options;
  const share = mountSpec('/', options);
  return { share, socketPath: resolve(socketPath), socketGroup, tag, reconnect };
}
