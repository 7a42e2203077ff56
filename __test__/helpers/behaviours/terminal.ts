// `microvm run -it` in a real terminal: tmux plays the terminal and the person before it.

import { execFile, execFileSync } from 'node:child_process';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';

import { type AcceleratorName, PATIENCE_MS } from '../guest.ts';
import { temporaryFolder } from '../temporary-folder.ts';

const MAIN = fileURLToPath(new URL('../../../src/cli/main.ts', import.meta.url));
const run = promisify(execFile);

/** Declares the test. */
export function terminalBehaviours(accelerator: AcceleratorName): void {
  const title = 'run -it behaves in a terminal: size, resize, Ctrl-C, a full-screen program, Ctrl-D';
  if (!has('tmux')) {
    if (process.env['MICROVM_TEST_REQUIRE_ALL'] === '1') test.serial(title, (t) => t.fail('It takes tmux'));
    else test.serial.skip(`${title} (tmux is not installed here)`, () => {});
    return;
  }
  test.serial(title, async (t) => {
    // In the lab each key is a program that starts; what does not come is told by its own limit.
    if (accelerator === 'kvm') t.timeout(10 * PATIENCE_MS);
    const folder = await temporaryFolder(t);
    const tmux = (...words: string[]): Promise<unknown> =>
      run('tmux', ['-S', join(folder, 'tmux'), '-f', '/dev/null', ...words]);
    const typed = (...keys: string[]): Promise<unknown> => tmux('send-keys', '-t', 'main', ...keys);
    t.teardown(() => tmux('kill-server').catch(() => {}));
    await tmux('new-session', '-d', '-s', 'main', '-x', '91', '-y', '31', 'sh');
    const fifo = join(folder, 'screen');
    await run('mkfifo', [fifo]);
    const screen = createReadStream(fifo, 'utf8');
    await tmux('pipe-pane', '-t', 'main', `exec cat > '${fifo}'`);
    let seen = '';
    const read = async (pattern: RegExp): Promise<void> => {
      for await (const text of screen.iterator({ destroyOnReturn: false })) {
        seen += String(text);
        if (!pattern.test(seen)) continue;
        t.regex(seen, pattern);
        seen = '';
        return;
      }
      t.fail(`The terminal ended before it showed ${pattern}: ${seen}`);
    };
    // The limit of all tests would not tell what is on the screen; and nothing ends the reading of a FIFO that is silent.
    const says = async (pattern: RegExp): Promise<void> => {
      let patience: NodeJS.Timeout | undefined;
      const late = new Promise<never>((_, reject) => {
        const give = (): void => reject(new Error(`No ${pattern} in ${JSON.stringify(seen)}`));
        patience = setTimeout(give, PATIENCE_MS);
      });
      await Promise.race([read(pattern), late]).finally(() => clearTimeout(patience));
    };
    const words = `run --accelerator ${accelerator} --boot-timeout ${PATIENCE_MS} -it -- sh`;
    await typed(`'${process.execPath}' '${MAIN}' ${words}; echo "ended with $?"`, 'Enter');
    await says(/\/ # /);
    await typed('stty size; tty; echo "$TERM"', 'Enter');
    await says(/31 91\s+\/dev\/pts\/\d+\s+(screen|tmux)/);
    const waiting = `trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.1; done`;
    await typed(`sh -c "${waiting}"`, 'Enter');
    await says(/\nready/);
    await tmux('resize-window', '-t', 'main', '-x', '104', '-y', '37');
    await says(/37 104/);
    await typed('echo begun; sleep 1000', 'Enter');
    await says(/\nbegun/);
    await typed('C-c');
    await typed('echo "code $?"', 'Enter');
    await says(/code 130/);
    await typed('echo hello > /tmp/file; vi /tmp/file', 'Enter');
    await says(/~/);
    await typed(':s/hello/good day/', 'Enter', ':wq', 'Enter');
    await typed('cat /tmp/file; echo over; (exit 3)', 'Enter');
    // The end of input is one for a shell that waits at its prompt; what comes before is the terminal's to interpret.
    await says(/\ngood day[\s\S]*\nover\s+\/ # /);
    await typed('C-d');
    await says(/ended with 3/);
    screen.destroy();
  });
}

function has(program: string): boolean {
  try {
    execFileSync(program, ['-V'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}
