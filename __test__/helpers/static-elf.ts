// The smallest static programs: a file header, one segment, and code.

import { writeFileSync } from 'node:fs';

const HEADERS = 64 + 56;
const BASE = 0x40_0000;

/** A static x86-64 program of these instructions. */
export function staticElf(...code: number[]): Uint8Array {
  const file = new Uint8Array(HEADERS + code.length);
  const view = new DataView(file.buffer);
  const word = (offset: number, value: number): void => view.setBigUint64(offset, BigInt(value), true);
  // 64-bit, little-endian, version 1; ET_EXEC, x86-64
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 2, true);
  view.setUint16(18, 62, true);
  view.setUint32(20, 1, true);
  word(24, BASE + HEADERS);
  // One program header, behind the file header.
  word(32, 64);
  view.setUint16(52, 64, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, 1, true);
  // PT_LOAD, to read and execute, of the whole file
  view.setUint32(64, 1, true);
  view.setUint32(68, 5, true);
  word(80, BASE);
  word(88, BASE);
  word(96, file.length);
  word(104, file.length);
  word(112, 0x1000);
  file.set(code, HEADERS);
  return file;
}

/** Writes such a program to a file that can be run. */
export function writeElf(path: string, ...code: number[]): string {
  writeFileSync(path, staticElf(...code), { mode: 0o755 });
  return path;
}
