// `microvm doctor`: can this host run microVMs, and if not, what to type.

import { styleText } from 'node:util';

import { doctor as examine, type DoctorReport } from '../../doctor/doctor.ts';
import { typedLine } from '../../doctor/elevation.ts';
import type { Host } from '../../doctor/host.ts';
import { inspectHost } from '../../doctor/inspect-host.ts';
import { renderReport, type TextStyle } from '../../doctor/text.ts';
import { type OptionTable, parseArguments, type ParsedArguments, UsageError } from '../arguments.ts';
import { applyFixes } from '../apply-fixes.ts';
import type { HelpPage } from '../help.ts';
import { errorAsText } from '../report-error.ts';

/** The exit codes of `doctor` alone: a diagnosis has an answer, it does not fail as a command does. */
const CAN_RUN = 0;
const CANNOT_RUN = 1;
const BAD_USAGE = 2;

const options = {
  json: { type: 'boolean', help: 'Print the report as JSON' },
  fix: { type: 'boolean', help: 'Show the commands that mend what is wrong, ask, run them, look again' },
  yes: { type: 'boolean', short: 'y', help: 'With --fix: run them without asking' },
  quiet: { type: 'boolean', short: 'q', help: 'Print only what is wrong, and the conclusion' },
  accelerator: { type: 'string', value: 'NAME', help: 'The one that must be usable: auto, kvm or tcg (default auto)' },
  help: { type: 'boolean', short: 'h', help: 'Show this page' },
} as const satisfies OptionTable;

export const doctorPage: HelpPage = {
  summary: 'Tells whether this host can run microVMs, and what to do if not.',
  usage: 'doctor [options]',
  options,
  sections: {
    'Exit codes': [
      '0  microVMs can run here (by tcg alone: with a warning), or by the accelerator that was named',
      '1  they cannot',
      '2  bad usage',
    ],
  },
  examples: [
    ['microvm doctor', 'Look at everything'],
    ['microvm doctor --accelerator kvm --quiet', 'In a script: is KVM fit for use?'],
    ['microvm doctor --fix', 'Mend what can be mended from here'],
  ],
};

/** Runs the command; resolves with the exit code. */
export async function doctor(argv: readonly string[]): Promise<number> {
  try {
    return await diagnose(checkedArguments(argv));
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(errorAsText(error, process.stderr, 'doctor'));
    return BAD_USAGE;
  }
}

async function diagnose(given: ParsedArguments): Promise<number> {
  const accelerator = acceleratorOf(given.text('accelerator'));
  let report = await examine({ accelerator });
  const quiet = given.flag('quiet');
  const host = inspectHost();
  if (given.flag('fix')) {
    // JSON is for the report after the repair; what is asked and run is told on standard error then.
    const stream = given.flag('json') ? process.stderr : process.stdout;
    if (!given.flag('json')) stream.write(renderReport(report, styleFor(stream, quiet, host)));
    const ran = await applyFixes(report, {
      host,
      assumeYes: given.flag('yes'),
      style: styleFor(stream, quiet, host),
      output: stream,
      input: process.stdin,
    });
    if (ran > 0) {
      report = await examine({ accelerator });
      if (!given.flag('json')) stream.write(`\nLooked again\n\n${renderReport(report, styleFor(stream, quiet, host))}`);
    }
  } else if (!given.flag('json')) {
    print(report, quiet, host);
  }
  if (given.flag('json')) process.stdout.write(`${JSON.stringify(report, undefined, 2)}\n`);
  return report.ok ? CAN_RUN : CANNOT_RUN;
}

function print(report: DoctorReport, quiet: boolean, host: Host): void {
  const isFine = !report.sections.some(({ checks }) =>
    checks.some(({ status }) => status === 'warn' || status === 'fail'),
  );
  // A script that asks for quiet hears nothing where nothing is wrong.
  if (quiet && isFine) return;
  process.stdout.write(renderReport(report, styleFor(process.stdout, quiet, host)));
}

function checkedArguments(argv: readonly string[]): ParsedArguments {
  const given = parseArguments(argv, options);
  if (given.rest[0] !== undefined) throw new UsageError(`Unexpected word '${given.rest[0]}'`);
  if (given.flag('yes') && !given.flag('fix')) throw new UsageError('--yes goes with --fix', '--fix --yes');
  return given;
}

function acceleratorOf(name: string | undefined): DoctorReport['accelerator'] {
  if (name === undefined || name === 'auto') return 'auto';
  if (name === 'kvm' || name === 'tcg') return name;
  throw new UsageError(`--accelerator takes auto, kvm or tcg, not '${name}'`);
}

function styleFor(stream: NodeJS.WriteStream, quiet: boolean, host: Host): TextStyle {
  return {
    paint: (style, text) => styleText(style, text, { stream }),
    symbols: stream.isTTY === true,
    quiet,
    line: (command) => typedLine(command, host),
  };
}
