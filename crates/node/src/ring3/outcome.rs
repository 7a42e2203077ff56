//! How a sandbox and a run are asked for, and how a run went, as JavaScript objects.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::RawFd;
use std::path::PathBuf;

use microvm_ring3_linux::{
    Crash, ExitStatus, Input, Limit, Limits, Observed, Observer, Outcome, Output, Program,
    SandboxOptions, error_number, system_calls,
};
use napi::bindgen_prelude::{BigInt, Uint8Array};
use napi_derive::napi;

use super::exit::milliseconds;
use crate::descriptor::duplicate;
use crate::error::BindingError;
use crate::field::{Field, word};

/// How a sandbox is made.
#[derive(Debug)]
#[napi(object)]
pub struct BindingSandboxOptions {
    /// Folder of the host that programs see as `/`.
    pub root: Option<String>,
    /// Environment, each `NAME=value`.
    pub env: Vec<String>,
    /// Folder in which programs start.
    pub cwd: String,
    /// Bytes of memory.
    pub memory: Option<BigInt>,
    /// Milliseconds of processor time of a run.
    pub cpu_time_ms: Option<f64>,
    /// Milliseconds of a run.
    pub wall_time_ms: Option<f64>,
    /// Bytes of output of a run.
    pub output_bytes: Option<BigInt>,
    /// Descriptors that are open at once.
    pub open_files: Option<f64>,
    /// Bytes of the stack.
    pub stack: Option<BigInt>,
}

/// Which program to run, and how.
#[napi(object)]
pub struct BindingRun {
    /// Path of the program on the host.
    pub file: String,
    /// Its arguments, without its own name.
    pub args: Vec<String>,
    /// Its whole environment, each `NAME=value`; the sandbox's when absent.
    pub env: Option<Vec<String>>,
    /// Its stdin as bytes.
    pub input: Option<Uint8Array>,
    /// Its stdin as a descriptor, of which the caller keeps its own.
    pub input_fd: Option<RawFd>,
    /// Where its stdout goes: -1 for nowhere, absent to collect it. The caller keeps its own.
    pub stdout_fd: Option<RawFd>,
    /// The same for stderr.
    pub stderr_fd: Option<RawFd>,
    /// Where a line for each system call goes.
    pub trace_fd: Option<RawFd>,
    /// Milliseconds that it may take.
    pub timeout_ms: Option<f64>,
    /// The system calls that JavaScript is asked about.
    pub asked: Vec<String>,
}

// Typed arrays have no Debug.
impl std::fmt::Debug for BindingRun {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("BindingRun")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// Where and why an exception ended a program.
#[derive(Debug)]
#[napi(object)]
pub struct BindingCrash {
    /// The exception's number.
    pub vector: u32,
    /// The address that was touched.
    pub address: Option<BigInt>,
    /// Where the instruction is.
    pub rip: BigInt,
}

/// What came of a run.
#[napi(object)]
pub struct BindingOutcome {
    /// Exit code, when it ended by itself.
    pub exit_code: Option<i32>,
    /// Signal number, when one ended it.
    pub signal: Option<i32>,
    /// Whether its time was over.
    pub timed_out: bool,
    /// Whether it was interrupted.
    pub interrupted: bool,
    /// The limit that ended it.
    #[napi(ts_type = "'memory' | 'cpu-time' | 'wall-time' | 'output'")]
    pub limit: Option<String>,
    /// The exception that ended it.
    pub crash: Option<BindingCrash>,
    /// Milliseconds of processor time.
    pub cpu_time_ms: f64,
    /// Milliseconds that it took, loading included.
    pub wall_time_ms: f64,
    /// Most bytes of memory that it had at once.
    pub peak_memory: f64,
    /// System calls that it made.
    pub system_calls: f64,
    /// System calls that are not there, by name, and how many of each.
    pub unsupported: HashMap<String, f64>,
    /// Whether it tried to start another program.
    pub wanted_processes: bool,
    /// What it wrote to stdout, where that is collected.
    pub stdout: Uint8Array,
    /// What it wrote to stderr, where that is collected.
    pub stderr: Uint8Array,
}

// Typed arrays have no Debug.
impl std::fmt::Debug for BindingOutcome {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("BindingOutcome")
            .field("exit_code", &self.exit_code)
            .finish_non_exhaustive()
    }
}

/// Names of all system calls of x86-64.
#[napi(catch_unwind)]
pub fn system_call_names() -> Vec<String> {
    system_calls().map(|(_, name)| name.to_owned()).collect()
}

/// The number of the error of this name, as `EACCES`.
#[napi(catch_unwind)]
pub fn system_error_number(name: String) -> Option<i32> {
    error_number(&name)
}

