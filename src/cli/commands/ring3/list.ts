// `microvm ring3 list`: the platforms, and whether they work here.

import { styleText } from 'node:util';

import { Platform, platforms } from '../../../ring3/platform.ts';
import { type OptionTable, parseArguments, UsageError } from '../../arguments.ts';
import type { HelpPage } from '../../help.ts';
import { errorAsData } from '../../report-error.ts';
import { printJson } from '../../values.ts';

const options = {
  json: { type: 'boolean', help: 'Print JSON: what each platform says of itself, or the error' },
  help: { type: 'boolean', short: 'h', help: 'Show this page' },
} as const satisfies OptionTable;

export const listPage: HelpPage = {
  summary: 'Lists the platforms that run programs, and tries each of them.',
  usage: 'ring3 list [options]',
  options,
  examples: [['microvm ring3 list --json | jq .[].usable', 'Let a program read whether they work']],
};

/** Runs the command; resolves with the exit code. */
export async function list(argv: readonly string[]): Promise<number> {
  const given = parseArguments(argv, options);
  if (given.rest[0] !== undefined) throw new UsageError(`Unexpected word '${given.rest[0]}'`);
  const found = await Promise.all(platforms.list().map(examine));
  if (given.flag('json')) printJson(found.map(plain));
  else process.stdout.write(found.map(line).join(''));
  return 0;
}

interface Found {
  readonly name: string;
  readonly facts?: Platform['facts'];
  readonly error?: unknown;
}

async function examine(name: string): Promise<Found> {
  try {
    const platform = await Platform.open(name);
    const { facts } = platform;
    await platform.close();
    return { name, facts };
  } catch (error) {
    return { name, error };
  }
}

function plain({ name, facts, error }: Found): object {
  if (facts === undefined) return { name, usable: false, error: errorAsData(error) };
  const { minUserAddress, maxUserAddress } = facts;
  const addresses = { minUserAddress: Number(minUserAddress), maxUserAddress: Number(maxUserAddress) };
  return { name, usable: true, facts: { ...facts, ...addresses } };
}

function line({ name, facts, error }: Found): string {
  const dim = (text: string): string => styleText('dim', text, { stream: process.stdout });
  if (facts === undefined) {
    const { message, hint } = errorAsData(error);
    return `${name}  cannot be used: ${message}\n${hint === undefined ? '' : `  ${dim(String(hint))}\n`}`;
  }
  const { syscallEntry, seesPageTableEdits } = facts.host;
  const entry = syscallEntry === 'ring0' ? 'system calls enter ring 0' : 'system calls stay in ring 3';
  const tables = seesPageTableEdits ? 'page tables are walked as they are' : 'page tables are shadowed';
  return `${name}  works ${dim(`(${entry}, ${tables})`)}\n`;
}
