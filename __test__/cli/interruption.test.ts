import test, { type ExecutionContext } from 'ava';

import { type Interruption, interruptible } from '../../src/cli/interruption.ts';

/** What signals do, as words in the order of what happened. */
function watched(t: ExecutionContext): { readonly interruption: Interruption; readonly seen: string[] } {
  const seen: string[] = [];
  const interruption = interruptible();
  t.teardown(() => interruption.end());
  interruption.signal.addEventListener('abort', () => seen.push('abort'));
  interruption.again = () => seen.push('again');
  return { interruption, seen };
}

// Listeners of one process: one test after the other.
test.serial('a signal while nobody takes it aborts, and one more insists', (t) => {
  const { interruption, seen } = watched(t);
  t.is(interruption.exitCode, undefined);
  process.emit('SIGINT', 'SIGINT');
  t.deepEqual([seen, interruption.exitCode], [['abort'], 130]);
  process.emit('SIGTERM', 'SIGTERM');
  t.deepEqual([seen, interruption.exitCode], [['abort', 'again'], 130], 'the first tells the exit code');
});

test.serial('a command takes SIGINT and SIGTERM once; the second stops the machine, the third at once', (t) => {
  const { interruption, seen } = watched(t);
  interruption.forward = (name) => void seen.push(name);
  process.emit('SIGTERM', 'SIGTERM');
  process.emit('SIGINT', 'SIGINT');
  t.deepEqual([seen, interruption.exitCode], [['SIGTERM', 'SIGINT'], undefined]);
  process.emit('SIGTERM', 'SIGTERM');
  t.deepEqual([seen, interruption.exitCode], [['SIGTERM', 'SIGINT', 'abort'], 143]);
  process.emit('SIGINT', 'SIGINT');
  t.is(seen.at(-1), 'again');
});

for (const name of ['SIGHUP', 'SIGQUIT', 'SIGUSR2'] as const) {
  test.serial(`a command takes ${name} as often as it comes; without one it ends the boot`, (t) => {
    const { interruption, seen } = watched(t);
    interruption.forward = (name) => void seen.push(name);
    process.emit(name, name);
    process.emit(name, name);
    interruption.forward = undefined;
    process.emit(name, name);
    t.deepEqual([seen, interruption.exitCode], [[name, name, 'abort'], 143]);
  });
}

test.serial('in the end signals are what they were', (t) => {
  const names = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR2'] as const;
  const before = names.map((name) => process.listenerCount(name));
  interruptible().end();
  t.deepEqual(
    names.map((name) => process.listenerCount(name)),
    before,
  );
});
