// Looks into a kernel image: can it be booted here, and which release is it?

import { type FileHandle, open } from 'node:fs/promises';
import { MicroVMError, errnoOf } from '../errors.ts';

export interface KernelImage {
  readonly format: 'bzImage' | 'elf';
  /** As `uname -r` shows it; undefined when the file does not tell. */
  readonly release: string | undefined;
}

/** Offsets in the x86 boot protocol's setup header (Documentation/arch/x86/boot.rst of Linux). */
const SETUP = { sectors: 0x1f1, systemSize: 0x1f4, bootFlag: 0x1fe, magic: 0x202, release: 0x20e, loadFlags: 0x211 };
const XLOAD_FLAGS = 0x236;
const HEAD_BYTES = 0x268;
const SECTOR_BYTES = 512;
const ARM64_MAGIC_OFFSET = 0x38;
const PE_OFFSET_FIELD = 0x3c;

const ELF = { class64: 2, executable: 2, load: 1, headerBytes: 64, programHeaderBytes: 56 };
const MACHINES: Readonly<Record<number, string>> = {
  3: 'x86 (32-bit)',
  40: 'arm',
  62: 'x86_64',
  183: 'arm64',
  243: 'riscv',
};
const X86_64 = 62;
const PE_MACHINES: Readonly<Record<number, string>> = {
  0xaa64: 'arm64',
  0x1c0: 'arm',
  0x5064: 'riscv',
  0x6264: 'loongarch',
};

/** Checks the image at `path`; rejects with the code that says what is wrong with it. */
export async function inspectKernel(path: string): Promise<KernelImage> {
  const file = await open(path).catch((cause: unknown) => {
    throw cannotOpen(path, cause);
  });
  try {
    const stat = await file.stat();
    if (!stat.isFile()) throw invalid(path, stat.isDirectory() ? 'it is a folder' : 'it is not a regular file');
    return await inspect(path, file, stat.size);
  } finally {
    await file.close();
  }
}

async function inspect(path: string, file: FileHandle, size: number): Promise<KernelImage> {
  const head = await read(file, 0, 4096);
  if (head.length < 64) throw size === 0 ? truncated(path, 'it is empty') : invalid(path, 'it is too short');
  if (head.readUInt32BE(0) === 0x7f454c46) return inspectElf(path, file, head, size);
  if (head.toString('latin1', SETUP.magic, SETUP.magic + 4) === 'HdrS') return inspectBzImage(path, file, head, size);
  const other = otherArchitecture(head);
  if (other !== undefined) throw wrongArchitecture(path, other);
  throw head.readUInt16BE(0) === 0x4d5a && size < HEAD_BYTES
    ? truncated(path, 'it ends inside its header')
    : invalid(path, describe(head));
}

async function inspectBzImage(path: string, file: FileHandle, head: Buffer, size: number): Promise<KernelImage> {
  if (head.length < HEAD_BYTES) throw truncated(path, 'it ends inside its header');
  if (head.readUInt16LE(SETUP.bootFlag) !== 0xaa55) throw invalid(path, 'its boot flag is wrong');
  if ((head.readUInt8(SETUP.loadFlags) & 1) === 0)
    throw invalid(path, 'it is a zImage, which only very old kernels are');
  if ((head.readUInt16LE(XLOAD_FLAGS) & 1) === 0) throw wrongArchitecture(path, 'x86 (32-bit)');
  const setupBytes = ((head.readUInt8(SETUP.sectors) || 4) + 1) * SECTOR_BYTES;
  const needed = setupBytes + head.readUInt32LE(SETUP.systemSize) * 16;
  if (size < needed) throw truncated(path, `it has ${size} of ${needed} bytes`);

  const pointer = head.readUInt16LE(SETUP.release);
  const banner = pointer === 0 ? '' : (await read(file, pointer + SECTOR_BYTES, 128)).toString('latin1');
  return { format: 'bzImage', release: /^[\w.+~-]+(?= )/.exec(banner)?.[0] };
}

