// `microvm cache`: what is cached, and how to be rid of it.

import { styleText } from 'node:util';

import { type CacheEntry, cacheFolder, cleanCache, listCache } from '../../cache/cache.ts';
import { type OptionTable, parseArguments, UsageError } from '../arguments.ts';
import { nearest } from '../../config/suggest.ts';
import type { HelpPage } from '../help.ts';

const options = {
  json: { type: 'boolean', help: 'Print JSON' },
  help: { type: 'boolean', short: 'h', help: 'Show this page' },
} as const satisfies OptionTable;

const commands = {
  ls: 'List what is cached, with sizes',
  clean: 'Remove what no running machine uses',
} as const;

export const cachePage: HelpPage = {
  summary: 'Shows and cleans the cache of kernels, userlands and initramfs images.',
  usage: 'cache ls|clean [options]',
  commands,
  options,
  sections: {
    Folder: ['$MICROVM_CACHE, else microvm in $XDG_CACHE_HOME or ~/.cache'],
  },
};

/** Runs the command; resolves with the exit code. */
export async function cache(argv: readonly string[]): Promise<number> {
  const [verb = 'ls', ...rest] = argv;
  const given = parseArguments(rest, options);
  if (given.rest.length > 0) throw new UsageError(`Unexpected word '${given.rest[0]}'`);
  switch (verb) {
    case 'ls': {
      const entries = await listCache();
      if (given.flag('json')) printJson({ folder: cacheFolder(), entries });
      else process.stdout.write(table(entries));
      return 0;
    }
    case 'clean': {
      const { removed, kept } = await cleanCache();
      if (given.flag('json')) printJson({ folder: cacheFolder(), removed, kept });
      else process.stdout.write(cleaned(removed, kept));
      return 0;
    }
    default:
      throw new UsageError(`Unknown command 'cache ${verb}'`, nearest(verb, Object.keys(commands)));
  }
}

function table(entries: readonly CacheEntry[]): string {
  const dim = (text: string): string => styleText('dim', text, { stream: process.stdout });
  if (entries.length === 0) return `${dim(cacheFolder())}: empty\n`;
  const rows = entries.map(({ kind, bytes, usedAt, inUse, path }) => [
    kind.padEnd(10),
    size(bytes).padStart(10),
    usedAt.toISOString().slice(0, 10),
    inUse ? 'in use' : '      ',
    path,
  ]);
  const total = entries.reduce((sum, { bytes }) => sum + bytes, 0);
  return `${rows.map((row) => row.join('  ')).join('\n')}\n${dim(`${size(total)} in ${cacheFolder()}`)}\n`;
}

function cleaned(removed: readonly CacheEntry[], kept: readonly CacheEntry[]): string {
  const freed = removed.reduce((sum, { bytes }) => sum + bytes, 0);
  const rest = kept.length === 0 ? '' : `, ${kept.length} in use and kept`;
  return `Removed ${removed.length} entries, ${size(freed)}${rest}\n`;
}

function size(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB'] as const;
  const step = Math.min(units.length - 1, bytes < 1 ? 0 : Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 1024 ** step;
  return `${step === 0 ? value : value.toFixed(1)} ${units[step]}`;
}

function printJson(data: unknown): void {
  process.stdout.write(`${JSON.stringify(data, undefined, 2)}\n`);
}
