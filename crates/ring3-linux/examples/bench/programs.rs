//! Static programs of a few instructions.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const BASE: u64 = 0x40_0000;
const DATA: u64 = 0x1000_0000;
const DATA_BYTES: u64 = 64 * 4096;
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const HEADERS: usize = HEADER + 2 * PROGRAM_HEADER;
const READ_EXECUTE: u32 = 5;
const READ_WRITE: u32 = 6;

/// `mov eax, 231; xor edi, edi; syscall`
const EXIT: [u8; 9] = [0xb8, 231, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05];

/// A program that ends at once.
pub fn ending(folder: &Path) -> PathBuf {
    write(folder, "ending", &EXIT)
}

/// A program that writes to each of its 64 pages of data, and ends.
pub fn writing(folder: &Path) -> PathBuf {
    // mov edi, DATA; mov ecx, 64; 1: mov [rdi], rdi; add rdi, 4096; dec ecx; jnz 1b
    let mut code = vec![0xbf, 0, 0, 0, 0x10, 0xb9, 64, 0, 0, 0];
    code.extend([
        0x48, 0x89, 0x3f, 0x48, 0x81, 0xc7, 0x00, 0x10, 0, 0, 0xff, 0xc9, 0x75, 0xf2,
    ]);
    code.extend(EXIT);
    write(folder, "writing", &code)
}

/// Writes an ELF file of a segment of code and one of data.
fn write(folder: &Path, name: &str, code: &[u8]) -> PathBuf {
    let mut file = vec![0; HEADERS];
    file[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    // ET_EXEC, x86-64, version 1; how large the headers are, and how many
    for (at, value) in [(16, 2u16), (18, 62), (20, 1), (52, 64), (54, 56), (56, 2)] {
        put(at, &value.to_le_bytes());
    }
    put(24, &(BASE + HEADERS as u64).to_le_bytes());
    put(32, &(HEADER as u64).to_le_bytes());
    let length = (HEADERS + code.len()) as u64;
    let segments = [
        (READ_EXECUTE, BASE, length, length),
        (READ_WRITE, DATA, 0, DATA_BYTES),
    ];
    for (index, (flags, address, file_bytes, bytes)) in segments.into_iter().enumerate() {
        let start = HEADER + index * PROGRAM_HEADER;
        // PT_LOAD
        put(start, &1u32.to_le_bytes());
        put(start + 4, &flags.to_le_bytes());
        let words = [
            (16, address),
            (24, address),
            (32, file_bytes),
            (40, bytes),
            (48, 0x1000),
        ];
        for (at, value) in words {
            put(start + at, &u64::to_le_bytes(value));
        }
    }
    file.extend(code);
    let path = folder.join(name);
    fs::write(&path, file).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}
