// A command's streams on this process's own, and its terminal on this one.

import { pipeline } from 'node:stream/promises';
import type { GuestProcess } from '../micro-vm.ts';

/** The size of the terminal that this process writes to; what terminals usually have where it writes to none. */
export function terminalSize(): { readonly cols: number; readonly rows: number } {
  return { cols: process.stdout.columns || 80, rows: process.stdout.rows || 24 };
}

/** Copies both outputs as they come; resolves when all of them was handed on. */
export async function copyOutputs(command: GuestProcess<string | Buffer>): Promise<void> {
  await Promise.all([copy(command, command.stdout, process.stdout), copy(command, command.stderr, process.stderr)]);
}

async function copy(
  command: GuestProcess<string | Buffer>,
  from: NodeJS.ReadableStream,
  to: NodeJS.WritableStream,
): Promise<void> {
  try {
    await pipeline(from, to, { end: false });
  } catch (error) {
    // A reader that has seen enough: the command is told as any program of a pipe is. What else fails is told by the
    // command's own promise.
    if ((error as NodeJS.ErrnoException).code === 'EPIPE') await command.kill('SIGPIPE').catch(() => {});
  }
}

/** Makes the command's terminal this one: every key is the command's, and so is each new size. Gives what undoes it. */
export function takeOverTerminal(command: GuestProcess<string | Buffer>): () => void {
  const { stdin, stdout } = process;
  const resize = (): void => void command.resize(terminalSize()).catch(() => {});
  if (stdin.isTTY) stdin.setRawMode(true);
  stdout.on('resize', resize);
  // It may have changed while the machine booted.
  resize();
  return () => {
    stdout.off('resize', resize);
    if (stdin.isTTY) stdin.setRawMode(false);
  };
}
