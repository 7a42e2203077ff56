// Why the agent did not do what it was asked for: as the body of an answer, or in the trailers of one that broke off.

import type { IncomingHttpHeaders } from 'node:http2';
import { MicroVMError } from '../errors.ts';

/** A JSON object with a path, percent-encoded. */
const MAX_TRAILER_CHARACTERS = 128 * 1024;

/** Why the agent did not do what it was asked for, in its own words. */
export class AgentRefusal extends Error {
  /** A code of the API, or the name of an errno. */
  readonly code: string;
  /** What it is about, where the agent says that: the guest's path, and the system call that was refused. */
  readonly about: { readonly path?: string; readonly syscall?: string };

  constructor(code: string, message: string, about: AgentRefusal['about'] = {}) {
    super(message);
    this.code = code;
    this.about = about;
  }
}

/** A refusal from its JSON; undefined where it is none. */
export function refusalOf(text: string): AgentRefusal | undefined {
  const { code, message, path, syscall } = parsed(text);
  if (typeof code !== 'string' || typeof message !== 'string') return undefined;
  return new AgentRefusal(code, message, {
    ...(typeof path === 'string' && { path }),
    ...(typeof syscall === 'string' && { syscall }),
  });
}

/** Why an answer ended before its time; undefined where it is whole. */
export function refusalIn(trailers: IncomingHttpHeaders): Error | undefined {
  const told = trailers['refusal'];
  if (told === undefined) return undefined;
  const isText = typeof told === 'string' && told.length <= MAX_TRAILER_CHARACTERS;
  return (
    (isText ? refusalOf(decoded(told)) : undefined) ??
    new MicroVMError('ERR_AGENT_PROTOCOL', 'The agent broke an answer off without a reason')
  );
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return '';
  }
}

function parsed(text: string): Readonly<Record<'code' | 'message' | 'path' | 'syscall', unknown>> {
  const none = { code: undefined, message: undefined, path: undefined, syscall: undefined };
  try {
    return { ...none, ...(JSON.parse(text) as object | null) };
  } catch {
    return none;
  }
}
