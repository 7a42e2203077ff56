//! How a run went.

use std::collections::BTreeMap;
use std::time::Duration;

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExitStatus {
    /// By itself, with this code, 0 to 255.
    Exited(i32),
    /// By a signal: its number. Limits and interrupts end programs by SIGKILL (9).
    Signaled(i32),
}

/// A limit that ended a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// It touched memory that it had asked for, and there was no more.
    Memory,
    /// Processor time.
    CpuTime,
    /// Time on the wall, of the sandbox's limits or the run's timeout.
    WallTime,
    /// Bytes written to stdout and stderr.
    Output,
}

/// Where and why an exception ended a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Crash {
    /// The exception's number; 14 is a page fault.
    pub vector: u8,
    /// The address that was touched, where there is one.
    pub address: Option<u64>,
    /// Where the instruction is.
    pub rip: u64,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// How the program ended.
    pub exit: ExitStatus,
    /// Whether its time was over: the limit is [`Limit::WallTime`].
    pub timed_out: bool,
    /// Whether it was interrupted.
    pub interrupted: bool,
    /// The limit that ended it.
    pub limit: Option<Limit>,
    /// The exception that ended it.
    pub crash: Option<Crash>,
    /// Processor time, of the program and of answering its calls.
    pub cpu_time: Duration,
    /// Time on the wall, loading included.
    pub wall_time: Duration,
    /// Most bytes of memory that it had at once, by the limit's way of counting.
    pub peak_memory: u64,
    /// System calls that it made.
    pub system_calls: u64,
    /// System calls that are not there, which got `ENOSYS`, by name, and how many of each.
    /// All numbers that no call has are counted as `unknown`.
    pub unsupported: BTreeMap<String, u64>,
    /// What it wrote to stdout, where that is collected.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr, where that is collected.
    pub stderr: Vec<u8>,
}

impl Outcome {
    /// Whether the program tried to start another one, which there are none of: a shell script,
    /// say, that uses more than builtins.
    #[must_use]
    pub fn wanted_processes(&self) -> bool {
        ["fork", "vfork", "clone", "clone3", "execve", "execveat"]
            .iter()
            .any(|name| self.unsupported.contains_key(*name))
    }
}
