// Limits of this process.

import type { Context } from '../context.ts';
import { type Finding, fix, found, type Problem, together } from '../model.ts';
import { sizeText } from '../texts.ts';

/** Descriptors that a few machines take besides what Node has open itself. */
const FEW_FILES = 256;
const FILES = 'open-files';

export function checkLimits({ host }: Context): Finding {
  const text = host.readText('/proc/self/limits');
  if (!text.ok) return found(FILES, 'Open files', 'info', `cannot be told (${text.errno})`);
  const files = softLimit(text.value, 'Max open files');
  const locked = softLimit(text.value, 'Max locked memory');
  const lockedText = locked === undefined ? 'cannot be told' : locked === Infinity ? 'unlimited' : sizeText(locked);
  return together(openFiles(files), found('locked-memory', 'Locked memory', 'info', lockedText));
}

function openFiles(limit: number | undefined): Finding {
  if (limit === undefined) return found(FILES, 'Open files', 'info', 'cannot be told');
  const value = limit === Infinity ? 'unlimited' : `at most ${limit}`;
  if (limit >= FEW_FILES) return found(FILES, 'Open files', 'pass', value);
  const problem: Problem = {
    id: FILES,
    check: FILES,
    title: 'few files may be open at once',
    causes: [`the limit is ${limit}; a machine takes about twenty descriptors`],
    fixes: [fix('raise it for this shell: ulimit -n 4096')],
  };
  return { ...found(FILES, 'Open files', 'warn', value), problems: [problem] };
}

function softLimit(text: string, name: string): number | undefined {
  const line = text.split('\n').find((each) => each.startsWith(name));
  const soft = line?.slice(name.length).trim().split(/\s+/)[0];
  if (soft === undefined || soft === '') return undefined;
  return soft === 'unlimited' ? Infinity : Number(soft);
}
