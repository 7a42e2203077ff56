// The spinner with the phases of a start: on a terminal only, and on stderr, which is not the
// command's output.

import createSpinner from 'yocto-spinner';

import type { BootPhase } from '../config/options.ts';

const WORDS: Readonly<Record<BootPhase, string>> = {
  choose: 'measuring how this host runs guests',
  kernel: 'looking for a kernel',
  initramfs: 'packing the initramfs',
  machine: 'making the machine',
  boot: 'booting',
};

/** Shows what is going on; gone without a trace when the command's output starts. */
export interface Progress {
  /** A phase of the start. */
  phase(name: BootPhase): void;
  say(text: string): void;
  /** A line that stays, for who sits at a terminal. */
  note(text: string): void;
  /** The same for everybody: without it the command's result is of no use. */
  tell(text: string): void;
  clear(): void;
}

/** A spinner on `stream`, or nothing where that is no terminal. */
export function startProgress(stream: NodeJS.WriteStream, enabled: boolean): Progress {
  const tell = (text: string): void => void stream.write(`microvm: ${text}\n`);
  if (!enabled || !stream.isTTY) return { phase: () => {}, say: () => {}, note: () => {}, tell, clear: () => {} };
  // Signals are the command's own: it stops the machine before it exits.
  const spinner = createSpinner({ stream, text: 'starting', handleSignals: false }).start();
  const stay = (text: string): void => {
    spinner.clear();
    tell(text);
  };
  return {
    phase: (name) => {
      spinner.text = WORDS[name];
    },
    say: (text) => {
      spinner.text = text;
    },
    note: stay,
    tell: stay,
    clear: () => spinner.clear().stop(),
  };
}
