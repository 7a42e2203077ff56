//! The initramfs: as high in the RAM below 4 GiB as the kernel can use.

use std::path::Path;

use super::error::{BootError, Image};
use super::file::ImageFile;
use super::kernel::LoadedKernel;
use crate::config::PAGE;
use crate::memory::Ram;

/// An initramfs in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Initramfs {
    /// Its first address.
    pub address: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// Loads the file at `path` above `kernel`.
pub(super) fn load(ram: &Ram, path: &Path, kernel: &LoadedKernel) -> Result<Initramfs, BootError> {
    let file = ImageFile::open(Image::Initramfs, path)?;
    let length = file.length;
    let address = place(length, kernel).map_err(|available| BootError::InitramfsTooLarge {
        path: path.to_owned(),
        bytes: length,
        available,
    })?;
    file.load(ram, 0, length, address)?;
    Ok(Initramfs { address, length })
}

/// The highest page-aligned address where `length` bytes fit, or how many bytes would.
fn place(length: u64, kernel: &LoadedKernel) -> Result<u64, u64> {
    let bottom = kernel.end.next_multiple_of(PAGE);
    let top = kernel.initramfs_last.saturating_add(1);
    let available = top.saturating_sub(bottom);
    if length > available {
        return Err(available);
    }
    let address = top - length;
    let address = address - address % PAGE;
    if address < bottom {
        Err(available)
    } else {
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::kernel::Entry;
    use super::*;

    proptest! {
        #[test]
        fn a_placed_initramfs_lies_between_kernel_and_limit(
            end in 0u64..(1 << 32),
            initramfs_last in 0u64..(1 << 32),
            length in 0u64..(1 << 33),
        ) {
            let kernel = LoadedKernel {
                entry: Entry::Pvh(0),
                end,
                initramfs_last,
                setup_header: None,
            };
            match place(length, &kernel) {
                Ok(address) => {
                    prop_assert_eq!(address % PAGE, 0);
                    prop_assert!(address >= end);
                    prop_assert!(address + length <= initramfs_last + 1);
                }
                Err(available) => prop_assert!(length + PAGE > available),
            }
        }
    }
}
