// File daemons to be compared: ours and upstream's, with the same options.

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

export interface Daemon {
  readonly name: string;
  /** The folder that it shares. */
  readonly folder: string;
  readonly socket: string;
  readonly requestQueues: number;
  stop(): Promise<void>;
}

export interface DaemonPlan {
  readonly name: string;
  readonly program: string;
  /** Upstream's has no option for more than one. */
  readonly requestQueues: number;
  /** More options; the guest may keep what it reads for a second if there are none. */
  readonly args?: readonly string[];
}

/** Starts a daemon with a folder of its own in `base`; resolves when it listens. */
export async function startDaemon(
  { name, program, requestQueues, args: more = ['--cache', 'auto'] }: DaemonPlan,
  base: string,
): Promise<Daemon> {
  const folder = join(base, `${name}.share`);
  const socket = join(base, `${name}.socket`);
  await mkdir(folder);
  // What an ordinary user's sandbox takes differs between the two.
  const sandbox = process.geteuid?.() === 0 ? 'namespace' : 'none';
  const args = ['--shared-dir', folder, '--socket-path', socket, '--sandbox', sandbox, ...more];
  if (requestQueues > 1) args.push('--request-queues', String(requestQueues));
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  await listening(child, program);
  return {
    name,
    folder,
    socket,
    requestQueues,
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const exited = once(child, 'exit');
      child.kill('SIGTERM');
      await exited;
    },
  };
}

async function listening(child: ChildProcess, program: string): Promise<void> {
  if (child.stderr === null) throw new Error(`${program} has no standard error`);
  const said: string[] = [];
  // Read on: nobody may have to wait for its log.
  const lines = createInterface(child.stderr);
  await new Promise<void>((resolve, reject) => {
    lines.on('line', (line) => {
      said.push(line);
      if (line.includes('Waiting for vhost-user')) resolve();
    });
    child.once('error', reject);
    child.once('exit', () => reject(new Error(`${program} ended: ${said.join('; ')}`)));
  });
}
