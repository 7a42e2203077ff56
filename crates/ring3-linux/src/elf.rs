//! Reads the headers of a static ELF program, and refuses what cannot run here.
//!
//! It knows a file as a size and a way to read bytes at an offset, and nothing of memory: what it
//! gives are ranges that were checked against each other, the file and the address space. Format:
//! System V ABI, chapters 4 and 5, and its supplement for x86-64.

use rustix::io::Errno;

/// Bytes of the file header and of a program header.
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// Most program headers; linkers write about a dozen.
const MAX_HEADERS: u16 = 256;
/// Most bytes of a dynamic section that is looked at.
const MAX_DYNAMIC: u64 = 64 << 10;
/// Largest alignment that position-independent programs may ask for.
const MAX_ALIGN: u64 = 2 << 20;

const PAGE: u64 = 4096;

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;

/// Lowest address of a program, as Linux has it for unprivileged users.
const LOWEST: u64 = 0x1_0000;
/// End of what a program's file may occupy: the rest is for its stack and mappings.
const HIGHEST: u64 = 0x6000_0000_0000;
/// Where position-independent programs are put.
const BASE: u64 = 0x5555_5540_0000;

/// Why a file is not a program that runs here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ElfError {
    /// It cannot be read.
    #[error("File cannot be read")]
    Read(#[source] Errno),
    /// It is a folder, a device or such.
    #[error("File is not a regular one")]
    NotRegular,
    /// It does not begin as ELF files do.
    #[error("File is not an ELF program")]
    NotElf,
    /// It is a script.
    #[error("File is a script: run its interpreter, with the script's path as an argument")]
    Script,
    /// It ends before what its headers promise.
    #[error("File is truncated: it has {size} bytes and its headers lead to byte {end}")]
    Truncated {
        /// Bytes of the file.
        size: u64,
        /// Where something was expected to end.
        end: u64,
    },
    /// It is made of 32-bit code.
    #[error("Program is a 32-bit one")]
    Class32,
    /// Its bytes are in the other order.
    #[error("Program is big-endian")]
    BigEndian,
    /// It is for another processor.
    #[error("Program is for another processor (machine {machine}, not x86-64)")]
    Machine {
        /// `e_machine`.
        machine: u16,
    },
    /// It is an object file, a core dump or such.
    #[error("File is an ELF file of type {kind}, not a program")]
    Kind {
        /// `e_type`.
        kind: u16,
    },
    /// It needs a dynamic loader or shared libraries.
    #[error("Program is dynamically linked: link it statically")]
    Dynamic,
    /// Its headers contradict the format.
    #[error("Program header is malformed: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// It has nothing to load.
    #[error("Program has no segment to load")]
    NoSegments,
    /// Two segments share a page.
    #[error("Segments at {first:#x} and {second:#x} overlap, share a page or are out of order")]
    Overlapping {
        /// Address of one.
        first: u64,
        /// Address of the one listed after it.
        second: u64,
    },
    /// A segment is where programs cannot be.
    #[error("Segment of {length} bytes at {address:#x} is outside of what programs may use")]
    Address {
        /// Its address.
        address: u64,
        /// Its bytes in memory.
        length: u64,
    },
    /// A segment can be written and executed.
    #[error("Segment at {address:#x} can be written and executed")]
    WritableCode {
        /// Its address.
        address: u64,
    },
    /// The first instruction is not in code.
    #[error("Entry point {entry:#x} is not in a segment that can be executed")]
    Entry {
        /// `e_entry`.
        entry: u64,
    },
    /// It needs more memory than it may have.
    #[error("Program's segments have {bytes} bytes, and {limit} bytes of memory are allowed")]
    TooLarge {
        /// Bytes of its segments.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
}

/// A program's layout in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    /// First instruction.
    pub entry: u64,
    /// Address of the program headers in memory; 0 where no segment holds them.
    pub headers: u64,
    /// How many program headers there are.
    pub header_count: u16,
    /// In the order of addresses.
    pub segments: Vec<Segment>,
}

/// A part of a program's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins, in bytes.
    pub address: u64,
    /// Its bytes in memory; zeros behind those of the file.
    pub length: u64,
    /// Where its bytes are in the file.
    pub offset: u64,
    /// How many there are; at most `length`.
    pub file_length: u64,
    /// Whether it can be read.
    pub read: bool,
    /// Whether it can be written.
    pub write: bool,
    /// Whether it can be executed.
    pub execute: bool,
}

impl Segment {
    /// Address of its first page.
    #[must_use]
    pub fn first_page(&self) -> u64 {
        self.address - self.address % PAGE
    }

    /// First page that is not its own any more.
    #[must_use]
    pub fn last_page(&self) -> u64 {
        (self.address + self.length).next_multiple_of(PAGE)
    }
}

/// A file, as far as it matters here.
pub trait Source {
    /// Its bytes.
    fn size(&self) -> u64;

    /// Fills the buffer from `offset` on. Returns how many bytes there were: fewer at the end.
    ///
    /// # Errors
    ///
    /// Where the host cannot read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno>;
}

impl Source for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.get(start..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(length)
    }
}

