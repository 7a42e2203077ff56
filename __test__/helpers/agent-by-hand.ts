// The real agent as an ordinary process of this machine: its API without a guest. Commands run here.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import type { ExecutionContext } from 'ava';

import type { MachineExit } from '../../src/accelerators/accelerator.ts';
import { AgentApi, type AgentApiOptions } from '../../src/guest-api/agent-api.ts';
import { agentPath } from '../../src/native.ts';
import type { BootedMachine } from '../../src/vm/create.ts';
import type { ExecOptions } from '../../src/vm/exec-options.ts';
import type { GuestProcess } from '../../src/vm/guest-process.ts';
import { startProcess } from '../../src/vm/run-process.ts';
import type { Transport } from '../../src/vsock/transport.ts';
import { temporaryFolder } from './temporary-folder.ts';

export interface AgentByHand {
  readonly api: AgentApi;
  readonly vm: BootedMachine;
  readonly pid: number;
  /** The connections made to it so far. */
  readonly connections: readonly Duplex[];
  readonly exec: (file: string, args?: readonly string[], options?: ExecOptions) => GuestProcess<string | Buffer>;
  /** How many descriptors and children it has. */
  holdings(): Promise<{ readonly descriptors: number; readonly children: readonly string[] }>;
}

/** A machine that is nothing but its agent's API. */
export function machineOf(api: AgentApi, env: Record<string, string> = {}): BootedMachine {
  const ended = new AbortController();
  return {
    spec: { env },
    api,
    console: { tail: '' },
    machine: { console: { closed: true } },
    exited: new Promise<MachineExit>(() => {}),
    ended: ended.signal,
  } as unknown as BootedMachine;
}

/** A way to a Unix socket, whatever the port. */
export function transportTo(path: string, connections: Duplex[] = []): Pick<Transport, 'dial'> {
  return {
    async dial() {
      const socket = connect({ path, allowHalfOpen: true });
      await once(socket, 'connect');
      connections.push(socket);
      return socket;
    },
  };
}

/** Starts the agent; it is gone when the test ends. */
export async function agentByHand(t: ExecutionContext, options: AgentApiOptions = {}): Promise<AgentByHand> {
  const folder = await temporaryFolder(t);
  const channel = createServer().listen(join(folder, 'channel'));
  await once(channel, 'listening');
  const socket = join(folder, 'api');
  const child = spawn(agentPath(), ['--unix', join(folder, 'channel'), '--api', socket], {
    stdio: ['ignore', 'ignore', 'ignore'],
    cwd: '/',
  });
  const ended = once(child, 'exit');
  const [connection] = (await once(channel, 'connection')) as [Duplex];
  const connections: Duplex[] = [];
  const api = new AgentApi(transportTo(socket, connections), options);
  t.teardown(async () => {
    api.close();
    // The agent ends when its owner is gone.
    channel.close();
    connection.destroy();
    await ended;
  });
  const vm = machineOf(api);
  const pid = child.pid as number;
  return {
    api,
    vm,
    pid,
    connections,
    exec: (file, args = [], own = {}) => startProcess(vm, file, args, own),
    async holdings() {
      const descriptors = (await readdir(`/proc/${pid}/fd`)).length;
      const { children } = await childrenOf(pid);
      return { descriptors, children };
    },
  };
}

async function childrenOf(pid: number): Promise<{ readonly children: readonly string[] }> {
  const { readFile } = await import('node:fs/promises');
  const tasks = await readdir(`/proc/${pid}/task`);
  // A thread that has ended meanwhile has none.
  const childrenOfTask = (task: string) => readFile(`/proc/${pid}/task/${task}/children`, 'utf8').catch(() => '');
  const lists = await Promise.all(tasks.map(childrenOfTask));
  return { children: lists.join(' ').split(/\s+/).filter(Boolean) };
}
