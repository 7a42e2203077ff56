// The spinner with the phases of a start: on a terminal only, and on stderr, which is not the
// command's output.

import createSpinner from 'yocto-spinner';

/** Shows what is going on; gone without a trace when the command's output starts. */
export interface Progress {
  phase(name: string): void;
  clear(): void;
}

const silent: Progress = { phase: () => {}, clear: () => {} };

/** A spinner on `stream`, or nothing where that is no terminal. */
export function startProgress(stream: NodeJS.WriteStream, enabled: boolean): Progress {
  if (!enabled || !stream.isTTY) return silent;
  // Signals are the command's own: it stops the machine before it exits.
  const spinner = createSpinner({ stream, text: 'starting', handleSignals: false }).start();
  return {
    phase: (name) => {
      spinner.text = name;
    },
    clear: () => spinner.clear().stop(),
  };
}
