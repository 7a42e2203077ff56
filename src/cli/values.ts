// Values that several commands take and print.

import { parseMemorySize } from '../config/memory-size.ts';
import type { ExecOptions } from '../micro-vm.ts';
import { type ParsedArguments, UsageError } from './arguments.ts';

/** The whole number that an option gives. */
export function wholeNumber(given: ParsedArguments, option: string): number | undefined {
  const text = given.text(option);
  if (text === undefined) return undefined;
  if (!/^\d+$/.test(text)) throw new UsageError(`--${option} takes a whole number, not '${text}'`);
  return Number(text);
}

/** The bytes that an option gives: a number of them, or one with a unit as `--memory` has it. */
export function byteCount(given: ParsedArguments, option: string): number | undefined {
  const text = given.text(option);
  if (text === undefined) return undefined;
  const bytes = parseMemorySize(text);
  if (bytes === undefined) {
    throw new UsageError(`--${option} takes a size such as 512MiB or 2GiB, or a number of bytes, not '${text}'`);
  }
  return bytes;
}

/** The environment of `K=V` pairs; `K` alone takes the value from here. */
export function environment(pairs: readonly string[]): Record<string, string> {
  const result: Record<string, string> = {};
  for (const pair of pairs) {
    const equals = pair.indexOf('=');
    const name = equals === -1 ? pair : pair.slice(0, equals);
    const value = equals === -1 ? process.env[name] : pair.slice(equals + 1);
    if (name === '') throw new UsageError(`--env takes K=V, not '${pair}'`);
    if (value !== undefined) result[name] = value;
  }
  return result;
}

/** The user and the group of `USER[:GROUP]`; what they may be is checked with the other options. */
export function userOption(text: string | undefined): Pick<ExecOptions, 'user' | 'group'> {
  if (text === undefined) return {};
  const colon = text.indexOf(':');
  return colon === -1 ? { user: text } : { user: text.slice(0, colon), group: text.slice(colon + 1) };
}

export function printJson(data: unknown): void {
  process.stdout.write(`${JSON.stringify(data, undefined, 2)}\n`);
}

/** So many bytes for a person to read. */
export function byteSize(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB'] as const;
  const step = Math.min(units.length - 1, bytes < 1 ? 0 : Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 1024 ** step;
  return `${step === 0 ? value : value.toFixed(1)} ${units[step]}`;
}
