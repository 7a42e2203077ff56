// `microvm doctor --fix`: shows the commands of each fix, asks, runs them. Nothing is run that was not shown as it is.

import { spawn } from 'node:child_process';
import { createInterface, type Interface } from 'node:readline';

import type { DoctorReport } from '../doctor/doctor.ts';
import type { Host } from '../doctor/host.ts';
import { elevate, elevationOf, shellLine } from '../doctor/elevation.ts';
import { problemsOf, renderFix, type TextStyle } from '../doctor/text.ts';

/** How to go about it. */
export interface FixOptions {
  readonly host: Pick<Host, 'identity' | 'program'>;
  /** Run without asking. */
  readonly assumeYes: boolean;
  readonly style: TextStyle;
  readonly output: NodeJS.WritableStream;
  /** Where answers come from. */
  readonly input: NodeJS.ReadableStream;
}

/** Applies the fixes of a report that have commands; gives the number of commands that were run. */
export async function applyFixes(report: DoctorReport, options: FixOptions): Promise<number> {
  const { host, assumeYes, style, output, input } = options;
  const elevation = elevationOf(host);
  const questions = new Questions(input, output);
  let ran = 0;
  try {
    for (const { title, fixes } of problemsOf(report)) {
      for (const fix of fixes.filter(({ commands }) => commands.length > 0)) {
        if (elevation === undefined && fix.commands.some(({ sudo }) => sudo)) {
          output.write(`\n${title}: mending it takes root, and there is neither sudo, pkexec nor su\n`);
          continue;
        }
        const commands = fix.commands.map((command) => elevate(command, elevation ?? 'none', host));
        // As it is run: with the program that gives root's rights here, whichever that is.
        const shown = { ...fix, commands: commands.map((argv) => ({ argv, sudo: false })) };
        output.write(
          `\n  ${title}\n${renderFix(shown, { ...style, line: ({ argv }) => shellLine(argv) }).join('\n')}\n`,
        );
        if (!assumeYes && !(await questions.ask('    run this? [y/N] '))) continue;
        ran += await runAll(commands, output);
      }
    }
  } finally {
    questions.close();
  }
  if (ran === 0) output.write('\nNothing was run.\n');
  return ran;
}

/** Runs commands until one fails; gives how many were begun. */
async function runAll(commands: readonly (readonly string[])[], output: NodeJS.WritableStream): Promise<number> {
  for (const [index, argv] of commands.entries()) {
    const status = await run(argv);
    if (status === 0) continue;
    output.write(`    ${shellLine(argv)} failed (${status})\n`);
    return index + 1;
  }
  return commands.length;
}

function run([file, ...args]: readonly string[]): Promise<number | string> {
  return new Promise((resolve) => {
    // Its words go to standard error: standard output may be JSON.
    const child = spawn(file ?? '', args, { stdio: ['inherit', 2, 2] });
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, signal) => resolve(code ?? signal ?? 'ended'));
  });
}

/** Questions whose answers may all have been piped in before. */
class Questions {
  readonly #input: NodeJS.ReadableStream;
  readonly #output: NodeJS.WritableStream;
  #ended = false;
  #lines: { readonly reader: Interface; readonly each: AsyncIterator<string> } | undefined;

  constructor(input: NodeJS.ReadableStream, output: NodeJS.WritableStream) {
    this.#input = input;
    this.#output = output;
  }

  /** Whether the answer is yes. Where nobody can answer, the end of the input is a no. */
  async ask(question: string): Promise<boolean> {
    this.#output.write(question);
    const { reader, each } = (this.#lines ??= this.#open());
    if (!this.#ended) reader.resume();
    const { value, done } = await each.next();
    // sudo reads its password from the same terminal.
    if (!this.#ended) reader.pause();
    if (done === true) this.#output.write('\n');
    return done !== true && /^y(es)?$/i.test(value.trim());
  }

  close(): void {
    this.#lines?.reader.close();
  }

  #open(): { readonly reader: Interface; readonly each: AsyncIterator<string> } {
    const reader = createInterface({ input: this.#input, terminal: false });
    reader.once('close', () => {
      this.#ended = true;
    });
    return { reader, each: reader[Symbol.asyncIterator]() };
  }
}