async function inspectElf(path: string, file: FileHandle, head: Buffer, size: number): Promise<KernelImage> {
  const machine = head.readUInt16LE(18);
  if (machine !== X86_64) throw wrongArchitecture(path, MACHINES[machine] ?? `ELF machine ${machine}`);
  if (head.readUInt8(4) !== ELF.class64) throw wrongArchitecture(path, 'x86 (32-bit)');
  if (head.readUInt16LE(16) !== ELF.executable) throw invalid(path, 'it is a program or a library, not a vmlinux');
  const offset = head.readBigUInt64LE(32);
  const bytes = head.readUInt16LE(56) * ELF.programHeaderBytes;
  if (offset + BigInt(bytes) > BigInt(size)) throw truncated(path, 'it ends before its program headers');
  const headers = await read(file, Number(offset), bytes);
  for (let at = 0; at + ELF.programHeaderBytes <= headers.length; at += ELF.programHeaderBytes) {
    const end = headers.readBigUInt64LE(at + 8) + headers.readBigUInt64LE(at + 32);
    if (headers.readUInt32LE(at) === ELF.load && end > BigInt(size))
      throw truncated(path, `it has ${size} of ${end} bytes`);
  }
  return { format: 'elf', release: await findBanner(file) };
}

/** A vmlinux has no field for its release; its banner, `Linux version 6.1.0 (…`, is somewhere in the read-only data. */
async function findBanner(file: FileHandle): Promise<string | undefined> {
  const marker = Buffer.from('Linux version ');
  const chunk = Buffer.alloc(2 ** 20);
  const overlap = 256;
  for (let position = 0; ; position += chunk.length - overlap) {
    const { bytesRead } = await file.read(chunk, 0, chunk.length, position);
    const piece = chunk.subarray(0, bytesRead);
    for (let at = piece.indexOf(marker); at !== -1; at = piece.indexOf(marker, at + 1)) {
      const release = /^[\w.+~-]+(?= \()/.exec(piece.toString('latin1', at + marker.length, at + overlap))?.[0];
      if (release !== undefined) return release;
    }
    if (bytesRead < chunk.length) return undefined;
  }
}

function otherArchitecture(head: Buffer): string | undefined {
  if (head.toString('latin1', ARM64_MAGIC_OFFSET, ARM64_MAGIC_OFFSET + 4) === 'ARM\x64') return 'arm64';
  if (head.toString('latin1', ARM64_MAGIC_OFFSET, ARM64_MAGIC_OFFSET + 4) === 'RSC\x05') return 'riscv';
  if (head.readUInt16BE(0) !== 0x4d5a) return undefined;
  const pe = head.readUInt32LE(PE_OFFSET_FIELD);
  if (pe + 6 > head.length || head.toString('latin1', pe, pe + 4) !== 'PE\0\0') return undefined;
  return PE_MACHINES[head.readUInt16LE(pe + 4)];
}

function describe(head: Buffer): string {
  if (head.readUInt16BE(0) === 0x1f8b) return 'it is compressed with gzip; decompress it first';
  if (head.readUInt32BE(0) === 0x28b52ffd) return 'it is compressed with zstd; decompress it first';
  if (head.readUInt16BE(0) === 0x4d5a) return 'it is an EFI program without the Linux boot header';
  return 'it is neither a bzImage nor an ELF vmlinux';
}

async function read(file: FileHandle, position: number, bytes: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(bytes), 0, bytes, position);
  return buffer.subarray(0, bytesRead);
}

function cannotOpen(path: string, cause: unknown): MicroVMError {
  const errno = errnoOf(cause);
  if (errno === 'ENOENT' || errno === 'ENOTDIR') {
    return new MicroVMError('ERR_KERNEL_MISSING', `There is no kernel at ${path}`, { cause });
  }
  return new MicroVMError('ERR_KERNEL_UNREADABLE', `Cannot read the kernel ${path} (${errno})`, {
    cause,
    hint: 'Copy it to a place that you can read; distributions often let only root read /boot.',
  });
}

function invalid(path: string, why: string): MicroVMError {
  return new MicroVMError('ERR_KERNEL_INVALID', `${path} is not a kernel that can be booted: ${why}`, {
    hint: 'Give the path of a bzImage (often called vmlinuz) or of an uncompressed ELF vmlinux.',
  });
}

function truncated(path: string, why: string): MicroVMError {
  return new MicroVMError('ERR_KERNEL_TRUNCATED', `The kernel ${path} is cut off: ${why}`, {
    hint: 'Fetch or copy it again.',
  });
}

function wrongArchitecture(path: string, architecture: string): MicroVMError {
  return new MicroVMError('ERR_KERNEL_ARCHITECTURE', `The kernel ${path} is for ${architecture}, not for x86_64`);
}
