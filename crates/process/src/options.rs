//! What a caller says about the process it wants.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// A helper process as its owner wants it. Descriptors given here belong to the call: they are closed in this process
/// when [`spawn`](crate::spawn) returns.
#[derive(Debug)]
pub struct SpawnOptions {
    /// The program. Without a slash it is looked for in the `PATH` of the helper's environment.
    pub program: PathBuf,
    /// Its arguments, without the program's own name.
    pub args: Vec<OsString>,
    /// Its whole environment; `None` hands on the one of this process.
    ///
    /// Reading the environment of this process races with a thread that changes it by C's `setenv`: callers that
    /// cannot rule that out give their own list.
    pub env: Option<Vec<(OsString, OsString)>>,
    /// Its working folder; `None` keeps the one of this process.
    pub cwd: Option<PathBuf>,
    /// Descriptors to pass, each with the number that it gets in the helper. Numbers 0 to 2 replace the streams below.
    pub fds: Vec<(OwnedFd, i32)>,
    /// The signal that it gets when this process ends. Default: `SIGKILL`. Another one is for programs that end by it
    /// and have something to put away.
    pub end_signal: i32,
    /// Standard input. Default: [`Stdio::Null`].
    pub stdin: Stdio,
    /// Standard output. Default: [`Stdio::Null`].
    pub stdout: Stdio,
    /// Standard error. Default: [`Stdio::Null`].
    pub stderr: Stdio,
}

/// Where a standard stream of a helper leads.
#[derive(Debug, Default)]
pub enum Stdio {
    /// `/dev/null`.
    #[default]
    Null,
    /// The stream of this process.
    Inherit,
    /// A pipe; its other end is handed out by [`Child::take_stdin`](crate::Child::take_stdin) and its siblings.
    Capture,
    /// A descriptor of the caller's.
    Fd(OwnedFd),
}

impl SpawnOptions {
    /// A program without arguments, in this process's environment and folder, with its streams on `/dev/null`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: None,
            cwd: None,
            fds: Vec::new(),
            end_signal: libc::SIGKILL,
            stdin: Stdio::Null,
            stdout: Stdio::Null,
            stderr: Stdio::Null,
        }
    }
}
