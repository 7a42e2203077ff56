//! A sandbox: what stays from one run to the next.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use microvm_ring3::{AddressSpace, NewAddressSpace, Platform, Registers};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::budget::Budget;
use crate::buffer::Buffer;
use crate::calls::fill_randomly;
use crate::descriptors::{self, Descriptors};
use crate::error::Error;
use crate::files::{Base, Tree};
use crate::frames::Pool;
use crate::image::{Image, Images, LoadError};
use crate::interrupt::{Alarms, Bell, Bells, Interrupter};
use crate::memory::{Failure, ProgramMemory};
use crate::names::system_call_name;
use crate::options::{Executable, Limits, Program, Run, SandboxOptions};
use crate::outcome::{ExitStatus, Limit, Outcome};
use crate::parked::Parked;
use crate::process::{Ending, Parts, Process};
use crate::signals::SIGKILL;
use crate::stack::{self, Given};
use crate::streams::Streams;
use crate::watch::{Deadlines, Watch, thread_time};

/// What a program is called of which only the file is known.
const UNNAMED: &str = "program";

/// Bounds of the limits.
const MEMORY: (u64, u64) = (1 << 20, 1 << 40);
const STACK: (u64, u64) = (64 << 10, 1 << 30);
const FILES: (u64, u64) = (3, descriptors::MOST as u64);

/// Shared by the sandboxes of one machine: the memory that they are given, the programs that were
/// loaded, and the thread that ends runs in time.
#[derive(Debug)]
pub struct Machine {
    parked: Parked,
    images: Images,
    alarms: Alarms,
    bells: Bells,
    pool: Arc<Pool>,
    platform: Arc<dyn Platform>,
}

impl Machine {
    /// Makes the shared part of the sandboxes on this platform.
    #[must_use]
    pub fn new(platform: Arc<dyn Platform>) -> Arc<Self> {
        Arc::new(Self {
            parked: Parked::default(),
            images: Images::default(),
            alarms: Alarms::default(),
            bells: Bells::default(),
            pool: Arc::new(Pool::new(Arc::clone(&platform))),
            platform,
        })
    }

    /// The platform.
    #[must_use]
    pub fn platform(&self) -> &Arc<dyn Platform> {
        &self.platform
    }

    fn address_space(&self) -> Result<AddressSpace, Error> {
        let failed = Error::platform("Making an address space");
        loop {
            match self.platform.new_address_space().map_err(&failed)? {
                NewAddressSpace::Ready(space) => return Ok(space),
                NewAddressSpace::Wait(free) => match self.parked.take_oldest() {
                    Some(memory) => memory.release().map_err(&failed)?,
                    // Where nobody is left to say that one is free, asking again tells.
                    None => drop(free.recv()),
                },
            }
        }
    }
}

