//! ELF kernels (`vmlinux`), entered by PVH where they offer it.

use super::error::BootError;
use super::file::ImageFile;
use super::kernel::{Entry, HEAD, LoadedKernel, u16_at, u32_at, u64_at};
use crate::arch::x86_64::layout;
use crate::memory::Ram;

/// Program headers that a kernel may have; Linux has five.
const SEGMENTS_MAX: usize = 64;
const PROGRAM_HEADER: usize = 56;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Longest note segment that is searched for the PVH entry, in bytes.
const NOTES_MAX: usize = 16 << 10;
/// Type of the note with the PVH entry point, and its owner.
const PHYS32_ENTRY: u32 = 18;
const NOTE_OWNER: &[u8] = b"Xen\0";

const EM_X86_64: u16 = 62;

/// What an ELF file asks for; checked against the file's length.
#[derive(Debug, Default)]
pub(super) struct Plan {
    segments: Vec<Segment>,
    pvh_entry: Option<u64>,
    entry: u64,
    /// First address behind all segments.
    end: u64,
}

#[derive(Debug)]
struct Segment {
    offset: u64,
    in_file: u64,
    address: u64,
}

/// Loads an ELF kernel.
pub(super) fn load(
    ram: &Ram,
    file: &ImageFile<'_>,
    head: &[u8; HEAD],
) -> Result<LoadedKernel, BootError> {
    let plan = check(file, head)?;
    let available = ram.low_end();
    if plan.end > available {
        return Err(BootError::KernelTooLarge {
            path: file.path.to_owned(),
            needed: plan.end,
            available,
        });
    }
    for segment in &plan.segments {
        file.load(ram, segment.offset, segment.in_file, segment.address)?;
    }
    Ok(LoadedKernel {
        entry: plan
            .pvh_entry
            .map_or(Entry::Linux64(plan.entry), Entry::Pvh),
        end: plan.end,
        initramfs_last: available - 1,
        setup_header: None,
    })
}

/// Checks the file header, every segment and the entry point.
pub(super) fn check(file: &ImageFile<'_>, head: &[u8; HEAD]) -> Result<Plan, BootError> {
    check_header(file, head)?;
    let count = usize::from(u16_at(head, 56));
    let table_at = u64_at(head, 32);
    if count == 0 || count > SEGMENTS_MAX {
        return Err(file.not_a_kernel("it has no program headers, or far too many"));
    }
    let mut table = [0; SEGMENTS_MAX * PROGRAM_HEADER];
    let table = table.get_mut(..count * PROGRAM_HEADER).unwrap_or_default();
    let table_end = table_at.saturating_add(table.len() as u64);
    if file.read_at(table, table_at)? < table.len() {
        return Err(file.truncated(table_end));
    }
    let mut plan = Plan {
        entry: u64_at(head, 24),
        ..Plan::default()
    };
    for header in table.chunks_exact(PROGRAM_HEADER) {
        match u32_at(header, 0) {
            PT_LOAD => plan.add_segment(file, header)?,
            PT_NOTE if plan.pvh_entry.is_none() => plan.pvh_entry = find_pvh_entry(file, header)?,
            _ => {}
        }
    }
    if plan.segments.is_empty() {
        return Err(file.not_a_kernel("it has nothing to load"));
    }
    let entry = plan.pvh_entry.unwrap_or(plan.entry);
    if !(layout::HIGH_RAM..plan.end).contains(&entry) {
        return Err(file.not_a_kernel("its entry point lies outside of it"));
    }
    Ok(plan)
}

fn check_header(file: &ImageFile<'_>, head: &[u8; HEAD]) -> Result<(), BootError> {
    if file.length < 64 {
        return Err(file.truncated(64));
    }
    if let Some(architecture) = other_architecture(head[4], head[5], u16_at(head, 18)) {
        return Err(file.other_architecture(architecture));
    }
    if !matches!(u16_at(head, 16), 2 | 3) {
        return Err(file.not_a_kernel("it is an ELF object, not an executable"));
    }
    if usize::from(u16_at(head, 54)) != PROGRAM_HEADER {
        return Err(file.not_a_kernel("its ELF program headers have an unknown size"));
    }
    Ok(())
}

