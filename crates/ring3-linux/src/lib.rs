//! Runs static Linux programs on the ring-3 platform, and answers their system calls.
//!
//! There is no kernel: a program runs in ring 3 of a virtual machine, and this crate is what its
//! system calls and faults come to. It is a small part of Linux, written for one thread: enough for
//! busybox, static programs of C and Rust, and interpreters such as Lua.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use microvm_ring3::{KvmOptions, KvmPlatform, open_device};
//! use microvm_ring3_linux::{ExitStatus, Program, Run, Sandbox, SandboxOptions};
//!
//! let platform = Arc::new(KvmPlatform::new(open_device(None)?, KvmOptions::default())?);
//! let mut sandbox = Sandbox::new(platform, SandboxOptions::default())?;
//! let program = Program::at("/bin/busybox").args(["echo", "hello"]);
//! let outcome = sandbox.run(program, Run::default())?;
//! assert_eq!(outcome.exit, ExitStatus::Exited(0));
//! assert_eq!(outcome.stdout, b"hello\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The parts, from the outside in:
//!
//! | module | job |
//! |---|---|
//! | `sandbox` | [`Machine`], what sandboxes share; [`Sandbox`], what stays between runs |
//! | `options`, `outcome`, `policy` | what goes in and comes out, and who may have a say |
//! | `process` | running a program: its exits and how it ends |
//! | `calls` | the system calls |
//! | `signals`, `stack`, `streams`, `descriptors` | what a process has |
//! | `files` | the tree: a folder of the host, read-only, and files in memory over it |
//! | `memory` | pages that come when they are touched, and checked copying |
//! | `frames`, `image`, `budget` | where pages come from, and what they are counted against |
//! | `elf` | reading programs |
//! | `interrupt`, `watch` | ending runs from outside and in time |
//! | `trace`, `names` | system calls as text |
//!
//! The program is hostile: every address, length, path and number of it is checked where it is
//! used, nothing is allocated because it says so, and there is no `unsafe`. docs/ring3.md has what
//! is supported, and what is not protected.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::cast_possible_truncation))]

mod budget;
mod buffer;
mod calls;
mod descriptors;
mod elf;
mod error;
mod files;
mod frames;
mod image;
mod interrupt;
mod memory;
mod names;
mod options;
mod outcome;
mod parked;
mod policy;
mod process;
mod sandbox;
mod signals;
mod stack;
mod streams;
mod trace;
mod watch;

pub use elf::{Elf, ElfError, Segment, Source, parse as parse_elf};
pub use error::Error;
pub use interrupt::Interrupter;
pub use names::{error_name, error_number, system_call_name, system_call_number, system_calls};
pub use options::{Executable, Input, Limits, Output, Program, Run, SandboxOptions};
pub use outcome::{Crash, ExitStatus, Limit, Outcome};
pub use policy::{CallSet, Decision, Observed, Observer, Policy, SystemCall};
pub use sandbox::{Machine, Sandbox};
pub use trace::signal_name;