/// Runs programs, one at a time.
#[derive(Debug)]
pub struct Sandbox {
    /// The program that was run last, as far as it is still there.
    loaded: Option<ProgramMemory>,
    /// Whether its memory is as it was before it ran.
    clean: bool,
    tree: Tree,
    cwd: Vec<u8>,
    budget: Budget,
    bell: Arc<Bell>,
    buffer: Buffer,
    options: SandboxOptions,
    machine: Arc<Machine>,
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
        check(&options.limits)?;
        let budget = Budget::new(options.limits.memory);
        let mut tree = Tree::new(options.root.as_deref(), &budget, options.limits.open_files)
            .map_err(|source| Error::Root {
                path: options.root.clone().unwrap_or_default(),
                source,
            })?;
        let cwd = enter(&mut tree, &options.cwd).map_err(|source| Error::WorkingDirectory {
            path: options.cwd.to_string_lossy().into_owned(),
            source,
        })?;
        let bell = machine.bells.take();
        let bell = bell.map_err(Error::host("Making an event descriptor"))?;
        Ok(Self {
            loaded: None,
            clean: true,
            tree,
            cwd,
            budget,
            bell,
            buffer: Buffer::default(),
            options,
            machine: Arc::clone(machine),
        })
    }

    /// What it was made with.
    #[must_use]
    pub fn options(&self) -> &SandboxOptions {
        &self.options
    }

    /// Runs a program to its end. Each run begins with memory as if no program had run before;
    /// files that one has written are there for the next, until [`Sandbox::reset`].
    ///
    /// # Errors
    ///
    /// Where the program cannot be loaded, or the host fails. What goes wrong inside of the program
    /// is an outcome.
    pub fn run(&mut self, program: Program, run: Run<'_>) -> Result<Outcome, Error> {
        let start = Instant::now();
        let cpu_start = thread_time();
        let name = program.name.unwrap_or_else(|| name_of(&program.executable));
        let image = self.image(program.executable)?;
        self.budget.reset_peak();
        self.prepare(&image)?;
        let Some(memory) = &mut self.loaded else {
            return Err(Error::Memory {
                limit: self.budget.limit(),
            });
        };
        self.clean = false;

        let mut random = [0; 16];
        fill_randomly(&mut random).map_err(Error::host("Getting random bytes"))?;
        let given = Given {
            name: &name,
            args: &program.args,
            env: program.env.as_deref().unwrap_or(&self.options.env),
            random,
        };
        let (top, bytes) = (memory.stack_top(), memory.stack_bytes());
        let stack = stack::build(&image.elf, &given, top, bytes)
            .map_err(|stack::TooLong { bytes, most }| Error::Arguments { bytes, most })?;
        if stack::write(memory, &stack).is_err() {
            return Err(match memory.take_broken() {
                Some(source) => Error::Platform {
                    doing: "Writing the program's stack",
                    source,
                },
                None => Error::Memory {
                    limit: self.budget.limit(),
                },
            });
        }

        let limits = &self.options.limits;
        let wall = match (limits.wall_time, run.timeout) {
            (Some(limit), Some(timeout)) => Some(limit.min(timeout)),
            (limit, timeout) => limit.or(timeout),
        };
        let deadlines = Deadlines {
            start,
            wall: wall.and_then(|wall| start.checked_add(wall)),
            cpu: limits.cpu_time,
            cpu_start,
        };
        let context = self.machine.platform.new_context();
        self.bell.begin(context.interrupter());
        let cwd = self.tree.base_at(&self.cwd);
        self.tree.set_watch(Some(Watch::new(&self.bell, deadlines)));
        let mut process = Process::new(Parts {
            memory,
            tree: &mut self.tree,
            context,
            registers: Registers {
                rip: image.elf.entry,
                rsp: stack.pointer,
                ..Registers::default()
            },
            descriptors: Descriptors::new(limits.open_files),
            streams: Streams::new(run.stdin, run.stdout, run.stderr, limits.output_bytes),
            deadlines,
            bell: &self.bell,
            alarms: &self.machine.alarms,
            // Not `run.policy`: this makes the reference's lifetime a shorter one.
            policy: match run.policy {
                Some(policy) => Some(policy),
                None => None,
            },
            observer: match run.observer {
                Some(observer) => Some(observer),
                None => None,
            },
            cwd,
            buffer: std::mem::take(&mut self.buffer),
        });
        let result = process.run();
        let outcome = result.map(|ending| outcome(&mut process, &ending, &self.budget));
        let buffer = std::mem::take(&mut process.buffer);
        drop(process);
        self.buffer = buffer;
        self.bell.end();
        self.tree.set_watch(None);
        if let Some(memory) = &mut self.loaded {
            memory.forget_files();
        }
        if outcome.is_err() {
            // Nothing is known of what the failure has left.
            self.loaded = None;
        }
        outcome
    }

    /// What ends a run from outside.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        Interrupter {
            bell: Arc::clone(&self.bell),
        }
    }

    /// Makes the sandbox as it was when it was made: memory and files, and no interrupt is waiting.
    /// Pages that the next run of the same program is likely to write stay where they are, and get
    /// back what was in them.
    ///
    /// # Errors
    ///
    /// Where the platform fails.
    pub fn reset(&mut self) -> Result<(), Error> {
        self.bell.take();
        self.clear_memory()?;
        let cleared = self.tree.clear();
        cleared.map_err(Error::host("Making the first files"))
    }

    fn image(&self, executable: Executable) -> Result<Arc<Image>, Error> {
        let platform = &*self.machine.platform;
        let limit = self.budget.limit();
        let (file, path) = match executable {
            Executable::File(file) => (file, PathBuf::from(UNNAMED)),
            Executable::Path(path) => match self.machine.images.known(&path, limit) {
                Some(image) => return Ok(image),
                None => (open(&path)?, path),
            },
        };
        let image = self.machine.images.get(&file, limit, platform);
        image.map_err(|error| match error {
            LoadError::Elf(source) => Error::Executable { path, source },
            LoadError::Platform(source) => Error::Platform {
                doing: "Loading the program",
                source,
            },
        })
    }

    /// Makes the memory that of a program that has not run yet.
    fn prepare(&mut self, image: &Arc<Image>) -> Result<(), Error> {
        let same = |memory: &ProgramMemory| Arc::ptr_eq(memory.image(), image);
        if !self.loaded.as_ref().is_some_and(same) {
            self.park();
        }
        self.clear_memory()?;
        let stack = self.options.limits.stack;
        if self.loaded.is_none() {
            self.loaded = self.machine.parked.take(image, stack, &self.budget);
        }
        if self.loaded.is_none() {
            let space = self.machine.address_space()?;
            let memory = ProgramMemory::new(
                space,
                &*self.machine.platform,
                &self.machine.pool,
                Arc::clone(image),
                &self.budget,
                stack,
            );
            self.loaded =
                Some(memory.map_err(|failure| self.failed("Loading the program", failure))?);
        }
        self.clean = true;
        Ok(())
    }

    fn clear_memory(&mut self) -> Result<(), Error> {
        if self.clean {
            return Ok(());
        }
        let kept = match &mut self.loaded {
            Some(memory) => memory.reset(),
            None => Ok(false),
        };
        match kept {
            Ok(true) => {}
            Ok(false) => self.unload()?,
            Err(failure) => {
                let error = self.failed("Restoring the program's memory", failure);
                self.unload()?;
                return Err(error);
            }
        }
        self.clean = true;
        Ok(())
    }

    /// Leaves the memory of the program that was run last to other sandboxes, where it can be made
    /// as it was; else to nobody.
    fn park(&mut self) {
        let Some(mut memory) = self.loaded.take() else {
            return;
        };
        // One that cannot be restored is released when it is dropped.
        if memory.take_broken().is_none() && (self.clean || matches!(memory.reset(), Ok(true))) {
            self.machine.parked.put(memory);
        }
        self.clean = true;
    }

    fn unload(&mut self) -> Result<(), Error> {
        match self.loaded.take() {
            Some(memory) => memory
                .release()
                .map_err(Error::platform("Taking a program's memory away")),
            None => Ok(()),
        }
    }

    fn failed(&self, doing: &'static str, failure: Failure) -> Error {
        match failure {
            Failure::Limit => Error::Memory {
                limit: self.budget.limit(),
            },
            Failure::Platform(source) => Error::Platform { doing, source },
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.park();
        self.machine.bells.give_back(&mut self.bell);
    }
}

