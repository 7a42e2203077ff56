// Programs that `crates/ring3-linux` runs in its own tests, built from the same sources.

import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const PROJECT = fileURLToPath(new URL('../..', import.meta.url));
const SOURCES = path.join(PROJECT, 'crates/ring3-linux/tests/programs/sources');
const execute = promisify(execFile);

/** Builds the program of C that tells what it was given, with glibc in it, into a folder. */
export async function buildGlibcProgram(folder: string): Promise<string> {
  const program = path.join(folder, 'glibc');
  await execute('gcc', ['-O2', '-w', '-static', '-o', program, path.join(SOURCES, 'glibc.c'), '-lm']);
  return program;
}

/** Builds the Lua interpreter from the crate that has its sources. */
export async function buildLua(folder: string): Promise<string> {
  const sources = await luaSources();
  const files = readdirSync(sources).filter((name) => name.endsWith('.c'));
  const program = path.join(folder, 'lua');
  const own = path.join(SOURCES, 'lua-main.c');
  const all = [own, ...files.map((name) => path.join(sources, name))];
  await execute('gcc', ['-w', '-static', '-DLUA_USE_POSIX', '-I', sources, '-o', program, ...all, '-lm']);
  return program;
}

async function luaSources(): Promise<string> {
  const words = ['metadata', '--format-version', '1', '--locked', '--offline'];
  const { stdout } = await execute('cargo', words, { cwd: PROJECT, maxBuffer: 2 ** 26 });
  const { packages } = JSON.parse(stdout) as { packages: { name: string; manifest_path: string }[] };
  const crate = packages.find(({ name }) => name === 'lua-src');
  if (crate === undefined) throw new Error('cargo knows no sources of Lua');
  const folder = path.dirname(crate.manifest_path);
  const version = readdirSync(folder).find((name) => name.startsWith('lua-5.4'));
  if (version === undefined) throw new Error(`There is no Lua 5.4 in ${folder}`);
  return path.join(folder, version);
}
