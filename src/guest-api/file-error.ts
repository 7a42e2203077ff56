// A refusal of the guest's kernel as `node:fs` would tell it.

import { constants as system } from 'node:os';
import { AgentRefusal } from './refusal.ts';

/** What a file operation in the guest was refused with. It has the fields of `node:fs`'s errors, with paths of the guest. */
export class GuestFileError extends Error implements NodeJS.ErrnoException {
  override readonly name = 'GuestFileError';
  /** The name of the errno, such as `ENOENT`. */
  readonly code: string;
  /** The errno as Node has it: below zero. */
  readonly errno: number | undefined;
  readonly syscall: string;
  readonly path: string;
  readonly dest: string | undefined;

  constructor(refusal: AgentRefusal, asked: string, of: string, dest?: string) {
    // The agent knows better, where many calls or paths make one request.
    const { syscall = asked, path = of } = refusal.about;
    const to = dest === undefined ? '' : ` -> '${dest}'`;
    super(`${refusal.code}: ${refusal.message}, ${syscall} '${path}'${to}`, { cause: refusal });
    const number = (system.errno as Readonly<Record<string, number>>)[refusal.code];
    this.code = refusal.code;
    this.errno = number === undefined ? undefined : -number;
    this.syscall = syscall;
    this.path = path;
    this.dest = dest;
  }
}

/** The error for what a request threw. */
export function fileError(error: unknown, syscall: string, path: string, dest?: string): unknown {
  return error instanceof AgentRefusal ? new GuestFileError(error, syscall, path, dest) : error;
}
