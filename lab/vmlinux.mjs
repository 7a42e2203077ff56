// The lab's kernel, unpacked: an emulated processor takes seconds to unpack it at each start.

import { spawnSync } from 'node:child_process';
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { exists } from '../scripts/set-up/folders.mjs';

/** Where the header of a bzImage says what it carries (Linux, Documentation/arch/x86/boot.rst). */
const SETUP_SECTORS = 0x1f1;
const PAYLOAD_OFFSET = 0x248;
const PAYLOAD_LENGTH = 0x24c;
const SECTOR = 512;
/** The build writes the unpacked size behind the packed kernel. */
const SIZE_BYTES = 4;
const XZ_MAGIC = Buffer.from('fd377a585a00', 'hex');
const ELF_MAGIC = Buffer.from('7f454c46', 'hex');

/**
 * The path of the kernel to start: an ELF file where it is one packed by xz (and xz is here), else the image as it is.
 * @param {string} kernel a folder with vmlinuz
 */
export function unpackedKernel(kernel) {
  const image = join(kernel, 'vmlinuz');
  const file = join(kernel, 'vmlinux');
  if (exists(file)) return file;
  const bytes = readFileSync(image);
  const start = (bytes.readUInt8(SETUP_SECTORS) + 1) * SECTOR + bytes.readUInt32LE(PAYLOAD_OFFSET);
  const payload = bytes.subarray(start, start + bytes.readUInt32LE(PAYLOAD_LENGTH) - SIZE_BYTES);
  if (!payload.subarray(0, XZ_MAGIC.length).equals(XZ_MAGIC)) return image;
  const { status, stdout } = spawnSync('xz', ['-dc'], { input: payload, maxBuffer: 512 << 20 });
  if (status !== 0 || !stdout.subarray(0, ELF_MAGIC.length).equals(ELF_MAGIC)) return image;
  const temporary = `${file}.${process.pid}`;
  try {
    writeFileSync(temporary, stdout);
    renameSync(temporary, file);
  } finally {
    rmSync(temporary, { force: true });
  }
  return file;
}
