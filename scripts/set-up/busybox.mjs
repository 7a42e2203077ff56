// Debian's static busybox, unpacked into the cache: the guest's userland, and depmod for the kernels.
// It is not installed, as the package would replace the machine's own busybox.

import { cpSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { candidateVersion, unpackPackage } from './debian-packages.mjs';
import { CACHE, createFolder, exists } from './folders.mjs';
import { SetUpError, say } from './report.mjs';

const NAME = 'busybox-static';
const FOLDER = join(CACHE, 'tools', NAME);

/** Where the executable is once it was asked for. */
export const BUSYBOX = join(FOLDER, 'busybox');

/** The path of the executable, which is downloaded when it is not there yet. */
export async function busyboxPath() {
  if (exists(BUSYBOX)) return BUSYBOX;
  say(`Downloads ${NAME} and unpacks it into ${FOLDER}`);
  await createFolder(FOLDER, async (temporary) => {
    const tree = join(temporary, 'package');
    await unpackPackage(NAME, tree);
    // Since Debian 13 everything is below usr.
    const program = ['bin/busybox', 'usr/bin/busybox'].map((path) => join(tree, path)).find(exists);
    if (program === undefined) throw new SetUpError(`${NAME} has no busybox in it`);
    cpSync(program, join(temporary, 'busybox'));
    cpSync(join(tree, 'usr/share/doc', NAME, 'copyright'), join(temporary, 'copyright'));
    writeFileSync(join(temporary, 'version'), candidateVersion(NAME) ?? 'unknown');
  });
  return BUSYBOX;
}

/** The licence notes of the package. */
export const BUSYBOX_COPYRIGHT = join(FOLDER, 'copyright');
