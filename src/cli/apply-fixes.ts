// `microvm doctor --fix`: shows the commands of each fix, asks, runs them. Nothing is run that was not shown as it is.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline/promises';

import type { DoctorReport } from '../doctor/doctor.ts';
import type { Fix, FixCommand } from '../doctor/model.ts';
import { quote } from '../doctor/quote.ts';
import { inspectHost } from '../doctor/inspect-host.ts';
import { renderFix, type TextStyle } from '../doctor/text.ts';

/** How to go about it. */
export interface FixOptions {
  /** Run without asking. */
  readonly assumeYes: boolean;
  readonly style: TextStyle;
  readonly output: NodeJS.WriteStream;
}

/** Applies what fixes of a report have commands; gives the number of commands that were run. */
export async function applyFixes(report: DoctorReport, options: FixOptions): Promise<number> {
  const { output, style } = options;
  const elevation = elevationOf();
  let ran = 0;
  for (const { title, fixes } of report.sections.flatMap(({ problems }) => problems)) {
    for (const fix of fixes.filter(({ commands }) => commands.length > 0)) {
      const lines = fix.commands.map((command) => lineOf(command, elevation));
      if (lines.some((line) => line === undefined)) {
        output.write(`\n${title}: it takes root, and there is neither sudo nor pkexec\n`);
        continue;
      }
      const shown = lines.filter((line) => line !== undefined);
      output.write(`\n${title}\n${describe(fix, shown, style)}\n`);
      if (!(await agreed(options))) continue;
      for (const argv of shown) {
        ran += 1;
        const status = await run(argv);
        if (status === 0) continue;
        output.write(`${argv.map(quote).join(' ')} failed (${status})\n`);
        break;
      }
    }
  }
  if (ran === 0) output.write('\nNothing was run.\n');
  return ran;
}

/** The fix as it will be run: with the program that gives root's rights, whichever that is here. */
function describe(fix: Fix, lines: readonly (readonly string[])[], style: TextStyle): string {
  const commands = lines.map((argv) => ({ argv, sudo: false }));
  return renderFix({ ...fix, commands }, style).join('\n');
}

function lineOf({ argv, sudo }: FixCommand, elevation: readonly string[] | undefined): readonly string[] | undefined {
  if (!sudo) return argv;
  return elevation && [...elevation, ...argv];
}

/** What gives root's rights: nothing for root; undefined where there is no way. */
function elevationOf(): readonly string[] | undefined {
  const host = inspectHost();
  if (host.identity.uid === 0) return [];
  const program = ['sudo', 'pkexec'].find((name) => host.program(name) !== undefined);
  return program === undefined ? undefined : [program];
}

async function agreed({ assumeYes, output }: FixOptions): Promise<boolean> {
  if (assumeYes) return true;
  const terminal = createInterface({ input: process.stdin, output });
  try {
    // Where nobody can answer, the end of the input is a no.
    const closed = once(terminal, 'close').then(() => '');
    const answer = await Promise.race([terminal.question('    run this? [y/N] '), closed]);
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    terminal.close();
  }
}

async function run([file, ...args]: readonly string[]): Promise<number | string> {
  if (file === undefined) return 'empty command';
  const child = spawn(file, args, { stdio: 'inherit' });
  return new Promise((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, signal) => resolve(code ?? signal ?? 'ended'));
  });
}
