//! bzImages, entered at their 64-bit entry point; the guest unpacks itself.

use linux_loader::bootparam::setup_header;
use vm_memory::ByteValued;

use super::error::BootError;
use super::file::ImageFile;
use super::kernel::{Entry, HEAD, LoadedKernel, u16_at, u32_at, u64_at};
use crate::arch::x86_64::layout;
use crate::memory::Ram;

/// Offset of the 64-bit entry point from where the protected-mode part is loaded.
const ENTRY_64: u64 = 0x200;
/// `xloadflags`: there is a 64-bit entry point.
const XLF_KERNEL_64: u16 = 1;
/// First protocol version with `xloadflags`.
const VERSION_2_12: u16 = 0x20c;
const LOADED_HIGH: u8 = 1;
/// Where the setup header starts in the file.
const SETUP_HEADER: usize = 0x1f1;

/// The parts of the setup header that decide.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    /// Offset of the protected-mode part in the file.
    pub protected_mode: u64,
    /// Its length in bytes.
    pub length: u64,
    /// Offset of the compressed kernel in the protected-mode part.
    pub payload_offset: u64,
    /// Its length in bytes.
    pub payload_length: u64,
    initramfs_last: u64,
    preferred: u64,
    init_size: u64,
}

/// Checks the setup header against the file.
pub(super) fn check(file: &ImageFile<'_>, head: &[u8; HEAD]) -> Result<Header, BootError> {
    let sectors = match head[0x1f1] {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let header = Header {
        protected_mode: (sectors + 1) * 512,
        length: u64::from(u32_at(head, 0x1f4)) * 16,
        payload_offset: u64::from(u32_at(head, 0x248)),
        payload_length: u64::from(u32_at(head, 0x24c)),
        initramfs_last: u64::from(u32_at(head, 0x22c)),
        preferred: u64_at(head, 0x258),
        init_size: u64::from(u32_at(head, 0x260)),
    };
    if head[0x211] & LOADED_HIGH == 0 {
        return Err(file.not_a_kernel("it is a zImage of the days before bzImages"));
    }
    if u16_at(head, 0x206) < VERSION_2_12 {
        return Err(file.not_a_kernel("its boot protocol is older than 2.12 (Linux 3.8)"));
    }
    if u16_at(head, 0x236) & XLF_KERNEL_64 == 0 {
        return Err(file.other_architecture("32-bit x86"));
    }
    if header.length <= ENTRY_64 {
        return Err(file.not_a_kernel("its protected-mode part is empty"));
    }
    let expected = header.protected_mode + header.length;
    if file.length < expected {
        return Err(file.truncated(expected));
    }
    Ok(header)
}

/// Loads a bzImage.
pub(super) fn load(
    ram: &Ram,
    file: &ImageFile<'_>,
    head: &[u8; HEAD],
) -> Result<LoadedKernel, BootError> {
    let header = check(file, head)?;
    let available = ram.low_end();
    // It unpacks itself at its preferred address or above where it was loaded, and needs
    // `init_size` there; what follows the protected-mode part in the file is loaded too.
    let loaded_end = layout::HIGH_RAM.saturating_add(file.length - header.protected_mode);
    let end = header
        .preferred
        .max(layout::HIGH_RAM)
        .saturating_add(header.init_size)
        .max(loaded_end);
    if end > available {
        return Err(BootError::KernelTooLarge {
            path: file.path.to_owned(),
            needed: end,
            available,
        });
    }
    let length = file.length - header.protected_mode;
    file.load(ram, header.protected_mode, length, layout::HIGH_RAM)?;
    let mut setup_header = setup_header::default();
    let bytes = setup_header.as_mut_slice();
    for (to, from) in bytes.iter_mut().zip(head.iter().skip(SETUP_HEADER)) {
        *to = *from;
    }
    Ok(LoadedKernel {
        entry: Entry::Linux64(layout::HIGH_RAM + ENTRY_64),
        end,
        initramfs_last: header.initramfs_last.min(available - 1),
        setup_header: Some(setup_header),
    })
}
