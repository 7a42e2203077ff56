//! Helper processes that end with this one.

use std::collections::HashMap;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use microvm_process::{Child, ExitStatus, SpawnOptions, Stdio, spawn};
use napi::Env;
use napi::bindgen_prelude::PromiseRaw;
use napi_derive::napi;

use crate::cleanup::{Stop, stop_at_end_of_env};
use crate::descriptor::duplicate;
use crate::error::BindingError;
use crate::promise;
use crate::slot::Slot;

/// A helper as the TypeScript side wants it.
#[derive(Debug)]
#[napi(object)]
pub struct BindingSpawnOptions {
    /// The program; without a slash it is looked for in `env`'s `PATH`.
    pub program: String,
    /// Its arguments, without its own name.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: HashMap<String, String>,
    /// Descriptors to pass. The caller keeps its own.
    pub fds: Vec<BindingPassedDescriptor>,
    /// True for a pipe on its standard error, to be had by `takeStderr`; else it goes nowhere.
    pub capture_stderr: bool,
    /// Number of the signal that it gets when this process ends; SIGKILL by default.
    pub end_signal: Option<i32>,
}

/// A descriptor for a helper.
#[derive(Debug)]
#[napi(object)]
pub struct BindingPassedDescriptor {
    /// Its number here.
    pub fd: RawFd,
    /// Its number in the helper.
    pub target: i32,
}

/// How a helper ended; both are absent where somebody else took its status.
#[derive(Debug)]
#[napi(object)]
pub struct BindingExitStatus {
    /// Exit code, when it ended by itself.
    pub code: Option<i32>,
    /// Signal number, when one ended it.
    pub signal: Option<i32>,
}

/// A helper. It is killed at the latest when this process or its worker ends.
#[derive(Debug)]
#[napi]
pub struct BindingChild {
    pid: u32,
    /// Empty once it has ended and was waited for: what it holds must not wait for a garbage
    /// collector.
    child: Slot<Child>,
    stderr: Mutex<Option<OwnedFd>>,
}

/// Starts a helper; blocks for the time of an `execve`.
#[napi(catch_unwind)]
pub fn spawn_helper(env: Env, options: BindingSpawnOptions) -> napi::Result<BindingChild> {
    let mut child = start(options).map_err(|error| error.into_js(&env))?;
    let stderr = Mutex::new(child.take_stderr());
    let child = Arc::new(child);
    stop_at_end_of_env(&env, &child)?;
    Ok(BindingChild {
        pid: child.pid(),
        child: Slot::new(child),
        stderr,
    })
}

impl Stop for Child {
    fn stop(&self) {
        // Where this fails it has ended already: nobody changes its user.
        let _ = self.end();
    }
}

fn start(options: BindingSpawnOptions) -> Result<Child, BindingError> {
    let mut fds = Vec::with_capacity(options.fds.len());
    for passed in &options.fds {
        fds.push((duplicate(passed.fd)?, passed.target));
    }
    let environment = options.env.into_iter();
    let spawn_options = SpawnOptions::new(options.program);
    Ok(spawn(SpawnOptions {
        end_signal: options.end_signal.unwrap_or(spawn_options.end_signal),
        args: options.args.into_iter().map(Into::into).collect(),
        env: Some(environment.map(|(k, v)| (k.into(), v.into())).collect()),
        fds,
        stderr: if options.capture_stderr {
            Stdio::Capture
        } else {
            Stdio::Null
        },
        ..spawn_options
    })?)
}

#[napi]
impl BindingChild {
    /// Process number, for messages.
    #[napi(getter, catch_unwind)]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// This end of the captured standard error, which then belongs to the caller; `null` when it
    /// was not captured, or taken before.
    #[napi(catch_unwind)]
    pub fn take_stderr(&self) -> Option<RawFd> {
        let mut stderr = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        stderr.take().map(IntoRawFd::into_raw_fd)
    }

    /// Resolves when it has ended.
    #[napi(catch_unwind)]
    pub fn wait<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, BindingExitStatus>> {
        let slot = self.child.clone();
        promise::waiting(env, "process-wait", move || {
            let status = slot.get().map(|child| child.wait());
            slot.empty();
            let (code, signal) = match status {
                Some(ExitStatus::Exited(code)) => (Some(code), None),
                Some(ExitStatus::Signaled(signal)) => (None, Some(signal)),
                Some(ExitStatus::Unknown) | None => (None, None),
            };
            BindingExitStatus { code, signal }
        })
    }

    /// Sends a signal; one that comes too late is no error.
    #[napi(catch_unwind)]
    pub fn kill(&self, env: Env, signal: i32) -> napi::Result<()> {
        let Some(child) = self.child.get() else {
            return Ok(());
        };
        child.kill(signal).map_err(|error| {
            BindingError::system("Cannot signal a helper process", &error).into_js(&env)
        })
    }
}
