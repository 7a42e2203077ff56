// A machine that does what a test says, without a guest.

import { PassThrough } from 'node:stream';

import type { MachineExit } from '../../src/accelerators/accelerator.ts';
import type { BootedMachine } from '../../src/vm/create.ts';

export interface FakeMachine {
  readonly vm: BootedMachine;
  /** What was asked of the machine, in order. */
  readonly log: string[];
  end(exit: MachineExit): void;
}

/** `channel` is what its command channel does. */
export function fakeMachine(channel: Partial<BootedMachine['channel']>, env: Record<string, string> = {}): FakeMachine {
  const log: string[] = [];
  const ended = new AbortController();
  let resolve: (exit: MachineExit) => void = () => {};
  const exited = new Promise<MachineExit>((done) => (resolve = done));
  const console = new PassThrough();
  const end = (exit: MachineExit): void => {
    ended.abort(exit);
    console.destroy();
    resolve(exit);
  };
  const vm = {
    spec: { env },
    channel,
    api: { close: () => {} },
    console: { tail: 'last words' },
    machine: {
      console,
      resume: async () => void log.push('resume'),
    },
    exited,
    ended: ended.signal,
    kill() {
      log.push('kill');
      end({ reason: 'stopped' });
      return exited;
    },
  } as unknown as BootedMachine;
  return { vm, log, end };
}
