// Ctrl-C and SIGTERM: the first stops the machine cleanly, the second at once.

import { INTERRUPTED, TERMINATED } from './exit-codes.ts';

/** What signals do while a command runs. */
export interface Interruption {
  /** Aborted by the first signal. */
  readonly signal: AbortSignal;
  /** The exit code that the first signal asks for; undefined while there was none. */
  readonly exitCode: number | undefined;
  /** What a second signal does. */
  again: () => void;
  /** Gives signals their ordinary meaning back. */
  end(): void;
}

/** Takes SIGINT and SIGTERM over until `end` is called. */
export function interruptible(): Interruption {
  const abort = new AbortController();
  let exitCode: number | undefined;
  const onSignal = (name: NodeJS.Signals): void => {
    if (exitCode !== undefined) return interruption.again();
    exitCode = name === 'SIGINT' ? INTERRUPTED : TERMINATED;
    abort.abort();
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  const interruption: Interruption = {
    signal: abort.signal,
    get exitCode() {
      return exitCode;
    },
    again: () => {},
    end: () => process.off('SIGINT', onSignal).off('SIGTERM', onSignal),
  };
  return interruption;
}
