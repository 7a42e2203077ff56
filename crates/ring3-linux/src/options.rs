//! What a sandbox and a run are given.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use crate::policy::{Observer, Policy};

/// What a program may use up. What is not written here has no limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory: pages of the program, its page tables, files in memory, pipes. A system call
    /// that would need more fails; a page that is touched and cannot be had ends the program.
    /// Default: 256 MiB.
    pub memory: u64,
    /// Processor time of a run, that of the program and of answering its calls together; waiting
    /// is not counted. Default: no limit.
    pub cpu_time: Option<Duration>,
    /// Time of a run, as a clock on the wall shows it. Default: no limit.
    pub wall_time: Option<Duration>,
    /// Bytes that a run may write to stdout and stderr together. Default: 64 MiB.
    pub output_bytes: u64,
    /// Descriptors that are open at once. Default: 256; most: 4096.
    pub open_files: u32,
    /// Bytes of the stack, a part of `memory`. Default: 8 MiB.
    pub stack: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            cpu_time: None,
            wall_time: None,
            output_bytes: 64 << 20,
            open_files: 256,
            stack: 8 << 20,
        }
    }
}

/// How a sandbox is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxOptions {
    /// Folder of the host that programs see as `/`, to read only. Default: none; there are only
    /// files in memory.
    pub root: Option<PathBuf>,
    /// Environment, each `NAME=value`. Default: empty.
    pub env: Vec<CString>,
    /// Folder in which programs start, an absolute path in their tree. Default: `/`.
    pub cwd: CString,
    /// Limits of each run.
    pub limits: Limits,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self {
            root: None,
            env: Vec::new(),
            cwd: c"/".into(),
            limits: Limits::default(),
        }
    }
}

/// Where the program's file is.
#[derive(Debug)]
pub enum Executable {
    /// A path of the host.
    Path(PathBuf),
    /// An open file, from its start.
    File(File),
}

/// A program to run.
#[derive(Debug)]
pub struct Program {
    /// Its file.
    pub executable: Executable,
    /// Arguments behind the name.
    pub args: Vec<CString>,
    /// Name of the program, `argv[0]`. Default: the last name of the path, or `program`.
    pub name: Option<CString>,
    /// Environment in place of the sandbox's. Default: the sandbox's.
    pub env: Option<Vec<CString>>,
}

impl Program {
    /// The program in a file of the host, without arguments.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self::new(Executable::Path(path.into()))
    }

    /// The program in an open file, without arguments.
    #[must_use]
    pub fn of(file: File) -> Self {
        Self::new(Executable::File(file))
    }

    fn new(executable: Executable) -> Self {
        Self {
            executable,
            args: Vec::new(),
            name: None,
            env: None,
        }
    }

    /// Adds arguments, up to the first zero byte of each.
    #[must_use]
    pub fn args<Arg: Into<OsString>>(mut self, args: impl IntoIterator<Item = Arg>) -> Self {
        use std::os::unix::ffi::OsStringExt;
        self.args.extend(args.into_iter().map(|arg| {
            let mut bytes = arg.into().into_vec();
            bytes.truncate(
                bytes
                    .iter()
                    .position(|byte| *byte == 0)
                    .unwrap_or(bytes.len()),
            );
            CString::new(bytes).unwrap_or_default()
        }));
        self
    }
}

/// Where a program's stdin comes from.
#[derive(Debug, Default)]
pub enum Input {
    /// Nowhere: it is at its end.
    #[default]
    Empty,
    /// From these bytes.
    Bytes(Vec<u8>),
    /// From a descriptor of the host, which is waited for where it has nothing yet. An interrupt
    /// and the limits end the wait.
    Descriptor(OwnedFd),
}

/// Where a program's stdout or stderr goes.
#[derive(Default)]
pub enum Output<'run> {
    /// Nowhere.
    Discard,
    /// Into the outcome.
    #[default]
    Collect,
    /// To a writer, on the thread that runs the program; the program's call fails where it does.
    Writer(Box<dyn Write + Send + 'run>),
    /// To a descriptor of the host, which is waited for where it takes nothing now. An interrupt
    /// and the limits end the wait.
    Descriptor(OwnedFd),
}

impl std::fmt::Debug for Output<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Discard => "Discard",
            Self::Collect => "Collect",
            Self::Writer(_) => "Writer",
            Self::Descriptor(_) => "Descriptor",
        })
    }
}

/// How a program is run. The default collects what it writes, and asks nobody.
#[derive(Default)]
pub struct Run<'run> {
    /// Its stdin.
    pub stdin: Input,
    /// Its stdout.
    pub stdout: Output<'run>,
    /// Its stderr.
    pub stderr: Output<'run>,
    /// Who decides about system calls.
    pub policy: Option<&'run mut dyn Policy>,
    /// Who watches them.
    pub observer: Option<&'run mut dyn Observer>,
    /// How long it may take; the shorter one of this and the sandbox's `wall_time` counts.
    pub timeout: Option<Duration>,
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Run")
            .field("stdin", &self.stdin)
            .field("stdout", &self.stdout)
            .field("stderr", &self.stderr)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
