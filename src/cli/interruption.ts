// Signals of a run. Until its command runs they stop the machine; then they are the command's, as with `docker run`: only who
// insists stops the machine, first cleanly, then at once.

import { INTERRUPTED, TERMINATED } from './exit-codes.ts';

/** What signals do while a command runs. */
export interface Interruption {
  /** Aborted by the first signal that nobody takes. */
  readonly signal: AbortSignal;
  /** The exit code that it asks for; undefined while there was none. */
  readonly exitCode: number | undefined;
  /** Who takes signals. SIGINT and SIGTERM that come a second time are not given to it. */
  forward: ((name: NodeJS.Signals) => void) | undefined;
  /** What one more signal does. */
  again: () => void;
  /** Gives signals their ordinary meaning back. */
  end(): void;
}

const ENDING: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM'];
/** SIGUSR1 is Node's own. */
const FORWARDED: readonly NodeJS.Signals[] = ['SIGHUP', 'SIGQUIT', 'SIGUSR2'];

/** Takes signals over until `end` is called. */
export function interruptible(): Interruption {
  const abort = new AbortController();
  const forwarded = new Set<NodeJS.Signals>();
  let exitCode: number | undefined;
  const onEnding = (name: NodeJS.Signals): void => {
    if (exitCode !== undefined) return interruption.again();
    if (interruption.forward && !forwarded.has(name)) {
      forwarded.add(name);
      return interruption.forward(name);
    }
    exitCode = name === 'SIGINT' ? INTERRUPTED : TERMINATED;
    abort.abort();
  };
  const onOther = (name: NodeJS.Signals): void => {
    if (interruption.forward) return interruption.forward(name);
    onEnding('SIGTERM');
  };
  for (const name of ENDING) process.on(name, onEnding);
  for (const name of FORWARDED) process.on(name, onOther);
  const interruption: Interruption = {
    signal: abort.signal,
    get exitCode() {
      return exitCode;
    },
    forward: undefined,
    again: () => {},
    end() {
      for (const name of ENDING) process.off(name, onEnding);
      for (const name of FORWARDED) process.off(name, onOther);
    },
  };
  return interruption;
}
