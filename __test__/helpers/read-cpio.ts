// Reads newc archives as the kernel does: one after the other, later entries over earlier ones of the same name.

export interface ArchivedFile {
  readonly name: string;
  readonly mode: number;
  readonly id: number;
  readonly links: number;
  readonly owner: readonly [user: number, group: number];
  readonly mtime: number;
  readonly device: readonly [major: number, minor: number];
  readonly content: Buffer;
}

/** All entries of all archives in order, without the trailers. */
export function readCpio(bytes: Buffer): ArchivedFile[] {
  const files: ArchivedFile[] = [];
  for (let at = 0; at < bytes.length;) {
    if (bytes[at] === 0) {
      at += 1;
      continue;
    }
    if (at % 4 !== 0 || bytes.toString('latin1', at, at + 6) !== '070701') throw new Error(`No header at ${at}`);
    const header = bytes.toString('latin1', at, at + 110);
    const field = (index: number): number => Number.parseInt(header.slice(6 + index * 8, 14 + index * 8), 16);
    const nameEnd = at + 110 + field(11) - 1;
    if (bytes[nameEnd] !== 0) throw new Error(`No end of the name at ${nameEnd}`);
    const start = align(nameEnd + 1);
    const name = bytes.toString('utf8', at + 110, nameEnd);
    const content = bytes.subarray(start, start + field(6));
    if (content.length !== field(6)) throw new Error(`${name} is cut off`);
    at = align(start + field(6));
    if (name === 'TRAILER!!!') continue;
    files.push({
      name,
      mode: field(1),
      id: field(0),
      links: field(4),
      owner: [field(2), field(3)],
      mtime: field(5),
      device: [field(9), field(10)],
      content,
    });
  }
  return files;
}

function align(bytes: number): number {
  return Math.ceil(bytes / 4) * 4;
}
