// What can be done with a machine that runs, besides commands.

import { once } from 'node:events';
import test from 'ava';

import type { MicroVMOptions } from '../../../index.ts';
import { type AcceleratorName, bootGuest } from '../guest.ts';

/** Declares the tests. */
export function runningBehaviours(accelerator: AcceleratorName, options: MicroVMOptions = {}): void {
  test.serial('a paused machine answers nothing, a resumed one everything', async (t) => {
    const vm = await bootGuest(t, accelerator, options);
    await vm.pause();
    let answered = false;
    const answer = vm.exec('echo', ['awake']).then((result) => {
      answered = true;
      return result;
    });
    // A running guest answers in a fraction of this.
    await t.throwsAsync(
      Promise.race([answer, once(new EventTarget(), 'never', { signal: AbortSignal.timeout(1_500) })]),
    );
    t.false(answered);
    await vm.resume();
    t.is((await answer).stdout, 'awake\n');
  });

  test.serial('the console takes input and gives output', async (t) => {
    const vm = await bootGuest(t, accelerator, options);
    vm.console.setEncoding('utf8');
    let seen = '';
    const said = new Promise<void>((resolve) => {
      vm.console.on('data', (text: string) => {
        seen += text;
        if (seen.includes('heard: hello')) resolve();
      });
    });
    const listening = vm.exec('sh', ['-c', 'read line < /dev/ttyS0; echo "heard: $line" > /dev/ttyS0']);
    vm.console.write('hello\n');
    await Promise.all([listening, said]);
    t.regex(seen, /heard: hello/);
  });

  test.serial('a guest that floods its console disturbs nobody', async (t) => {
    const vm = await bootGuest(t, accelerator, options);
    // Each byte is an exit of its own, which the lab emulates; what is more than is kept, is told by the unit tests.
    const bytes = accelerator === 'kvm' ? 8_000 : 600_000;
    await vm.exec(`yes "$(head -c 500 /dev/zero | tr '\\0' x)" | head -c ${bytes} > /dev/ttyS0`, { shell: true });
    t.is((await vm.exec('echo', ['fine'])).stdout, 'fine\n');
    t.true(vm.console.readableLength <= 256 * 1024);
    await vm.stop();
    let length = 0;
    for await (const chunk of vm.console as AsyncIterable<Buffer>) length += chunk.length;
    t.true(length > 0 && length <= 320 * 1024, `${length} bytes were kept`);
  });
}