pub(super) fn sandbox_options(
    options: BindingSandboxOptions,
) -> Result<SandboxOptions, BindingError> {
    let usual = Limits::default();
    let bytes = |value: &Option<BigInt>, usual: u64, name: &str| match value {
        Some(value) => word(value, name),
        None => Ok(usual),
    };
    let limits = Limits {
        memory: bytes(&options.memory, usual.memory, "memory")?,
        cpu_time: options.cpu_time_ms.map(milliseconds).transpose()?,
        wall_time: options.wall_time_ms.map(milliseconds).transpose()?,
        output_bytes: bytes(&options.output_bytes, usual.output_bytes, "output")?,
        open_files: match options.open_files {
            Some(open_files) => open_files.into_native("openFiles")?,
            None => usual.open_files,
        },
        stack: bytes(&options.stack, usual.stack, "stack")?,
    };
    Ok(SandboxOptions {
        root: options.root.map(PathBuf::from),
        env: options
            .env
            .into_iter()
            .map(text)
            .collect::<Result<_, _>>()?,
        cwd: text(options.cwd)?,
        limits,
    })
}

/// The program and its streams.
pub(super) struct Prepared {
    pub program: Program,
    pub stdin: Input,
    pub stdout: Output<'static>,
    pub stderr: Output<'static>,
    pub trace: Option<Trace>,
}

pub(super) fn prepare(run: BindingRun) -> Result<Prepared, BindingError> {
    let mut program = Program::at(run.file);
    program.args = run.args.into_iter().map(text).collect::<Result<_, _>>()?;
    program.env = run
        .env
        .map(|env| env.into_iter().map(text).collect::<Result<_, _>>())
        .transpose()?;
    let stdin = match (run.input, run.input_fd) {
        (Some(bytes), _) => Input::Bytes(bytes.to_vec()),
        (None, Some(fd)) => Input::Descriptor(duplicate(fd)?),
        (None, None) => Input::Empty,
    };
    let trace = match run.trace_fd {
        Some(fd) => Some(Trace(File::from(duplicate(fd)?))),
        None => None,
    };
    Ok(Prepared {
        program,
        stdin,
        stdout: output(run.stdout_fd)?,
        stderr: output(run.stderr_fd)?,
        trace,
    })
}

fn output(fd: Option<RawFd>) -> Result<Output<'static>, BindingError> {
    Ok(match fd {
        None => Output::Collect,
        Some(-1) => Output::Discard,
        Some(fd) => Output::Descriptor(duplicate(fd)?),
    })
}

fn text(text: String) -> Result<CString, BindingError> {
    CString::new(text).map_err(|_| BindingError::invalid("A text has a NUL"))
}

/// Writes a line for each system call.
pub(super) struct Trace(File);

impl Observer for Trace {
    fn observe(&mut self, call: &Observed<'_>) {
        // Whoever reads it may have gone: that is no reason to end the program.
        let _ = self.0.write_all(format!("{}\n", call.line).as_bytes());
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
pub(super) fn from_native(outcome: Outcome) -> BindingOutcome {
    let (exit_code, signal) = match outcome.exit {
        ExitStatus::Exited(code) => (Some(code), None),
        ExitStatus::Signaled(signal) => (None, Some(signal)),
    };
    let limit = outcome.limit.map(|limit| match limit {
        Limit::Memory => "memory".to_owned(),
        Limit::CpuTime => "cpu-time".to_owned(),
        Limit::WallTime => "wall-time".to_owned(),
        Limit::Output => "output".to_owned(),
        other => format!("{other:?}"),
    });
    BindingOutcome {
        exit_code,
        signal,
        timed_out: outcome.timed_out,
        interrupted: outcome.interrupted,
        limit,
        crash: outcome.crash.map(crash),
        cpu_time_ms: outcome.cpu_time.as_secs_f64() * 1000.0,
        wall_time_ms: outcome.wall_time.as_secs_f64() * 1000.0,
        peak_memory: outcome.peak_memory as f64,
        system_calls: outcome.system_calls as f64,
        wanted_processes: outcome.wanted_processes(),
        unsupported: outcome
            .unsupported
            .into_iter()
            .map(|(name, count)| (name, count as f64))
            .collect(),
        stdout: Uint8Array::new(outcome.stdout),
        stderr: Uint8Array::new(outcome.stderr),
    }
}

fn crash(crash: Crash) -> BindingCrash {
    BindingCrash {
        vector: crash.vector.into(),
        address: crash.address.map(BigInt::from),
        rip: crash.rip.into(),
    }
}