fn check(limits: &Limits) -> Result<(), Error> {
    let bounds = [
        ("memory", limits.memory, MEMORY),
        ("stack", limits.stack, STACK),
        ("open_files", limits.open_files.into(), FILES),
    ];
    for (name, value, (min, max)) in bounds {
        if !(min..=max).contains(&value) {
            return Err(Error::Limit {
                name,
                value,
                min,
                max,
            });
        }
    }
    if !limits.stack.is_multiple_of(4096) {
        return Err(Error::Limit {
            name: "stack (in whole pages)",
            value: limits.stack,
            min: STACK.0,
            max: STACK.1,
        });
    }
    Ok(())
}

fn enter(tree: &mut Tree, cwd: &CString) -> Result<Vec<u8>, Errno> {
    if cwd.as_bytes() == b"/" {
        return Ok(Vec::new());
    }
    let found = tree.find(&Base::default(), cwd.as_bytes(), true)?;
    if !tree.status(&found)?.is_folder() {
        return Err(Errno::NOTDIR);
    }
    Ok(found.path)
}

fn open(path: &Path) -> Result<File, Error> {
    // Should it be a FIFO, nobody waits for its other end.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = openat(CWD, path, flags, Mode::empty()).map_err(|source| Error::Program {
        path: path.to_owned(),
        source,
    })?;
    Ok(File::from(file))
}

/// The last name: where it is on the host is not the program's business.
fn name_of(executable: &Executable) -> CString {
    let name = match executable {
        Executable::Path(path) => path.file_name().unwrap_or_default(),
        Executable::File(_) => OsStr::new(UNNAMED),
    };
    // A path that was opened has no zero byte.
    CString::new(name.as_bytes()).unwrap_or_default()
}

fn outcome(process: &mut Process<'_>, ending: &Ending, budget: &Budget) -> Outcome {
    let (exit, limit, interrupted) = match ending {
        Ending::Exited(code) => (ExitStatus::Exited(*code), None, false),
        Ending::Signaled(signal) => (ExitStatus::Signaled(*signal), None, false),
        Ending::Limit(limit) => (ExitStatus::Signaled(SIGKILL), Some(*limit), false),
        Ending::Interrupted | Ending::Failed(_) => (ExitStatus::Signaled(SIGKILL), None, true),
    };
    let unsupported = process.unsupported.iter().map(|(number, count)| {
        // Numbers without a name are counted as one.
        let name = system_call_name(*number).unwrap_or("unknown");
        (name.to_owned(), *count)
    });
    let [stdout, stderr] = std::mem::take(&mut process.streams.collected);
    Outcome {
        exit,
        timed_out: limit == Some(Limit::WallTime),
        interrupted,
        limit,
        crash: process.crash,
        cpu_time: process.deadlines.cpu_used(),
        wall_time: process.deadlines.start.elapsed(),
        peak_memory: budget.peak(),
        system_calls: process.calls,
        unsupported: unsupported.collect(),
        stdout,
        stderr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandboxes_and_what_ends_them_go_to_other_threads() {
        fn sendable<T: Send>() {}
        fn shareable<T: Send + Sync>() {}
        sendable::<Sandbox>();
        sendable::<Run<'static>>();
        shareable::<Machine>();
        shareable::<Interrupter>();
    }

    #[test]
    fn limits_are_checked() {
        assert_eq!(check(&Limits::default()), Ok(()));
        let odd = Limits {
            stack: (64 << 10) + 1,
            ..Limits::default()
        };
        assert!(matches!(check(&odd), Err(Error::Limit { .. })));
    }
}
