//! Telling what a kernel file is, and loading it.

use std::path::Path;

use linux_loader::bootparam::setup_header;

use super::error::{BootError, Image};
use super::file::ImageFile;
use super::{bzimage, elf};
use crate::memory::Ram;

/// Bytes from the start of a file that decide what it is: covers the bzImage's setup header.
pub(super) const HEAD: usize = 1024;

/// How the boot CPU enters the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// PVH: 32-bit protected mode without paging, `start_info` in EBX.
    Pvh(u64),
    /// The 64-bit Linux boot protocol: long mode, zero page in RSI.
    Linux64(u64),
}

/// A kernel in guest memory.
#[derive(Debug, Clone, Copy)]
pub struct LoadedKernel {
    /// Where and how it is entered.
    pub entry: Entry,
    /// First address behind what it occupies, before and after it unpacked itself.
    pub end: u64,
    /// Last address at which the initramfs may have a byte.
    pub initramfs_last: u64,
    /// The bzImage's own header, to be handed on in the zero page.
    pub setup_header: Option<setup_header>,
}

/// What a kernel file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Elf,
    BzImage,
}

/// Loads the kernel at `path` into `ram`.
pub(super) fn load(ram: &Ram, path: &Path) -> Result<LoadedKernel, BootError> {
    let file = ImageFile::open(Image::Kernel, path)?;
    let (kind, head) = identify(&file)?;
    match kind {
        Kind::Elf => elf::load(ram, &file, &head),
        Kind::BzImage => bzimage::load(ram, &file, &head),
    }
}

/// Tells what the file is by its first bytes, which are handed back, padded with zeros.
pub(super) fn identify(file: &ImageFile<'_>) -> Result<(Kind, [u8; HEAD]), BootError> {
    let mut head = [0; HEAD];
    let length = file.read_at(&mut head, 0)?;
    if length == 0 {
        return Err(file.not_a_kernel("the file is empty"));
    }
    if head.starts_with(b"\x7fELF") {
        return Ok((Kind::Elf, head));
    }
    if bytes_at(&head, 0x1fe, b"\x55\xaa") && bytes_at(&head, 0x202, b"HdrS") {
        return Ok((Kind::BzImage, head));
    }
    Err(explain(file, &head))
}

/// The most precise error for a file that is neither ELF nor bzImage.
fn explain(file: &ImageFile<'_>, head: &[u8]) -> BootError {
    /// Offset, bytes there, and the architecture that they tell.
    const FOREIGN: [(usize, &[u8], &str); 5] = [
        (0x38, b"ARM\x64", "arm64"),
        (0x38, b"RSC\x05", "RISC-V"),
        (0x38, b"\xcd\x23\x82\x81", "LoongArch"),
        (0x24, b"\x18\x28\x6f\x01", "32-bit Arm"),
        // A compressed EFI image, which x86 kernels do not come as.
        (0x04, b"zimg", "arm64, RISC-V or LoongArch"),
    ];
    const OTHER: [(&[u8], &str); 6] = [
        (b"\x1f\x8b", "it is a gzip archive"),
        (b"\x28\xb5\x2f\xfd", "it is a zstd archive"),
        (b"\xfd7zXZ", "it is an xz archive"),
        (
            b"!<arch>\n",
            "it is an ar archive, such as a Debian package",
        ),
        (b"070701", "it is a cpio archive, such as an initramfs"),
        (b"#!", "it is a script"),
    ];
    for (offset, magic, architecture) in FOREIGN {
        if bytes_at(head, offset, magic) {
            return file.other_architecture(architecture);
        }
    }
    let reason = OTHER
        .iter()
        .find(|(magic, _)| head.starts_with(magic))
        .map_or("it is neither an ELF file nor a bzImage", |(_, what)| what);
    file.not_a_kernel(reason)
}

fn bytes_at(head: &[u8], offset: usize, magic: &[u8]) -> bool {
    head.get(offset..)
        .is_some_and(|rest| rest.starts_with(magic))
}

/// Little-endian integers in a file's head; zero beyond its end.
pub(super) fn u16_at(head: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(array_at(head, offset))
}

pub(super) fn u32_at(head: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(array_at(head, offset))
}

pub(super) fn u64_at(head: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(array_at(head, offset))
}

fn array_at<const N: usize>(head: &[u8], offset: usize) -> [u8; N] {
    head.get(offset..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or([0; N])
}
