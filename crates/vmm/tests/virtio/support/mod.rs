//! The driver's side of virtio, as far as tests need one.
#![allow(dead_code, unused_imports)] // Each test binary uses a part.

mod driver;
mod probe;
mod ring;

pub use driver::Driver;
pub use probe::{Call, Probe, Script};
pub use ring::{NEXT, Ring, WRITE};

use std::sync::Arc;

use microvm_vmm::memory::{PageSize, Ram};
use vm_memory::GuestMemoryMmap;

/// Bytes of guest memory in tests.
pub const MEMORY: u64 = 4 << 20;

/// Guest memory over a memfd, as machines have it.
pub fn memory() -> Arc<GuestMemoryMmap> {
    Arc::clone(Ram::new(MEMORY, PageSize::Base).unwrap().memory())
}
