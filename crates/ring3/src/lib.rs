//! Runs user-mode code in a virtual machine that has no kernel.
//!
//! A program runs in ring 3 of a vCPU, natively, in page tables that this process writes. Whatever
//! it wants from an operating system (a system call, a page that is not there) leaves the guest
//! and ends [`Context::switch`]; the caller does it and switches back. Nothing boots, so that a
//! new address space and context in a live machine are there in tens of microseconds.
//!
//! ```no_run
//! use microvm_ring3::{
//!     Exit, KvmOptions, KvmPlatform, Platform, Protection, Registers, SwitchOptions, open_device,
//! };
//!
//! let platform = KvmPlatform::new(open_device(None)?, KvmOptions::default())?;
//! let memory = platform.new_memory(4096)?;
//! memory.write(0, &[0x0f, 0x05])?; // syscall
//! let space = platform.address_space()?;
//! space.map(0x40_0000, &memory, 0, 4096, Protection::READ_EXECUTE, false)?;
//! let mut context = platform.new_context();
//! let mut registers = Registers { rip: 0x40_0000, rax: 39, ..Registers::default() };
//! let exit = context.switch(&space, &mut registers, SwitchOptions::default())?;
//! assert_eq!((exit, registers.rax), (Exit::SystemCall, 39));
//! # Ok::<(), microvm_ring3::Error>(())
//! ```
//!
//! The parts, from the outside in:
//!
//! | module | job |
//! |---|---|
//! | `registry` | platforms by name; opening the device |
//! | `platform` | [`Platform`]: facts, and making address spaces, contexts and memory |
//! | `context` | one thread of a program: [`Context::switch`], interrupts, timeouts |
//! | `address_space`, `memory` | what is mapped where |
//! | `space` | the page tables, and stopping vCPUs while they change |
//! | `vcpu`, `pool` | entering ring 3 and telling why it was left; who has which vCPU |
//! | `extended` | segment bases and extended state, left in a vCPU until another context needs it |
//! | `kernel`, `layout` | the upper half: stubs and descriptor tables |
//! | `global`, `self_test` | what this host can do, found out by trying |
//!
//! It stands on `microvm-kvm`; callers are the personality that answers system calls, and the Node
//! binding. docs/ring3.md has the model, its limits and its threat model.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::cast_possible_truncation))]

mod address_space;
mod context;
mod error;
mod extended;
mod gate;
mod global;
mod interrupts;
mod kernel;
mod layout;
mod machine;
mod memory;
mod page_tables;
mod physical;
mod platform;
mod pool;
mod registers;
mod registry;
mod self_test;
mod space;
mod timer;
mod traits;
mod vcpu;

pub use address_space::AddressSpace;
pub use context::{Context, Interrupter, SwitchOptions};
pub use error::Error;
pub use memory::Memory;
pub use platform::{KvmOptions, KvmPlatform, NewAddressSpace, Platform};
pub use registers::{Access, Exit, Fault, Registers, Restore, SegmentBases};
pub use registry::{
    Constructor, Requirements, UnknownPlatform, lookup, names, open_device, register,
};
pub use space::Protection;
pub use traits::{HostTraits, OutCompletion, SyscallEntry};
