// Reads a command's options: one table per command gives parsing, help and suggestions.

import { parseArgs } from 'node:util';

import { nearest } from '../config/suggest.ts';

/** One option of a command. */
export interface OptionSpec {
  readonly type: 'boolean' | 'string';
  readonly short?: string;
  /** May be given several times; the values are collected. */
  readonly multiple?: boolean;
  /** The value's name in help texts: `PATH`. */
  readonly value?: string;
  readonly help: string;
}

export type OptionTable = Readonly<Record<string, OptionSpec>>;

/** What was given: each option's values in order (`true` for flags), and the words after the options. */
export interface ParsedArguments {
  flag(name: string): boolean;
  /** The last value, as usual for options that are given twice. */
  text(name: string): string | undefined;
  texts(name: string): readonly string[];
  readonly rest: readonly string[];
}

/** The user's mistake on the command line; `suggestion` says what to type instead. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  readonly suggestion: string | undefined;

  constructor(message: string, suggestion?: string) {
    super(message);
    this.suggestion = suggestion;
  }
}

/**
 * Parses `argv` by `table`. Options end at `--` or at the first word that is none, so that the
 * options of a command to run are its own.
 */
export function parseArguments(argv: readonly string[], table: OptionTable): ParsedArguments {
  const { tokens } = parseArgs({
    args: [...argv],
    options: Object.fromEntries(
      Object.entries(table).map(([name, { type, short, multiple = false }]) => [
        name,
        { type, multiple, ...(short !== undefined && { short }) },
      ]),
    ),
    allowPositionals: true,
    strict: false,
    tokens: true,
  });

  const values = new Map<string, (string | true)[]>();
  let rest: readonly string[] = [];
  for (const token of tokens) {
    if (token.kind === 'option-terminator') {
      rest = argv.slice(token.index + 1);
      break;
    }
    if (token.kind === 'positional') {
      rest = argv.slice(token.index);
      break;
    }
    const given = values.get(token.name) ?? [];
    given.push(checked(token, table));
    values.set(token.name, given);
  }

  const texts = (name: string): string[] => (values.get(name) ?? []).filter((value) => value !== true);
  return {
    flag: (name) => values.has(name),
    text: (name) => texts(name).at(-1),
    texts,
    rest,
  };
}

interface OptionToken {
  readonly name: string;
  readonly rawName: string;
  readonly value?: string | undefined;
}

function checked({ name, rawName, value }: OptionToken, table: OptionTable): string | true {
  const spec = Object.hasOwn(table, name) ? table[name] : undefined;
  if (spec === undefined) {
    const other = nearest(name, Object.keys(table));
    throw new UsageError(`Unknown option ${rawName}`, other && `--${other}`);
  }
  if (spec.type === 'boolean') {
    if (value !== undefined) throw new UsageError(`Option ${rawName} takes no value`);
    return true;
  }
  if (value === undefined) {
    throw new UsageError(`Option ${rawName} needs a value: ${rawName} ${spec.value ?? 'VALUE'}`);
  }
  return value;
}
