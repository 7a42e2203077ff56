// Debian's backports, read through an apt of their own: the machine's sources and lists stay as they are, and no root
// is asked.

import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { capture, run } from './commands.mjs';
import { exists } from './folders.mjs';
import { SetUpError } from './report.mjs';

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** The line of a sources.list: the archive that this release comes from, with the suite of its backports. */
function sourceLine() {
  const codename = /^VERSION_CODENAME=(\w+)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1];
  const { stdout } = capture('apt-get', [
    'indextargets',
    ...['--format', '$(REPO_URI) $(CODENAME) $(COMPONENT)', 'Identifier: Packages'],
  ]);
  const archive = stdout
    .split('\n')
    .map((line) => line.split(' '))
    .find(([, suite, component]) => suite === codename && component === 'main')?.[0];
  if (archive === undefined) {
    throw new SetUpError(`apt's sources name no archive of ${codename ?? 'this release'}`, {
      hint: 'The set-up takes newer packages from the backports of the Debian release that is installed.',
    });
  }
  const signed = exists(KEYRING) ? `[signed-by=${KEYRING}] ` : '';
  return `deb ${signed}${archive} ${codename}-backports main\n`;
}

/**
 * The real package in the backports that a meta package stands for, and its version.
 * @param {string} meta
 * @param {RegExp} pattern what the real name looks like
 * @returns {Promise<{name: string, version: string}>}
 */
export async function realBackport(meta, pattern) {
  let text = '';
  await withBackports(async ({ options }) => {
    text = capture('apt-cache', [...options, 'show', meta]).stdout;
  });
  const version = /^Version: (\S+)$/m.exec(text)?.[1];
  const name = /^Depends: (.*)$/m
    .exec(text)?.[1]
    ?.split(/, | \([^)]*\)/)
    .find((word) => pattern.test(word));
  if (version && name) return { name, version };
  throw new SetUpError(`The backports have no package behind ${meta}`);
}

/**
 * Downloads the packages and unpacks them into one folder without installing them.
 * @param {string[]} names
 * @param {string} folder
 */
export async function unpackBackports(names, folder) {
  await withBackports(async ({ aptGet, packages }) => {
    await aptGet(`Downloading ${names.join(', ')}`, 'download', ...names);
    for (const file of readdirSync(packages)) {
      await run('dpkg', ['-x', join(packages, file), folder], { what: `Unpacking ${file}`, quiet: true });
    }
  });
}

/**
 * Does something with an apt that knows the backports alone.
 * @param {(apt: {options: string[], packages: string, aptGet: (what: string, ...args: string[]) => Promise<void>}) => Promise<void>} work
 */
async function withBackports(work) {
  const temporary = mkdtempSync(join(tmpdir(), 'microvm-backports-'));
  const inside = (name) => join(temporary, name);
  try {
    for (const name of ['lists/partial', 'cache/archives/partial', 'packages']) {
      mkdirSync(inside(name), { recursive: true });
    }
    writeFileSync(inside('sources.list'), sourceLine());
    const settings = {
      'Dir::Etc::SourceList': inside('sources.list'),
      'Dir::Etc::SourceParts': '/dev/null',
      'Dir::State::Lists': inside('lists'),
      'Dir::Cache': inside('cache'),
      'Acquire::Languages': 'none',
      // As root apt would change to a user of its own, who cannot write into our private folder.
      'APT::Sandbox::User': process.getuid?.() === 0 ? 'root' : '',
    };
    const options = Object.entries(settings).flatMap(([key, value]) => ['-o', `${key}=${value}`]);
    const aptGet = (what, ...args) =>
      run('apt-get', ['-qq', ...options, ...args], { what, cwd: inside('packages'), quiet: true });
    await aptGet('Reading the list of backports', 'update');
    await work({ options, aptGet, packages: inside('packages') });
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}
