// `microvm cache`: what is cached, and how to be rid of it.

import { styleText } from 'node:util';

import { type CacheEntry, cacheFolder, cleanCache, listCache } from '../../cache/cache.ts';
import { type OptionTable, parseArguments, UsageError } from '../arguments.ts';
import { nearest } from '../../config/suggest.ts';
import { type HelpPage, renderHelp } from '../help.ts';
import { byteSize, printJson } from '../values.ts';

const options = {
  all: { type: 'boolean', help: 'clean: remove kernels, userlands and tools too; set-up fetches them again' },
  json: { type: 'boolean', help: 'Print JSON' },
  help: { type: 'boolean', short: 'h', help: 'Show this page' },
} as const satisfies OptionTable;

const commands = {
  ls: 'List what is cached, with sizes',
  clean: 'Remove images that are made anew when they are missed, unless a machine uses them',
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
  // Options may stand on either side of the verb.
  const before = parseArguments(argv, options);
  const [verb = 'ls', ...rest] = before.rest;
  const after = parseArguments(rest, options);
  const flag = (name: keyof typeof options): boolean => before.flag(name) || after.flag(name);
  if (after.rest[0] !== undefined) throw new UsageError(`Unexpected word '${after.rest[0]}'`);
  if (flag('help')) {
    process.stdout.write(renderHelp(cachePage, process.stdout));
    return 0;
  }
  switch (verb) {
    case 'ls': {
      const entries = await listCache();
      if (flag('json')) printJson({ folder: cacheFolder(), entries });
      else process.stdout.write(table(entries));
      return 0;
    }
    case 'clean': {
      const { removed, kept } = await cleanCache({ all: flag('all') });
      if (flag('json')) printJson({ folder: cacheFolder(), removed, kept });
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
    byteSize(bytes).padStart(10),
    usedAt.toISOString().slice(0, 10),
    inUse ? 'in use' : '      ',
    path,
  ]);
  const total = entries.reduce((sum, { bytes }) => sum + bytes, 0);
  return `${rows.map((row) => row.join('  ')).join('\n')}\n${dim(`${byteSize(total)} in ${cacheFolder()}`)}\n`;
}

function cleaned(removed: readonly CacheEntry[], kept: readonly CacheEntry[]): string {
  const freed = removed.reduce((sum, { bytes }) => sum + bytes, 0);
  const inUse = kept.filter((entry) => entry.inUse).length;
  const rest = inUse === 0 ? '' : `, ${inUse} in use and kept`;
  return `Removed ${removed.length} entries, ${byteSize(freed)}${rest}\n`;
}
