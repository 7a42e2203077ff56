// Files that look like kernels, right down to the fields that are read.

/** A bzImage of 64-bit x86 with two sectors of setup and 32 KiB of kernel. */
export function bzImage(
  fields: { readonly release?: string; readonly is64Bit?: boolean; readonly isLoadedHigh?: boolean } = {},
): Buffer {
  const { release = '6.1.0-test', is64Bit = true, isLoadedHigh = true } = fields;
  const image = Buffer.alloc(3 * 512 + 32 * 1024);
  image.write('MZ', 0, 'latin1');
  image.writeUInt8(2, 0x1f1);
  image.writeUInt32LE((32 * 1024) / 16, 0x1f4);
  image.writeUInt16LE(0xaa55, 0x1fe);
  image.write('HdrS', 0x202, 'latin1');
  image.writeUInt16LE(0x20f, 0x206);
  image.writeUInt16LE(0x400 - 0x200, 0x20e);
  image.write(`${release} (build@host) #1 SMP\0`, 0x400, 'latin1');
  image.writeUInt8(isLoadedHigh ? 1 : 0, 0x211);
  image.writeUInt16LE(is64Bit ? 1 : 0, 0x236);
  return image;
}

/** An ELF executable with one loaded segment that ends with the file. */
export function vmlinux(
  fields: {
    readonly release?: string;
    readonly machine?: number;
    readonly type?: number;
    readonly padding?: number;
  } = {},
): Buffer {
  const { release = '6.1.0-test', machine = 62, type = 2, padding = 0 } = fields;
  const banner = Buffer.from(`${'\0'.repeat(padding)}Linux version %s (\0Linux version ${release} (build@host) #1\0`);
  const header = Buffer.alloc(64 + 56);
  header.write('\x7fELF\x02\x01\x01', 0, 'latin1');
  header.writeUInt16LE(type, 16);
  header.writeUInt16LE(machine, 18);
  header.writeBigUInt64LE(64n, 32);
  header.writeUInt16LE(56, 54);
  header.writeUInt16LE(1, 56);
  header.writeUInt32LE(1, 64);
  header.writeBigUInt64LE(120n, 64 + 8);
  header.writeBigUInt64LE(BigInt(banner.length), 64 + 32);
  return Buffer.concat([header, banner]);
}
