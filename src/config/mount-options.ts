// What each option of a mount may be, and what it is when it is not given.

import { resolve } from 'node:path';
import * as v from 'valibot';
import type { MountSpec } from './machine-spec.ts';
import type { MicroVMOptions, MountOptions } from './options.ts';
import { isText } from './text.ts';
import { path, wholeNumber } from './values.ts';

const TRANSLATION = /^(?:guest|host|map|squash-guest|squash-host):\d+:\d+:\d+$|^forbid-guest:\d+:\d+$/;
/** Folders in which the guest has file systems of its kernel's. */
const KERNELS_OWN = /^\/(?:proc|sys|dev|\.microvm)(?:\/|$)/;

const translation = v.array(
  v.custom<string>(
    (value) => typeof value === 'string' && TRANSLATION.test(value),
    "'TYPE:SOURCE:TARGET:COUNT' with guest, host, map, squash-guest or squash-host, or 'forbid-guest:FIRST:COUNT'",
  ),
  'a list of translations',
);

const entries = {
  source: path,
  readonly: v.optional(v.boolean('true or false'), false),
  cache: v.optional(
    v.picklist(['auto', 'always', 'metadata', 'never'], "'auto', 'always', 'metadata' or 'never'"),
    'auto',
  ),
  writeback: v.optional(v.boolean('true or false'), false),
  xattr: v.optional(v.boolean('true or false'), false),
  posixAcl: v.optional(v.boolean('true or false'), false),
  translateUid: v.optional(translation),
  translateGid: v.optional(translation),
  threads: v.optional(wholeNumber(0, 64), 0),
  requestQueues: v.optional(wholeNumber(1, 63), 1),
  sandbox: v.optional(v.picklist(['namespace', 'none'], "'namespace' or 'none'"), 'namespace'),
};

const looseMount = v.pipe(
  v.looseObject(entries, 'the path of a folder or file of this host, or { source, … }'),
  v.forward(
    v.partialCheck(
      [['posixAcl'], ['translateUid'], ['translateGid']],
      ({ posixAcl, translateUid = [], translateGid = [] }) =>
        !posixAcl || translateUid.length + translateGid.length === 0,
      'false where ids are translated: those in access control lists would not be',
    ),
    ['posixAcl'],
  ),
);

/** One mount with options, of which there may be more. */
export const mountSchema: v.GenericSchema<unknown, MountOptions> = looseMount;

/** The options of one mount. */
export const mountOptionNames: readonly string[] = Object.keys(entries);

const target = v.custom<string>(
  isTarget,
  'an absolute path in the guest without . or .. or a slash at its end, and not /, /proc, /sys or /dev',
);

/** Most mounts of a machine: each is a device. A root folder that is shared is one more. */
const MOST = 8;

/** What the option `mounts` may be. */
export const mounts: v.GenericSchema<unknown, Readonly<Record<string, string | MountOptions>>> = v.pipe(
  v.custom<object>(
    (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
    'an object of guest paths and host paths',
  ),
  v.record(target, v.union([path, looseMount], 'the path of a folder or file of this host, or { source, … }')),
  // Too many is told with what else is wrong of them.
  v.rawCheck(({ dataset, addIssue }) => {
    const { value } = dataset;
    const count = typeof value === 'object' && value !== null ? Object.keys(value).length : 0;
    if (count > MOST) addIssue({ message: `at most ${MOST} mounts` });
  }),
);

function isTarget(value: unknown): boolean {
  if (!isText(value) || !/^(?:\/[^/]+)+$/.test(value) || KERNELS_OWN.test(value)) return false;
  return !value.split('/').some((part) => part === '.' || part === '..');
}

/** The mounts of checked options, each after those that its target lies in. */
export function mountSpecs(checked: MicroVMOptions['mounts']): MountSpec[] {
  return Object.entries(checked ?? {})
    .map(([guestPath, given]) => mountSpec(guestPath, typeof given === 'string' ? { source: given } : given))
    .toSorted((a, b) => (a.target < b.target ? -1 : 1));
}

/** A checked mount with its defaults. */
export function mountSpec(guestPath: string, given: MountOptions): MountSpec {
  return {
    target: guestPath,
    source: resolve(given.source),
    readonly: given.readonly ?? false,
    cache: given.cache ?? 'auto',
    writeback: given.writeback ?? false,
    xattr: given.xattr ?? false,
    posixAcl: given.posixAcl ?? false,
    translateUid: given.translateUid,
    translateGid: given.translateGid,
    threads: given.threads ?? 0,
    requestQueues: given.requestQueues ?? 1,
    sandbox: given.sandbox ?? 'namespace',
  };
}