/// Little-endian numbers of a structure.
struct Fields<'bytes>(&'bytes [u8]);

impl Fields<'_> {
    fn u16(&self, offset: usize) -> u16 {
        self.array(offset).map_or(0, u16::from_le_bytes)
    }

    fn u32(&self, offset: usize) -> u32 {
        self.array(offset).map_or(0, u32::from_le_bytes)
    }

    fn u64(&self, offset: usize) -> u64 {
        self.array(offset).map_or(0, u64::from_le_bytes)
    }

    fn array<const LENGTH: usize>(&self, offset: usize) -> Option<[u8; LENGTH]> {
        self.0.get(offset..)?.first_chunk().copied()
    }
}

/// Reads a program whose segments may have `limit` bytes together.
///
/// # Errors
///
/// Where it cannot run here.
pub fn parse(source: &(impl Source + ?Sized), limit: u64) -> Result<Elf, ElfError> {
    let mut bytes = [0; HEADER];
    let read = read(source, 0, &mut bytes)?;
    let header = Fields(&bytes);
    check_kind(&bytes, read, source.size())?;
    let kind = header.u16(16);
    if kind != ET_EXEC && kind != ET_DYN {
        return Err(ElfError::Kind { kind });
    }
    let base = if kind == ET_DYN { BASE } else { 0 };
    let count = header.u16(56);
    if usize::from(header.u16(54)) != PROGRAM_HEADER || count > MAX_HEADERS {
        return Err(malformed("size or number of program headers"));
    }
    let table_offset = header.u64(32);
    let mut table = vec![0; usize::from(count) * PROGRAM_HEADER];
    exact(source, table_offset, &mut table)?;

    let mut elf = Elf {
        entry: header.u64(24).wrapping_add(base),
        headers: 0,
        header_count: count,
        segments: Vec::new(),
    };
    let mut bytes = 0u64;
    for chunk in table.chunks_exact(PROGRAM_HEADER) {
        let entry = Fields(chunk);
        match entry.u32(0) {
            PT_INTERP => return Err(ElfError::Dynamic),
            PT_DYNAMIC => check_dynamic(source, entry.u64(8), entry.u64(32))?,
            PT_LOAD => {
                let Some(segment) = segment(&entry, base, source.size())? else {
                    continue;
                };
                bytes = bytes.saturating_add(segment.last_page() - segment.first_page());
                let end = table_offset.saturating_add(table.len() as u64);
                if segment.offset <= table_offset && end <= segment.offset + segment.file_length {
                    elf.headers = segment.address + (table_offset - segment.offset);
                }
                add(&mut elf.segments, segment)?;
            }
            _ => {}
        }
    }
    if elf.segments.is_empty() {
        return Err(ElfError::NoSegments);
    }
    if bytes > limit {
        return Err(ElfError::TooLarge { bytes, limit });
    }
    let entry = elf.entry;
    let inside = |segment: &Segment| {
        segment.execute && (segment.address..segment.address + segment.length).contains(&entry)
    };
    if !elf.segments.iter().any(inside) {
        return Err(ElfError::Entry { entry });
    }
    Ok(elf)
}

fn check_kind(bytes: &[u8; HEADER], read: usize, size: u64) -> Result<(), ElfError> {
    let header = Fields(bytes);
    if bytes.starts_with(b"#!") {
        return Err(ElfError::Script);
    }
    if !bytes.starts_with(b"\x7fELF") {
        return Err(ElfError::NotElf);
    }
    let end = HEADER as u64;
    let [_, _, _, _, class, order, ..] = *bytes;
    match class {
        1 => return Err(ElfError::Class32),
        2 if read == HEADER => {}
        2 => return Err(ElfError::Truncated { size, end }),
        _ if read < HEADER => return Err(ElfError::Truncated { size, end }),
        _ => return Err(malformed("class")),
    }
    match order {
        1 => {}
        2 => return Err(ElfError::BigEndian),
        _ => return Err(malformed("order of bytes")),
    }
    let machine = header.u16(18);
    if machine != EM_X86_64 {
        return Err(ElfError::Machine { machine });
    }
    Ok(())
}

/// A static program that relocates itself has a dynamic section, but needs no libraries.
fn check_dynamic(
    source: &(impl Source + ?Sized),
    offset: u64,
    length: u64,
) -> Result<(), ElfError> {
    let length = length.min(MAX_DYNAMIC);
    let mut section = vec![0; usize::try_from(length).unwrap_or(0)];
    exact(source, offset, &mut section)?;
    let mut tags = section.chunks_exact(16).map(|entry| Fields(entry).u64(0));
    if tags
        .by_ref()
        .take_while(|tag| *tag != 0)
        .any(|tag| tag == DT_NEEDED)
    {
        return Err(ElfError::Dynamic);
    }
    Ok(())
}