fn other_architecture(class: u8, data: u8, machine: u16) -> Option<&'static str> {
    match (machine, class, data) {
        (EM_X86_64, 2, 1) => None,
        (EM_X86_64, ..) => Some("x32 or another x86-64 variant"),
        (3, ..) => Some("32-bit x86"),
        (40, ..) => Some("32-bit Arm"),
        (183, ..) => Some("arm64"),
        (243, ..) => Some("RISC-V"),
        (258, ..) => Some("LoongArch"),
        (20 | 21, ..) | (0x1400 | 0x1500, _, 2) => Some("PowerPC"),
        (22, ..) | (0x1600, _, 2) => Some("s390"),
        (8, ..) | (0x0800, _, 2) => Some("MIPS"),
        _ => Some("an unknown architecture"),
    }
}

impl Plan {
    fn add_segment(&mut self, file: &ImageFile<'_>, header: &[u8]) -> Result<(), BootError> {
        let (offset, address) = (u64_at(header, 8), u64_at(header, 24));
        let (in_file, in_memory) = (u64_at(header, 32), u64_at(header, 40));
        if in_memory == 0 && in_file == 0 {
            return Ok(());
        }
        let file_end = offset
            .checked_add(in_file)
            .ok_or_else(|| file.not_a_kernel("a segment's offset overflows"))?;
        if file_end > file.length {
            return Err(file.truncated(file_end));
        }
        if in_file > in_memory {
            return Err(file.not_a_kernel("a segment is larger in the file than in memory"));
        }
        if address < layout::HIGH_RAM {
            return Err(file.not_a_kernel("a segment lies below 1 MiB"));
        }
        let end = address
            .checked_add(in_memory)
            .ok_or_else(|| file.not_a_kernel("a segment's address overflows"))?;
        self.end = self.end.max(end);
        self.segments.push(Segment {
            offset,
            in_file,
            address,
        });
        Ok(())
    }
}

/// The PVH entry point among the notes of a segment, if it is there.
fn find_pvh_entry(file: &ImageFile<'_>, header: &[u8]) -> Result<Option<u64>, BootError> {
    let (offset, length) = (u64_at(header, 8), u64_at(header, 32));
    let mut notes = [0; NOTES_MAX];
    let wanted = usize::try_from(length).unwrap_or(usize::MAX).min(NOTES_MAX);
    let notes = notes.get_mut(..wanted).unwrap_or_default();
    if file.read_at(notes, offset)? < notes.len() {
        return Err(file.truncated(offset.saturating_add(length)));
    }
    Ok(parse_notes(notes))
}

/// Each note: lengths of name and description, type, then both, padded to four bytes.
fn parse_notes(mut notes: &[u8]) -> Option<u64> {
    const HEADER: usize = 12;
    while notes.len() >= HEADER {
        let length = |at| usize::try_from(u32_at(notes, at)).ok();
        let (name_length, description_length) = (length(0)?, length(4)?);
        let kind = u32_at(notes, 8);
        let body = notes.get(HEADER..)?;
        let name = body.get(..name_length)?;
        let body = body.get(name_length.next_multiple_of(4)..)?;
        let description = body.get(..description_length)?;
        if kind == PHYS32_ENTRY && name == NOTE_OWNER && description.len() >= 4 {
            return Some(u32_at(description, 0).into());
        }
        notes = body.get(description_length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn note(owner: &[u8], kind: u32, description: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for word in [owner.len() as u32, description.len() as u32, kind] {
            note.extend(word.to_le_bytes());
        }
        for part in [owner, description] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn the_pvh_entry_is_found_among_other_notes() {
        let notes = [
            note(b"GNU\0", PHYS32_ENTRY, &[9; 20]),
            note(b"Xen\0", 6, b"linux"),
            note(b"Xen\0", PHYS32_ENTRY, &0x0100_0000u64.to_le_bytes()),
        ];
        assert_eq!(parse_notes(&notes.concat()), Some(0x0100_0000));
        assert_eq!(parse_notes(&notes[..2].concat()), None);
    }

    #[test]
    fn notes_that_run_over_their_end_are_no_notes() {
        let whole = note(b"Xen\0", PHYS32_ENTRY, &[0; 4]);
        for length in 0..whole.len() {
            assert_eq!(parse_notes(&whole[..length]), None);
        }
        let mut huge = whole;
        huge[4..8].fill(0xff);
        assert_eq!(parse_notes(&huge), None);
    }

    proptest! {
        #[test]
        fn any_notes_end_the_search(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_notes(&bytes);
        }

        #[test]
        fn any_number_of_empty_notes_ends_the_search(count in 0usize..100) {
            prop_assert_eq!(parse_notes(&vec![0; count * 12]), None);
        }
    }
}
