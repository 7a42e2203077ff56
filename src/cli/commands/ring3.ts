// `microvm ring3`: programs without a guest kernel.

import { nearest } from '../../config/suggest.ts';
import { type OptionTable, parseArguments, UsageError } from '../arguments.ts';
import { type HelpPage, renderHelp } from '../help.ts';
import { list, listPage } from './ring3/list.ts';
import { run, runPage } from './ring3/run.ts';

const options = {
  help: { type: 'boolean', short: 'h', help: 'Show this page, or with run or list theirs' },
} as const satisfies OptionTable;

const commands: Readonly<
  Record<string, { readonly page: HelpPage; readonly start: (argv: readonly string[]) => Promise<number> }>
> = {
  run: { page: runPage, start: run },
  list: { page: listPage, start: list },
};

export const ring3Page: HelpPage = {
  summary: 'Runs static Linux programs without a guest kernel.',
  usage: 'ring3 run|list [options]',
  commands: Object.fromEntries(Object.entries(commands).map(([name, { page }]) => [name, page.summary])),
  options,
  examples: [
    ['microvm ring3 run -- /bin/busybox echo hello', 'Run a static program'],
    ['microvm ring3 run --help', 'Show all options of run'],
  ],
};

/** Runs the command; resolves with the exit code. */
export async function ring3(argv: readonly string[]): Promise<number> {
  const [name, ...rest] = parseArguments(argv, options).rest;
  if (name === undefined) {
    process.stderr.write(renderHelp(ring3Page, process.stderr));
    throw new UsageError('ring3 takes a command', 'microvm ring3 run -- PROGRAM');
  }
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command === undefined) {
    throw new UsageError(`Unknown command 'ring3 ${name}'`, nearest(name, Object.keys(commands)));
  }
  if (parseArguments(rest, command.page.options).flag('help')) {
    process.stdout.write(renderHelp(command.page, process.stdout));
    return 0;
  }
  return command.start(rest);
}
