// Debian packages: installed where a program of this machine is needed, merely unpacked where files are.

import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { capture, isInstalled, run } from './commands.mjs';
import { SetUpError, done, nothingToDo, say } from './report.mjs';

/** What building and running take, and why. */
export const RUN_PACKAGES = {
  gcc: 'linker for the Rust parts',
  'libc6-dev': 'C library to link with (also statically, for the guest agent)',
  'qemu-system-x86': 'the tcg accelerator, and the lab',
};

/** What the tests take on top. */
export const TEST_PACKAGES = {
  acl: 'access control lists on device nodes, which the doctor is tested with',
  cpio: 'unpacks what this project packs, in its tests',
  'libacl1-dev': 'builds pjdfstest, which file systems are tested with',
  'libcap-ng-dev': 'builds virtiofsd, the foreign vhost-user back end of the tests',
  'libseccomp-dev': 'builds virtiofsd',
  'pkg-config': 'builds virtiofsd',
  tmux: 'the terminal that microvm run -it is tested in',
  uidmap: 'maps ranges of users, which the file daemon is tested with',
  'xz-utils': "unpacks the lab's kernel",
};

/** What the checks take on top. */
export const CHECK_PACKAGES = { 'g++': 'builds libFuzzer, for the fuzz targets' };

const AS_ROOT = process.getuid?.() === 0;
let listsUpdated = false;

/** @param {string} what */
function requireApt(what) {
  if (isInstalled('apt-get') && isInstalled('dpkg')) return;
  throw new SetUpError(`${what} needs apt, which this system does not have`, {
    hint: 'The set-up knows Debian and its derivatives. Elsewhere install the named programs by hand, and give a guest kernel with MICROVM_KERNEL.',
  });
}

/** @param {string[]} names */
function missingPackages(names) {
  const { stdout } = capture('dpkg-query', ['-W', '-f', '${Package} ${db:Status-Status}\\n', ...names]);
  const installed = new Set(
    stdout
      .split('\n')
      .filter((line) => line.endsWith(' installed'))
      .map((line) => line.split(' ')[0]),
  );
  return names.filter((name) => !installed.has(name));
}

/**
 * @param {string[]} args
 * @param {string} what
 */
async function aptGetAsRoot(args, what) {
  // A fresh machine may be updating itself at the same time.
  const command = ['apt-get', '-y', '-o', 'DPkg::Lock::Timeout=300', ...args];
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  if (AS_ROOT) return run(command[0], command.slice(1), { what, env });
  if (!isInstalled('sudo')) {
    throw new SetUpError(`${what} needs root, and there is no sudo here`, {
      hint: `As root, run: ${command.join(' ')}`,
    });
  }
  const sudo = process.stdin.isTTY ? ['sudo'] : ['sudo', '-n'];
  await run(sudo[0], [...sudo.slice(1), 'DEBIAN_FRONTEND=noninteractive', ...command], {
    what,
    hint: `sudo refused or apt failed (see above). As root, run: ${command.join(' ')}`,
  });
}

/** Whether apt knows a version of each. @param {string[]} names */
function areKnown(names) {
  return names.every((name) => /Candidate: (?!\(none\))/.test(capture('apt-cache', ['policy', name]).stdout));
}

/** @param {string[]} names */
async function updateListsFor(names) {
  if (listsUpdated || areKnown(names)) return;
  say('The package lists are missing or old: apt-get update');
  listsUpdated = true;
  await aptGetAsRoot(['update', '-qq'], 'Updating the package lists');
}

/**
 * Installs those that are missing, after saying so.
 * @param {Record<string, string>} packages name → what it is for
 */
export async function installPackages(packages) {
  const names = Object.keys(packages);
  if (!isInstalled('dpkg-query')) requireApt(`Checking for ${names.join(', ')}`);
  const missing = missingPackages(names);
  if (missing.length === 0) return nothingToDo('all there');

  requireApt(`Installing ${missing.join(', ')}`);
  say(`Installs Debian packages: ${missing.map((name) => `${name} (${packages[name]})`).join(', ')}`);
  await updateListsFor(missing);
  const install = ['install', '-qq', '--no-install-recommends', ...missing];
  try {
    await aptGetAsRoot(install, 'Installing Debian packages');
  } catch (error) {
    // Lists older than the mirror name files that are gone: once more with new ones.
    if (listsUpdated) throw error;
    listsUpdated = true;
    await aptGetAsRoot(['update', '-qq'], 'Updating the package lists');
    await aptGetAsRoot(install, 'Installing Debian packages');
  }
  return done(missing.join(', '));
}

/**
 * The real package that a meta package stands for, such as linux-image-6.1.0-56-amd64 for linux-image-amd64.
 * @param {string} name
 * @param {RegExp} pattern what the real name looks like
 */
export async function realPackage(name, pattern) {
  requireApt(`Looking up ${name}`);
  await updateListsFor([name]);
  const { stdout } = capture('apt-cache', ['depends', '--important', name]);
  const real = stdout
    .split('\n')
    .map((line) => line.replace(/^\s*Depends:\s*/, '').trim())
    .find((line) => pattern.test(line));
  if (real) return real;
  throw new SetUpError(`apt knows no package behind ${name}`, {
    hint: 'Run apt-get update as root, and see whether the sources name the main section of Debian.',
  });
}

/** The version that apt would download. @param {string} name */
export function candidateVersion(name) {
  const version = /Candidate: (\S+)/.exec(capture('apt-cache', ['policy', name]).stdout)?.[1];
  return version === undefined || version === '(none)' ? undefined : version;
}

/**
 * Downloads a package and unpacks it without installing it; takes no root.
 * @param {string} name
 * @param {string} folder
 */
export async function unpackPackage(name, folder) {
  requireApt(`Downloading ${name}`);
  await updateListsFor([name]);
  const temporary = mkdtempSync(join(tmpdir(), 'microvm-deb-'));
  try {
    // As root apt would warn that its own user cannot write into our private folder.
    const sandbox = AS_ROOT ? ['-o', 'APT::Sandbox::User=root'] : [];
    const download = () =>
      run('apt-get', ['download', '-qq', ...sandbox, name], {
        what: `Downloading ${name}`,
        cwd: temporary,
        quiet: true,
      });
    try {
      await download();
    } catch (error) {
      if (listsUpdated) throw error;
      listsUpdated = true;
      await aptGetAsRoot(['update', '-qq'], 'Updating the package lists');
      await download();
    }
    const file = readdirSync(temporary).find((entry) => entry.endsWith('.deb'));
    if (file === undefined) throw new SetUpError(`apt-get download ${name} left no package behind`);
    await run('dpkg', ['-x', join(temporary, file), folder], { what: `Unpacking ${name}`, quiet: true });
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}
