// The examples of the documentation run as they are printed.

import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';

import type { MicroVMOptions } from '../../../index.ts';
import { type AcceleratorName, PATIENCE_MS } from '../guest.ts';
import { temporaryFolder } from '../temporary-folder.ts';

const PROJECT = new URL('../../../', import.meta.url);

/** Declares a test for each page, with what its example prints. */
export function documentationBehaviours(accelerator: AcceleratorName, options: MicroVMOptions = {}): void {
  // The accelerator that these tests are of, and their patience.
  const given = JSON.stringify({ accelerator, bootTimeout: PATIENCE_MS, ...options });
  const pages = {
    'agent-api.md': /^\{"agent":"[\d.]+","api":1\}\n(?:exit code 0\nx86_64|x86_64\nexit code 0)\n$/,
    'exec.md': /x86_64.*\n 0\n1\n2\n3\napple\npear\n\n1000000\n30 100\r?\n\nSIGINT\ntrue\n$/,
    'ports.md': /^hello from the guest\nhello from the host\n$/,
    'files.md':
      /^buy milk\nbuy bread\n\n\/work notes true\n\/work\/notes today false\n19 100644 .*Z\nmilk\ntrue rename docs\/files.md\nENOENT open \/no\/such\/file\n$/,
  };
  for (const [page, prints] of Object.entries(pages)) {
    test.serial(`the example of docs/${page} runs as printed`, async (t) => {
      const text = await readFile(new URL(`docs/${page}`, PROJECT), 'utf8');
      const [, example = ''] = /```ts\n(.*?)```/s.exec(text) ?? [];
      const program = join(await temporaryFolder(t), 'example.ts');
      const source = example
        .replace("'@hybrid/microvm'", JSON.stringify(fileURLToPath(new URL('index.ts', PROJECT))))
        .replace('MicroVM.create()', `MicroVM.create(${given})`);
      await writeFile(program, source);
      const { stdout } = await promisify(execFile)(process.execPath, [
        '--disable-warning=ExperimentalWarning',
        program,
      ]);
      t.regex(stdout, prints);
    });
  }
}
