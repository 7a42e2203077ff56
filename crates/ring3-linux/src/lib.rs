//! Runs static Linux programs on the ring-3 platform, and answers their system calls.

#![forbid(unsafe_code)]

mod elf;
mod error;
mod names;
mod options;
mod outcome;
mod policy;
mod sandbox;

pub use elf::{Elf, ElfError, Segment, Source, parse as parse_elf};
pub use error::Error;
pub use names::{error_name, error_number, system_call_name, system_call_number, system_calls};
pub use options::{Executable, Input, Limits, Output, Program, Run, SandboxOptions};
pub use outcome::{Crash, ExitStatus, Limit, Outcome};
pub use policy::{CallSet, Decision, Observed, Observer, Policy, SystemCall};
pub use sandbox::{Interrupter, Machine, Sandbox};
