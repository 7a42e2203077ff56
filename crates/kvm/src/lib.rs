//! Safe handles for `/dev/kvm`.
//!
//! One type per kind of descriptor, as the kernel has them: [`Kvm`] makes a [`VirtualMachine`],
//! that makes a [`VirtualCpu`], and that becomes a [`VirtualCpuRunner`], whose
//! [`run`](VirtualCpuRunner::run) answers with an [`Exit`]. A [`MemoryRegion`] is host memory that
//! a machine's slots map into the guest; the machine keeps what its slots refer to, so no order of
//! drops can leave the guest with memory that the process uses for something else.
//!
//! It stands on kvm-ioctls and adds what that leaves to its callers: owning the memory of slots,
//! ending a run from another thread without losing the request, every detail of an exit, and
//! errors that name the call. Callers are the VMM (`microvm-vmm`), the ring-3 platform
//! (`microvm-ring3`) and the Node binding.
#![cfg_attr(test, allow(clippy::cast_possible_truncation))]

mod error;
mod exit;
pub mod guest_speed;
mod immediate_exit;
mod kvm;
mod memory_region;
pub mod reaper;
mod runner;
mod virtual_cpu;
mod virtual_machine;
mod xsave;

pub use error::{Errno, Error};
pub use exit::{Exit, InternalError};
pub use immediate_exit::{ImmediateExit, block_other_signals};
pub use kvm::{DEFAULT_DEVICE, Kvm};
pub use memory_region::{HugePages, MemoryRegion, PAGE_SIZE, guest_memory_file};
pub use runner::VirtualCpuRunner;
pub use virtual_cpu::VirtualCpu;
pub use virtual_machine::VirtualMachine;
pub use xsave::{xsave_from_bytes, xsave_to_bytes};
