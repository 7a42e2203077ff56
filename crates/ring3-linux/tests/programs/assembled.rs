//! Programs of a few bytes of machine code, in a file of the smallest kind.

use std::fs::File;
use std::io::{Seek, Write};

use microvm_ring3_linux::{Outcome, Program, Run, Sandbox};

/// Where the code is, and a page that can be written.
pub const CODE: u64 = 0x40_0000 + HEADERS as u64;
pub const DATA: u64 = 0x60_0000;
const HEADERS: usize = 64 + 2 * 56;

/// `mov edi, eax; mov eax, 231; syscall`: ends with the low byte of RAX.
pub const EXIT_WITH_RAX: [u8; 9] = [0x89, 0xc7, 0xb8, 231, 0, 0, 0, 0x0f, 0x05];

/// A program header to load a segment.
pub fn segment(flags: u32, offset: u64, address: u64, file: u64, memory: u64) -> [u8; 56] {
    header(1, flags, [offset, address, address, file, memory, 4096])
}

pub fn header(kind: u32, flags: u32, words: [u64; 6]) -> [u8; 56] {
    let mut out = [0; 56];
    out[..4].copy_from_slice(&kind.to_le_bytes());
    out[4..8].copy_from_slice(&flags.to_le_bytes());
    for (index, word) in words.into_iter().enumerate() {
        out[8 + 8 * index..][..8].copy_from_slice(&word.to_le_bytes());
    }
    out
}

/// An ELF file: header, program headers, and what is behind.
pub fn elf(kind: u16, entry: u64, headers: &[[u8; 56]], rest: &[u8]) -> Vec<u8> {
    let mut out = b"\x7fELF\x02\x01\x01".to_vec();
    out.resize(16, 0);
    out.extend(kind.to_le_bytes());
    out.extend(62u16.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    for word in [entry, 64, 0] {
        out.extend(word.to_le_bytes());
    }
    out.extend(0u32.to_le_bytes());
    for half in [64, 56, headers.len() as u16, 64, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    out.extend(headers.as_flattened());
    out.extend(rest);
    out
}

/// A program of this code, with a page of data.
pub fn assembled(code: &[u8]) -> Vec<u8> {
    let length = (HEADERS + code.len()) as u64;
    let headers = [
        segment(5, 0, 0x40_0000, length, length),
        segment(6, 0, DATA, 0, 0x10000),
    ];
    elf(2, CODE, &headers, code)
}

/// A program of this code, with these bytes as its data.
pub fn assembled_with(code: &[u8], data: &[u8]) -> Vec<u8> {
    let length = (HEADERS + code.len()) as u64;
    let data_length = data.len() as u64;
    let headers = [
        segment(5, 0, 0x40_0000, length, length),
        segment(6, 0x1000, DATA, data_length, data_length),
    ];
    let mut rest = code.to_vec();
    rest.resize(0x1000 - HEADERS, 0);
    rest.extend(data);
    elf(2, CODE, &headers, &rest)
}

pub fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

pub fn run_code(sandbox: &mut Sandbox, code: &[u8]) -> Outcome {
    let program = Program::of(file(&assembled(code)));
    sandbox.run(program, Run::default()).unwrap()
}
