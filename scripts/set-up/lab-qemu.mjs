// The lab's QEMU. The emulated SVM of older ones freezes with all that runs on it (7.2: seen in most runs of the
// tests of crates/kvm; 10.0: never), so a newer one comes from the backports of the release where Debian's own is old.

import { join } from 'node:path';
import { unpackBackports } from './backports.mjs';
import { capture } from './commands.mjs';
import { CACHE, createFolder, exists } from './folders.mjs';
import { SetUpError, done, nothingToDo, say } from './report.mjs';

const NAME = 'qemu-system-x86_64';
const NEW_ENOUGH = 10;
/** The program, and the firmware that it looks for beside itself. */
const PACKAGES = ['qemu-system-x86', 'qemu-system-common', 'qemu-system-data', 'seabios'];
const FOLDER = join(CACHE, 'lab', 'qemu');
const UNPACKED = join(FOLDER, 'usr/bin', NAME);

/** What was asked already, by path: each question starts a process. @type {Map<string, string | undefined>} */
const versions = new Map();

/** The version that the program tells, such as "10.0.2"; nothing where it does not start. @param {string} path */
function versionOf(path) {
  if (!versions.has(path)) versions.set(path, /version (\d+(?:\.\d+)*)/.exec(capture(path, ['--version']).stdout)?.[1]);
  return versions.get(path);
}

/** @param {string} path */
function isNewEnough(path) {
  return Number.parseInt(versionOf(path) ?? '0', 10) >= NEW_ENOUGH;
}

/** The program that the lab runs on: one that is new enough, else the one that is installed. */
export function labQemu() {
  return !isNewEnough(NAME) && exists(UNPACKED) ? UNPACKED : NAME;
}

/** Makes sure that there is one that is new enough; `qemu-system-x86` must be installed, for its libraries. */
export async function fetchLabQemu() {
  const current = labQemu();
  if (isNewEnough(current)) return nothingToDo(versionOf(current));
  say(`Downloads QEMU ${NEW_ENOUGH} or newer from the backports and unpacks it into ${FOLDER}`);
  versions.delete(UNPACKED);
  try {
    await download();
  } catch (error) {
    if (!(error instanceof SetUpError)) throw error;
    // The lab works with an older one, only not every time.
    say(`${error.message}: the lab uses ${current} ${versionOf(current)}, which freezes now and then`);
    return nothingToDo(versionOf(current));
  }
  return done(`${versionOf(UNPACKED)} in ${FOLDER}`);
}

async function download() {
  await createFolder(FOLDER, async (temporary) => {
    await unpackBackports(PACKAGES, temporary);
    if (isNewEnough(join(temporary, 'usr/bin', NAME))) return;
    throw new SetUpError(`The backports have no QEMU ${NEW_ENOUGH}`, {
      hint: 'Put one on the PATH: the emulated processor of older ones freezes now and then.',
    });
  });
}
