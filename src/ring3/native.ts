// What this folder asks the addon once.

import { loadBinding } from '../native.ts';

let names: ReadonlySet<string> | undefined;

/** Names of all system calls of x86-64. */
export function systemCallNames(): ReadonlySet<string> {
  names ??= new Set(loadBinding().systemCallNames());
  return names;
}
