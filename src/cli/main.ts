#!/usr/bin/env node
// The `microvm` command: picks the command, turns its outcome into an exit code.

import { nearest } from '../config/suggest.ts';
import { packageVersion } from '../native.ts';
import { type OptionTable, parseArguments, UsageError } from './arguments.ts';
import { cache, cachePage } from './commands/cache.ts';
import { cp, cpPage } from './commands/cp.ts';
import { doctor, doctorPage } from './commands/doctor.ts';
import { ring3, ring3Page } from './commands/ring3.ts';
import { run, runPage } from './commands/run.ts';
import { virtiofsd, virtiofsdPage } from './commands/virtiofsd.ts';
import { OWN_FAILURE } from './exit-codes.ts';
import { type HelpPage, renderHelp } from './help.ts';
import { errorAsText } from './report-error.ts';

const commands: Readonly<
  Record<string, { readonly page: HelpPage; readonly start: (argv: readonly string[]) => Promise<number> }>
> = {
  run: { page: runPage, start: run },
  cp: { page: cpPage, start: cp },
  ring3: { page: ring3Page, start: ring3 },
  doctor: { page: doctorPage, start: doctor },
  cache: { page: cachePage, start: cache },
  virtiofsd: { page: virtiofsdPage, start: virtiofsd },
};

const options = {
  version: { type: 'boolean', short: 'V', help: 'Show the version' },
  help: { type: 'boolean', short: 'h', help: 'Show this page, or the one of a command' },
} as const satisfies OptionTable;

const mainPage: HelpPage = {
  summary: 'Boots and controls Linux microVMs.',
  usage: 'COMMAND [options]',
  commands: Object.fromEntries(Object.entries(commands).map(([name, { page }]) => [name, page.summary])),
  options,
  examples: [
    ['microvm run -- uname -a', 'Run a command in a fresh Linux'],
    ['microvm doctor', 'Look whether this host can run microVMs'],
    ['microvm run --help', 'Show all options of run'],
  ],
};

async function main(argv: readonly string[]): Promise<number> {
  const given = parseArguments(argv, options);
  const [name, ...rest] = given.rest;
  if (given.flag('version')) return print(`${packageVersion()}\n`);
  if (name === undefined || name === 'help') {
    const page = commands[rest[0] ?? '']?.page ?? mainPage;
    if (given.flag('help') || name === 'help') return print(renderHelp(page, process.stdout));
    process.stderr.write(renderHelp(mainPage, process.stderr));
    return OWN_FAILURE;
  }
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command === undefined) {
    throw new UsageError(`Unknown command '${name}'`, nearest(name, Object.keys(commands)));
  }
  if (!command.page.printsOwnHelp && asksForHelp(rest, command.page.options))
    return print(renderHelp(command.page, process.stdout));
  return command.start(rest);
}

// Help wins over mistakes in other options, but not over the words of a command to run.
function asksForHelp(argv: readonly string[], table: OptionTable): boolean {
  try {
    return parseArguments(argv, table).flag('help');
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    return argv[0] === '--help' || argv[0] === '-h';
  }
}

/** Whose help page explains a mistake in these words: a command's, or that of the one below it. */
function commandIn([name = '', ...rest]: readonly string[]): string | undefined {
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command === undefined) return undefined;
  const below = rest.find((word) => !word.startsWith('-')) ?? '';
  return Object.hasOwn(command.page.commands ?? {}, below) ? `${name} ${below}` : name;
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}

// A reader that has seen enough (`microvm run … | head`) is no failure.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
  });
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(errorAsText(error, process.stderr, commandIn(process.argv.slice(2))));
  process.exitCode = OWN_FAILURE;
}
