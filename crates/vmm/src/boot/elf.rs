//! ELF kernels (`vmlinux`), entered by PVH where they offer it.

use linux_loader::loader::{Elf, KernelLoader, elf::PvhBootCapability};

use super::error::{BootError, Image};
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
const NOTES_MAX: u64 = 64 << 10;

const EM_X86_64: u16 = 62;

/// Loads an ELF kernel.
pub(super) fn load(
    ram: &Ram,
    file: &mut ImageFile<'_>,
    head: &[u8; HEAD],
) -> Result<LoadedKernel, BootError> {
    let end = check(file, head)?;
    let available = ram.low_end();
    if end > available {
        return Err(BootError::KernelTooLarge {
            path: file.path.to_owned(),
            needed: end,
            available,
        });
    }
    let loaded = Elf::load(&**ram.memory(), None, &mut file.file, None).map_err(|error| {
        BootError::Load {
            image: Image::Kernel,
            path: file.path.to_owned(),
            source: error.into(),
        }
    })?;
    let entry = match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(address) => Entry::Pvh(address.0),
        _ => Entry::Linux64(loaded.kernel_load.0),
    };
    let (Entry::Pvh(address) | Entry::Linux64(address)) = entry;
    if !(layout::HIGH_RAM..end).contains(&address) {
        return Err(file.not_a_kernel("its entry point lies outside of it"));
    }
    Ok(LoadedKernel {
        entry,
        end,
        initramfs_last: available - 1,
        setup_header: None,
    })
}

/// Checks the file header and every segment; returns the first address behind the kernel.
pub(super) fn check(file: &ImageFile<'_>, head: &[u8; HEAD]) -> Result<u64, BootError> {
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
    let mut end = 0;
    for header in table.chunks_exact(PROGRAM_HEADER) {
        end = end.max(check_segment(file, header)?);
    }
    if end == 0 {
        return Err(file.not_a_kernel("it has nothing to load"));
    }
    Ok(end)
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

fn check_segment(file: &ImageFile<'_>, header: &[u8]) -> Result<u64, BootError> {
    let kind = u32_at(header, 0);
    let (in_file, in_memory) = (u64_at(header, 32), u64_at(header, 40));
    let file_end = u64_at(header, 8).checked_add(in_file);
    match kind {
        PT_LOAD if in_file != 0 || in_memory != 0 => {}
        PT_NOTE if in_file > NOTES_MAX => {
            return Err(file.not_a_kernel("its ELF notes are far too long"));
        }
        PT_NOTE => {}
        _ => return Ok(0),
    }
    let file_end = file_end.ok_or_else(|| file.not_a_kernel("a segment's offset overflows"))?;
    if file_end > file.length {
        return Err(file.truncated(file_end));
    }
    if kind == PT_NOTE {
        return Ok(0);
    }
    let address = u64_at(header, 24);
    if in_file > in_memory {
        return Err(file.not_a_kernel("a segment is larger in the file than in memory"));
    }
    if address < layout::HIGH_RAM {
        return Err(file.not_a_kernel("a segment lies below 1 MiB"));
    }
    address
        .checked_add(in_memory)
        .ok_or_else(|| file.not_a_kernel("a segment's address overflows"))
}
