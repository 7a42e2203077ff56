// The caller's say in system calls.

import { inspect } from 'node:util';
import { loadBinding } from '../native.ts';
import type { BindingDecision, BindingSandbox, BindingSystemCall } from './binding.ts';

/** A system call that a program is about to make. */
export interface SystemCall {
  readonly number: number;
  /** As in `syscall(2)`. */
  readonly name: string;
  /** The six arguments, as the program passed them. */
  readonly args: readonly bigint[];
  /** The path that it names, where it names one that can be read. Of two, the first. */
  readonly path: string | undefined;
}

/**
 * What becomes of a system call: `undefined` lets it pass; `deny` has it fail with this error, a name or a number of
 * `errno(3)`; `answer` is what it returns, with nothing done.
 */
export type Decision = undefined | { readonly deny: string | number } | { readonly answer: bigint | number };

/** Has a say in the system calls that it names. All others never cross into JavaScript. */
export interface Hook {
  /** The calls to be asked about. */
  readonly names: readonly string[];
  /**
   * Decides about one. The program waits meanwhile; a timeout or the run's signal end the wait. When it throws or
   * rejects, or gives anything else than a decision, the program is ended and the run rejects with `ERR_SYSCALL_HOOK`.
   */
  readonly decide: (call: SystemCall) => Decision | void | PromiseLike<Decision | void>;
}

/** What a hook threw, and at which call. */
export interface HookFailure {
  readonly call: string;
  readonly error: unknown;
}

const MAX_ERRNO = 4095;

/** The function that the addon calls; `fail` is called at most once, with the first failure. */
export function asker(
  native: BindingSandbox,
  hook: Hook | undefined,
  fail: (failure: HookFailure) => void,
): (call: BindingSystemCall) => void {
  let failed = false;
  return ({ question, number, name = `syscall_${number}`, args, path }) => {
    const failure = (error: unknown): void => {
      if (failed) return;
      failed = true;
      fail({ call: name, error });
    };
    const settle = (decision: unknown): void => {
      try {
        native.answer(question, toBinding(decision));
      } catch (error) {
        failure(error);
      }
    };
    try {
      const call = { number, name, args, path: path === undefined ? undefined : Buffer.from(path).toString() };
      const decision = hook?.decide(call);
      // Only a promise costs another turn of the event loop.
      if (isPromise(decision)) decision.then(settle, failure);
      else settle(decision);
    } catch (error) {
      failure(error);
    }
  };
}

function isPromise(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function';
}

function toBinding(decision: unknown): BindingDecision {
  if (decision === undefined) return {};
  if (typeof decision === 'object' && decision !== null && Object.keys(decision).length === 1) {
    if ('deny' in decision) return { deny: errno(decision.deny) };
    if ('answer' in decision) return { answer: word(decision.answer) };
  }
  throw new TypeError(`${inspect(decision, { depth: 1 })} is no decision: give undefined, { deny } or { answer }`);
}

function errno(value: unknown): number {
  const number = typeof value === 'string' ? loadBinding().systemErrorNumber(value) : value;
  if (typeof number === 'number' && Number.isInteger(number) && number >= 1 && number <= MAX_ERRNO) return number;
  throw new TypeError(`deny: ${inspect(value)} is no error: give its name, as 'EACCES', or 1 to ${MAX_ERRNO}`);
}

function word(value: unknown): bigint {
  const whole = typeof value === 'number' && Number.isSafeInteger(value) ? BigInt(value) : value;
  if (typeof whole === 'bigint' && BigInt.asIntN(64, whole) === whole) return whole;
  throw new TypeError(`answer: ${inspect(value)} is no signed 64-bit integer`);
}
