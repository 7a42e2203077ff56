//! What a program finds on its stack: arguments, environment and auxiliary vector (System V ABI
//! supplement for x86-64, 3.4.1).

use std::ffi::CString;

use rustix::io::Errno;

use crate::elf::Elf;
use crate::files::USER;
use crate::memory::ProgramMemory;
use crate::signals::MINSIGSTKSZ;

const AT_NULL: u64 = 0;
const AT_PHDR: u64 = 3;
const AT_PHENT: u64 = 4;
const AT_PHNUM: u64 = 5;
const AT_PAGESZ: u64 = 6;
const AT_BASE: u64 = 7;
const AT_FLAGS: u64 = 8;
const AT_ENTRY: u64 = 9;
const AT_UID: u64 = 11;
const AT_EUID: u64 = 12;
const AT_GID: u64 = 13;
const AT_EGID: u64 = 14;
const AT_PLATFORM: u64 = 15;
const AT_HWCAP: u64 = 16;
const AT_CLKTCK: u64 = 17;
const AT_SECURE: u64 = 23;
const AT_RANDOM: u64 = 25;
const AT_EXECFN: u64 = 31;
const AT_MINSIGSTKSZ: u64 = 51;

/// Most bytes of arguments and environment.
pub const MOST: u64 = 2 << 20;

/// What a program is given.
#[derive(Debug)]
pub struct Given<'strings> {
    pub name: &'strings CString,
    pub args: &'strings [CString],
    pub env: &'strings [CString],
    pub random: [u8; 16],
}

/// Arguments and environment are too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    pub bytes: u64,
    pub most: u64,
}

/// The bytes of the stack, and where they begin.
pub struct Stack {
    pub pointer: u64,
    pub bytes: Vec<u8>,
}

/// Lays the stack out below `top`.
pub fn build(elf: &Elf, given: &Given<'_>, top: u64, stack_bytes: u64) -> Result<Stack, TooLong> {
    let strings = || {
        std::iter::once(given.name)
            .chain(given.args)
            .chain(given.env)
    };
    let most = MOST.min(stack_bytes / 4);
    let bytes = strings()
        .map(|string| string.as_bytes_with_nul().len() as u64 + 8)
        .fold(0u64, u64::saturating_add);
    if bytes > most {
        return Err(TooLong { bytes, most });
    }

    // Strings, from the lowest address up: platform, random bytes, arguments, environment, path.
    let mut block = Vec::with_capacity(256);
    block.extend_from_slice(b"x86_64\0");
    let random = block.len() as u64;
    block.extend_from_slice(&given.random);
    let mut offsets = Vec::new();
    for string in strings() {
        offsets.push(block.len() as u64);
        block.extend_from_slice(string.as_bytes_with_nul());
    }
    let path = block.len() as u64;
    block.extend_from_slice(given.name.as_bytes_with_nul());
    // The last word is zero.
    block.resize((block.len() + 8).next_multiple_of(16), 0);
    let start = top - block.len() as u64;

    let vector = [
        (AT_PHDR, elf.headers),
        (AT_PHENT, 56),
        (AT_PHNUM, elf.header_count.into()),
        (AT_PAGESZ, 4096),
        (AT_BASE, 0),
        (AT_FLAGS, 0),
        (AT_ENTRY, elf.entry),
        (AT_UID, USER.into()),
        (AT_EUID, USER.into()),
        (AT_GID, USER.into()),
        (AT_EGID, USER.into()),
        (AT_HWCAP, 0),
        (AT_CLKTCK, 100),
        (AT_SECURE, 0),
        (AT_MINSIGSTKSZ, MINSIGSTKSZ),
        (AT_PLATFORM, start),
        (AT_RANDOM, start + random),
        (AT_EXECFN, start + path),
        (AT_NULL, 0),
    ];
    let (args, env) = offsets.split_at((1 + given.args.len()).min(offsets.len()));
    let mut words = Vec::with_capacity(offsets.len() + 2 * vector.len() + 3);
    words.push(args.len() as u64);
    for part in [args, env] {
        words.extend(part.iter().map(|offset| start + offset));
        words.push(0);
    }
    for (key, value) in vector {
        words.extend_from_slice(&[key, value]);
    }
    let pointer = (start - 8 * words.len() as u64) & !15;
    let mut bytes = Vec::with_capacity(usize::try_from(top - pointer).unwrap_or(0));
    for word in words {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    let gap = start - pointer - bytes.len() as u64;
    bytes.resize(bytes.len() + usize::try_from(gap).unwrap_or(0), 0);
    bytes.extend_from_slice(&block);
    Ok(Stack { pointer, bytes })
}

/// Puts it into a program's memory.
pub fn write(memory: &mut ProgramMemory, stack: &Stack) -> Result<(), Errno> {
    // From above, so that pages come as many at a time as the stack gets.
    memory.piece(
        stack.pointer + stack.bytes.len() as u64 - 1,
        1,
        microvm_ring3::Access::Write,
    )?;
    memory.write(stack.pointer, &stack.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stack_is_aligned_and_has_what_was_given() {
        let elf = Elf {
            entry: 0x40_1000,
            headers: 0x40_0040,
            header_count: 3,
            segments: Vec::new(),
        };
        let strings = |strings: &[&str]| -> Vec<CString> {
            strings
                .iter()
                .map(|string| CString::new(*string).unwrap())
                .collect()
        };
        let (name, args, env) = (c"prog".to_owned(), strings(&["a", "bc"]), strings(&["X=1"]));
        let given = Given {
            name: &name,
            args: &args,
            env: &env,
            random: [7; 16],
        };
        let top = 0x7fff_f000;
        let stack = build(&elf, &given, top, 1 << 20).unwrap();
        assert_eq!(stack.pointer % 16, 0);
        assert_eq!(stack.pointer + stack.bytes.len() as u64, top);
        let word =
            |index: usize| u64::from_le_bytes(stack.bytes[8 * index..][..8].try_into().unwrap());
        let string = |address: u64| {
            let from = &stack.bytes[(address - stack.pointer) as usize..];
            from.split(|byte| *byte == 0).next().unwrap().to_vec()
        };
        assert_eq!(word(0), 3);
        let argv: Vec<_> = (1..4).map(|index| string(word(index))).collect();
        assert_eq!(argv, [b"prog".to_vec(), b"a".to_vec(), b"bc".to_vec()]);
        assert_eq!((word(4), string(word(5)), word(6)), (0, b"X=1".to_vec(), 0));
        assert_eq!(word(7), AT_PHDR);
        let long = vec![CString::new(vec![b'x'; 300_000]).unwrap()];
        let given = Given {
            args: &long,
            ..given
        };
        assert!(build(&elf, &given, top, 1 << 20).is_err());
    }
}
