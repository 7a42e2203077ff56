//! From files to a loaded guest.
//!
//! Images go straight from the file into guest memory. They are not trusted: whatever they claim
//! about sizes and addresses is checked against the file and the guest's memory first.

mod bzimage;
mod elf;
mod error;
mod extract;
mod file;
mod initramfs;
mod kernel;
mod lz4;

pub use error::{BootError, Image};
pub use extract::{ExtractError, extract_vmlinux};
pub use initramfs::Initramfs;
pub use kernel::{Entry, LoadedKernel};

use std::path::Path;

use vm_memory::{Bytes, GuestAddress};

use crate::arch::x86_64::layout;
use crate::config::validate_command_line;
use crate::memory::{GuestMemory, Ram};

/// What the boot CPU's set-up needs to know about the loaded guest.
#[derive(Debug, Clone, Copy)]
pub struct LoadedGuest {
    /// The kernel and how it is entered.
    pub kernel: LoadedKernel,
    /// Where the initramfs lies, if there is one.
    pub initramfs: Option<Initramfs>,
}

/// Loads kernel, initramfs and command line.
///
/// # Errors
///
/// [`BootError`]; guest memory may then hold parts of the images.
pub fn load(
    ram: &Ram,
    kernel: &Path,
    initramfs: Option<&Path>,
    command_line: &str,
) -> Result<LoadedGuest, BootError> {
    write_command_line(ram.memory(), command_line)?;
    let kernel = kernel::load(ram, kernel)?;
    let initramfs = initramfs
        .map(|path| initramfs::load(ram, path, &kernel))
        .transpose()?;
    Ok(LoadedGuest { kernel, initramfs })
}

fn write_command_line(memory: &GuestMemory, command_line: &str) -> Result<(), BootError> {
    validate_command_line(command_line)?;
    let at = GuestAddress(layout::COMMAND_LINE);
    memory.write_slice(command_line.as_bytes(), at)?;
    // Memory is zeroed, but this may be a second load into the same memory.
    memory.write_obj(0u8, GuestAddress(at.0 + command_line.len() as u64))?;
    Ok(())
}

#[cfg(test)]
mod tests;
