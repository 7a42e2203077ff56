import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';

/** A script of __test__/fixtures that runs beside the test. */
export interface FixtureProcess {
  readonly child: ChildProcess;
  /** The first line it printed. */
  readonly line: string;
  /** Ends it by a signal and waits until it is gone. */
  kill(signal: NodeJS.Signals): Promise<void>;
}

/** Starts a fixture and waits for its first line. */
export async function startFixture(t: ExecutionContext, name: string, ...args: string[]): Promise<FixtureProcess> {
  const script = fileURLToPath(new URL(`../fixtures/${name}.ts`, import.meta.url));
  const child = spawn(process.execPath, [script, ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  t.teardown(() => child.kill('SIGKILL'));
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
  return {
    child,
    line,
    async kill(signal) {
      child.kill(signal);
      await exited;
    },
  };
}
