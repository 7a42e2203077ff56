// What the options of connections to and from a guest may be.

import { isIP } from 'node:net';
import { resolve } from 'node:path';
import * as v from 'valibot';
import type { OptionProblem } from '../errors.ts';
import type { ForwardSpec, HostAddress, ReverseSpec } from './machine-spec.ts';
import type { ForwardOptions, ReverseOptions } from './options.ts';
import { invalidOptions, problemsOf, unknownOptions } from './problems.ts';
import { isText } from './text.ts';
import { abortSignal, isPath, isWhole, MAX_SOCKET_PATH_BYTES, milliseconds, wholeNumber } from './values.ts';

const LOOPBACK = '127.0.0.1';
const LAST_PORT = 65_535;
/** Beyond the last are "any" port and context ID. */
const LAST_VSOCK_NUMBER = 2 ** 32 - 2;

/** A number of the vsock's: a port or a context ID. */
export const vsockNumber = (from: number): v.GenericSchema<number> => wholeNumber(from, LAST_VSOCK_NUMBER);

const isPort = (value: unknown, from: number): boolean => isWhole(value, from, LAST_PORT);

/** A port in quotes: taken for a path it would be a socket of that name, and nobody would miss the port at once. */
const isQuotedPort = (value: unknown): boolean => typeof value === 'string' && /^\d+$/.test(value);

const isHostPath = (value: unknown): boolean => isPath(value) && !isQuotedPort(value);

/** What is allowed, with the reason where a port is given as text. */
const ruleOf =
  (allowed: string) =>
  ({ input }: { readonly input: unknown }): string =>
    isQuotedPort(input) ? `${allowed}; a port is a number, without quotes` : allowed;

const isGuestPath = (value: unknown): boolean =>
  isText(value) && value.startsWith('/') && Buffer.byteLength(value) <= MAX_SOCKET_PATH_BYTES;

const inGuest = (from: number): v.GenericSchema<number | string> =>
  v.custom<number | string>(
    (value) => isPort(value, from) || isGuestPath(value),
    ruleOf(
      `a TCP port, ${from} to ${LAST_PORT}, or the absolute path of a Unix socket in the guest, up to ${MAX_SOCKET_PATH_BYTES} bytes`,
    ),
  );

const address = v.custom<string>(
  (value) => typeof value === 'string' && isIP(value) !== 0,
  "an IP address of this host, such as '127.0.0.1' or '::1'",
);

const forwardEntries = {
  guest: inGuest(1),
  host: v.optional(
    v.custom<number | string>(
      (value) => isPort(value, 0) || isHostPath(value),
      ruleOf(`a TCP port, 0 to ${LAST_PORT}, or the path of a Unix socket to make`),
    ),
  ),
  hostAddress: v.optional(address),
};

const looseForward = v.looseObject(forwardEntries, '{ guest, host, hostAddress }');

/** One port of the guest on this host. */
export const forward: v.GenericSchema<unknown, ForwardOptions> = v.pipe(
  looseForward,
  v.forward(
    v.partialCheck(
      [['host'], ['hostAddress']],
      ({ host, hostAddress }) => typeof host !== 'string' || hostAddress === undefined,
      'left out, as host is a path',
    ),
    ['hostAddress'],
  ),
);

/** The options of one such port. */
export const forwardOptionNames: readonly string[] = Object.keys(forwardEntries);

const serviceEntries = {
  port: v.custom<number>((value) => isPort(value, 1), ruleOf(`a TCP port, 1 to ${LAST_PORT}`)),
  address: v.optional(address),
};
const serviceRule = ruleOf(`a TCP port, 1 to ${LAST_PORT}, the path of a Unix socket, or { port, address }`);

const reverseEntries = {
  guest: inGuest(0),
  host: v.union(
    [
      v.custom<number | string>((value) => isPort(value, 1) || isHostPath(value), serviceRule),
      v.looseObject(serviceEntries, '{ port, address }'),
    ],
    serviceRule,
  ),
};

const reverse = v.looseObject(reverseEntries, '{ guest, host }');

const connectEntries = { timeout: v.optional(milliseconds), signal: v.optional(abortSignal) };
const connect = v.looseObject(connectEntries, 'an object of options');

/** Throws `ERR_INVALID_OPTIONS` for what is no port of the vsock, or one of those that are the package's own. */
export function checkVsockPort(port: unknown, reserved: readonly number[]): void {
  const allowed = `a vsock port, 1 to ${LAST_VSOCK_NUMBER}, other than ${reserved.join(' and ')}, which are the agent's`;
  const free = v.custom<number>((value) => isWhole(value, 1, LAST_VSOCK_NUMBER) && !reserved.includes(value), allowed);
  throwIfWrong(v.safeParse(v.looseObject({ port: free }), { port }).issues ?? [], []);
}

/** Throws `ERR_INVALID_OPTIONS` with every problem of the options of a connection. */
export function checkConnectOptions(options: unknown): void {
  const { issues } = v.safeParse(connect, options);
  throwIfWrong(issues ?? [], unknownOptions(options, Object.keys(connectEntries)));
}

/** A port to forward, from its options. Throws `ERR_INVALID_OPTIONS` with every problem. */
export function forwardSpec(options: ForwardOptions): ForwardSpec {
  const { issues } = v.safeParse(forward, options);
  throwIfWrong(issues ?? [], unknownOptions(options, forwardOptionNames));
  return checkedForwardSpec(options);
}

/** The same of options that were checked before. */
export function checkedForwardSpec({ guest, host = 0, hostAddress = LOOPBACK }: ForwardOptions): ForwardSpec {
  return { guest, host: typeof host === 'string' ? { path: resolve(host) } : { port: host, address: hostAddress } };
}

/** A service of this host for the guest, from its options. Throws `ERR_INVALID_OPTIONS` with every problem. */
export function reverseSpec(options: ReverseOptions): ReverseSpec {
  const { issues } = v.safeParse(reverse, options);
  const { host } = (options as Partial<ReverseOptions> | null) ?? {};
  throwIfWrong(issues ?? [], [
    ...unknownOptions(options, Object.keys(reverseEntries)),
    ...unknownOptions(typeof host === 'object' ? host : {}, Object.keys(serviceEntries), ['host']),
  ]);
  return { guest: options.guest, host: serviceOf(options.host) };
}

function serviceOf(host: ReverseOptions['host']): HostAddress {
  if (typeof host === 'string') return { path: resolve(host) };
  if (typeof host === 'number') return { port: host, address: LOOPBACK };
  return { port: host.port, address: host.address ?? LOOPBACK };
}

function throwIfWrong(issues: Parameters<typeof problemsOf>[0], unknown: readonly OptionProblem[]): void {
  const problems = [...problemsOf(issues), ...unknown];
  if (problems.length > 0) throw invalidOptions(problems);
}
