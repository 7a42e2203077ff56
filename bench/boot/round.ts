// One measured boot, the same way for every virtual machine monitor.

import type { ResolvedMachine, RunningMachine } from '../../src/accelerators/accelerator.ts';
import { createRuntimeFolder } from '../../src/host/runtime-folder.ts';
import { COMMAND_PORT, CommandChannel } from '../../src/vsock/command-channel.ts';
import { listenForGuest } from '../../src/vsock/unix.ts';

/** What all rounds share: everything of a machine but its sockets. */
export type BootedFrom = Omit<ResolvedMachine, 'vsockSocket' | 'deviceSocket'>;

export interface Round {
  /** Milliseconds from asking for the machine to the first line that PID 1 prints. */
  readonly firstLineMs: number;
  /** Milliseconds from asking for the machine to the answer of the first command. */
  readonly firstExecMs: number;
  /** Bytes that the monitor costs beyond guest RAM, once that command was answered. */
  readonly memoryBytes: number;
}

/** What is measured: anything that starts machines. */
export interface Monitor<Machine extends RunningMachine> {
  start(machine: ResolvedMachine): Promise<Machine>;
}

/** The agent says this first. */
const FIRST_LINE = 'microvm-agent: ';
const BOOT_TIMEOUT_MS = 300_000;

/**
 * @param memory gives the bytes of the monitor; called before the machine is made (without one) and after its first
 *   answer
 */
export async function bootOnce<Machine extends RunningMachine>(
  monitor: Monitor<Machine>,
  from: BootedFrom,
  memory: (machine?: Machine) => number,
): Promise<Round> {
  const folder = await createRuntimeFolder();
  const before = memory();
  const started = performance.now();
  const vsockSocket = folder.socketPath('vsock');
  const channel = new CommandChannel(await listenForGuest(vsockSocket, COMMAND_PORT));
  let machine: Machine | undefined;
  try {
    machine = await monitor.start({ ...from, vsockSocket, deviceSocket: folder.socketPath('device') });
    const firstLine = timeOfFirstLine(machine, started);
    const ended = new AbortController();
    void machine.exited.then((exit) => ended.abort(new Error(`The machine ended: ${JSON.stringify(exit)}`)));
    await channel.accept({ timeoutMs: BOOT_TIMEOUT_MS, signal: ended.signal });
    await channel.run('true');
    const firstExecMs = performance.now() - started;
    const memoryBytes = memory(machine) - before;
    return { firstLineMs: await firstLine, firstExecMs, memoryBytes };
  } finally {
    await channel.close();
    await machine?.kill();
    await folder.remove();
  }
}

function timeOfFirstLine(machine: RunningMachine, started: number): Promise<number> {
  return new Promise((resolve) => {
    let text = '';
    machine.console.on('data', (chunk: Buffer) => {
      if (text.includes(FIRST_LINE)) return;
      text += chunk.toString('latin1');
      if (text.includes(FIRST_LINE)) resolve(performance.now() - started);
    });
  });
}