/// A segment to load, checked by itself. `None` for one without any bytes.
fn segment(entry: &Fields<'_>, base: u64, size: u64) -> Result<Option<Segment>, ElfError> {
    let flags = entry.u32(4);
    let virtual_address = entry.u64(16);
    let length = entry.u64(40);
    let segment = Segment {
        address: virtual_address.saturating_add(base),
        length,
        offset: entry.u64(8),
        file_length: entry.u64(32),
        read: flags & 4 != 0,
        write: flags & 2 != 0,
        execute: flags & 1 != 0,
    };
    if length == 0 {
        return Ok(None);
    }
    let address = segment.address;
    if address.checked_add(length).is_none_or(|end| end > HIGHEST) || address < LOWEST {
        return Err(ElfError::Address { address, length });
    }
    if segment.file_length > length {
        return Err(malformed(
            "segment with more bytes in the file than in memory",
        ));
    }
    let end = segment.offset.saturating_add(segment.file_length);
    if end > size {
        return Err(ElfError::Truncated { size, end });
    }
    let align = entry.u64(48);
    if align > 1 && !align.is_power_of_two() {
        return Err(malformed("alignment that is no power of two"));
    }
    if base != 0 && align > MAX_ALIGN {
        return Err(malformed("alignment above 2 MiB"));
    }
    if segment.offset % PAGE != virtual_address % PAGE {
        return Err(malformed(
            "segment at another place in its page than in the file",
        ));
    }
    if segment.write && segment.execute {
        return Err(ElfError::WritableCode { address });
    }
    Ok(Some(segment))
}

/// Adds a segment behind those that are there.
fn add(segments: &mut Vec<Segment>, segment: Segment) -> Result<(), ElfError> {
    if let Some(last) = segments.last()
        && segment.first_page() < last.last_page()
    {
        return Err(ElfError::Overlapping {
            first: last.address,
            second: segment.address,
        });
    }
    segments.push(segment);
    Ok(())
}

fn malformed(what: &'static str) -> ElfError {
    ElfError::Malformed { what }
}

fn read(
    source: &(impl Source + ?Sized),
    offset: u64,
    buffer: &mut [u8],
) -> Result<usize, ElfError> {
    source.read_at(offset, buffer).map_err(ElfError::Read)
}

/// Fills the buffer, or says that the file is too short.
pub(crate) fn exact(
    source: &(impl Source + ?Sized),
    offset: u64,
    buffer: &mut [u8],
) -> Result<(), ElfError> {
    let end = offset.saturating_add(buffer.len() as u64);
    let size = source.size();
    if end > size || read(source, offset, buffer)? < buffer.len() {
        return Err(ElfError::Truncated { size, end });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A program of two segments: code, and data with zeros behind.
    fn program() -> Vec<u8> {
        let mut file = vec![0; 0x3000];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        let halves = [(16, 2u16), (18, 62), (52, 64), (54, 56), (56, 2)];
        for (offset, value) in halves {
            file[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
        }
        let words = [
            (24, 0x40_0100),
            (32, 64),
            (64, 5 << 32 | 1),
            (80, 0x40_0000),
            (96, 0x1000),
            (104, 0x1000),
            (120, 6 << 32 | 1),
            (128, 0x1000),
            (136, 0x60_0000),
            (152, 0x10),
            (160, 0x5000u64),
        ];
        for (offset, value) in words {
            file[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        }
        file
    }

    #[test]
    fn program_is_read_as_it_is() {
        let elf = parse(program().as_slice(), 1 << 20).unwrap();
        assert_eq!(
            (elf.entry, elf.headers, elf.header_count),
            (0x40_0100, 0x40_0040, 2)
        );
        let [code, data] = elf.segments[..] else {
            panic!("{elf:?}");
        };
        assert!(code.execute && !code.write && data.write && !data.execute);
        assert_eq!(
            (data.first_page(), data.last_page(), data.file_length),
            (0x60_0000, 0x60_5000, 16)
        );
        let error = parse(program().as_slice(), 0x5000).unwrap_err();
        assert_eq!(
            error,
            ElfError::TooLarge {
                bytes: 0x6000,
                limit: 0x5000
            }
        );
    }

    #[test]
    fn position_independent_program_is_put_somewhere() {
        let mut file = program();
        file[16] = 3;
        let elf = parse(file.as_slice(), 1 << 20).unwrap();
        assert_eq!(elf.entry, BASE + 0x40_0100);
        assert_eq!(elf.segments[0].address, BASE + 0x40_0000);
    }

    proptest! {
        #[test]
        fn changed_bytes_are_refused_or_a_program_still(
            changes in proptest::collection::vec((0..176usize, any::<u8>()), 1..12),
            length in 0..0x3000usize,
        ) {
            for length in [length, 0x3000] {
                let mut file = program();
                for (offset, byte) in &changes {
                    file[*offset] = *byte;
                }
                file.truncate(length);
                if let Ok(elf) = parse(file.as_slice(), 1 << 20) {
                    let mut last = 0;
                    for segment in &elf.segments {
                        prop_assert!(segment.first_page() >= last && !(segment.write && segment.execute));
                        prop_assert!(segment.offset + segment.file_length <= length as u64);
                        last = segment.last_page();
                    }
                    prop_assert!(last <= HIGHEST.next_multiple_of(PAGE));
                }
            }
        }
    }
}
