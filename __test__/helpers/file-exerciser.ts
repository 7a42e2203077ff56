// The program that does random things to a file and knows what must be in it: here and in a guest.

import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import type { MicroVM } from '../../index.ts';

const SOURCE = fileURLToPath(new URL('../fixtures/file-exerciser.c', import.meta.url));
const execute = promisify(execFile);

/** Operations that FUSE has no request for. */
export const NOT_BY_FUSE: readonly string[] = ['collapse', 'insert'];
/** Shared mappings of files whose content the guest may not keep: they would be what it keeps. */
export const NOT_WITHOUT_CONTENT: readonly string[] = ['map-read', 'map-write'];

/** Runs it with these words, and gives what it printed; rejects with that where it found something. */
export type Exerciser = (words: readonly string[]) => Promise<string>;

/** Builds it into a folder. */
export async function buildExerciser(folder: string): Promise<string> {
  const program = join(folder, 'file-exerciser');
  await execute('gcc', ['-O2', '-Wall', '-Wextra', '-Werror', '-static', '-o', program, SOURCE]);
  return program;
}

export function exerciserHere(program: string): Exerciser {
  return async (words) => {
    const { stdout } = await execute(program, words).catch((error: Error & { stdout?: string }) => {
      throw new Error(`${error.message}\n${error.stdout ?? ''}`);
    });
    return stdout;
  };
}

export function exerciserInGuest(vm: MicroVM, program: string): Exerciser {
  return async (words) => {
    const { stdout, stderr, exitCode } = await vm.exec(program, words, { reject: false });
    if (exitCode !== 0) throw new Error(`file-exerciser in the guest ended with ${exitCode}\n${stdout}${stderr}`);
    return stdout;
  };
}

/** The operations by name, each with the error that it gives in the folder of a file, or an empty text. */
export async function operations(exerciser: Exerciser, file: string): Promise<ReadonlyMap<string, string>> {
  const lines = (await exerciser(['probe', file])).trim().split('\n');
  return new Map(lines.map((line) => line.split(': ') as [string, string?]).map(([name, error = '']) => [name, error]));
}
