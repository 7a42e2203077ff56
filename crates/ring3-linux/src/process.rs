//! A running program: what its system calls work on, and running it to its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use microvm_ring3::{Context, Exit, Fault, Registers, Restore, SwitchOptions};
use rustix::event::PollFd;
use rustix::io::Errno;

use crate::buffer::Buffer;
use crate::calls::{int, path_argument, second_path_argument};
use crate::descriptors::Descriptors;
use crate::error::Error;
use crate::files::{Base, Tree};
use crate::interrupt::{Alarms, Bell};
use crate::memory::{Failure, ProgramMemory, Touch};
use crate::names::system_call_name;
use crate::outcome::{Crash, Limit};
use crate::policy::{CallSet, Decision, Observed, Observer, Policy, SystemCall};
use crate::signals::{Cause, SIGSEGV, Signals};
use crate::streams::Streams;
use crate::trace;
use crate::watch::Deadlines;

/// Faults in a row that were nothing: a stale translation ends with the first.
const SPURIOUS: u32 = 64;

/// How a program ended.
#[derive(Debug)]
pub enum Ending {
    Exited(i32),
    Signaled(i32),
    Limit(Limit),
    Interrupted,
    /// It did not: the platform failed.
    Failed(microvm_ring3::Error),
}

/// What a system call comes to when it does not return a number.
#[derive(Debug)]
pub enum Stop {
    Error(Errno),
    End(Ending),
    /// The registers are already those to go on with.
    Resume,
    /// Nobody answers such a call.
    Unsupported,
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Error(errno)
    }
}

/// What a system call comes to.
pub type Answer = Result<u64, Stop>;

/// A running program.
pub struct Process<'run> {
    pub memory: &'run mut ProgramMemory,
    pub tree: &'run mut Tree,
    pub context: Context,
    pub registers: Registers,
    pub descriptors: Descriptors,
    pub streams: Streams<'run>,
    pub signals: Signals,
    pub deadlines: Deadlines,
    pub bell: &'run Arc<Bell>,
    pub alarms: &'run Alarms,
    pub policy: Option<&'run mut dyn Policy>,
    pub observer: Option<&'run mut dyn Observer>,
    /// The folder that it is in.
    pub cwd: Base,
    pub umask: u32,
    pub calls: u64,
    pub unsupported: BTreeMap<u64, u64>,
    pub crash: Option<Crash>,
    /// For bytes on their way.
    pub buffer: Buffer,
    /// For paths.
    pub path: Vec<u8>,
    /// Whether all registers have to be set: the program is not behind a system call.
    pub full: bool,
    spurious: u32,
}

/// What a process is made of.
pub struct Parts<'run> {
    pub memory: &'run mut ProgramMemory,
    pub tree: &'run mut Tree,
    pub context: Context,
    pub registers: Registers,
    pub descriptors: Descriptors,
    pub streams: Streams<'run>,
    pub deadlines: Deadlines,
    pub bell: &'run Arc<Bell>,
    pub alarms: &'run Alarms,
    pub policy: Option<&'run mut dyn Policy>,
    pub observer: Option<&'run mut dyn Observer>,
    pub cwd: Base,
    pub buffer: Buffer,
}

impl<'run> Process<'run> {
    pub fn new(parts: Parts<'run>) -> Self {
        Self {
            memory: parts.memory,
            tree: parts.tree,
            context: parts.context,
            registers: parts.registers,
            descriptors: parts.descriptors,
            streams: parts.streams,
            signals: Signals::default(),
            deadlines: parts.deadlines,
            bell: parts.bell,
            alarms: parts.alarms,
            policy: parts.policy,
            observer: parts.observer,
            cwd: parts.cwd,
            umask: 0o022,
            calls: 0,
            unsupported: BTreeMap::new(),
            crash: None,
            buffer: parts.buffer,
            path: Vec::new(),
            full: true,
            spurious: 0,
        }
    }

    /// Runs it to its end.
    pub fn run(&mut self) -> Result<Ending, Error> {
        let wanted = self
            .policy
            .as_ref()
            .map_or_else(CallSet::none, |policy| policy.wanted());
        let space = Arc::clone(self.memory.space());
        let mut alarm = self.arm()?;
        if let Err(ending) = self.look() {
            return self.ended(ending);
        }
        loop {
            let restore = if self.full {
                Restore::Full
            } else {
                Restore::Partial
            };
            let options = SwitchOptions {
                restore,
                timeout: None,
            };
            self.full = true;
            let stop = match self.context.switch(&space, &mut self.registers, options) {
                Ok(Exit::SystemCall) => {
                    self.full = false;
                    self.spurious = 0;
                    self.system_call(&wanted)
                }
                Ok(Exit::Fault(fault)) => self.fault(fault),
                Ok(Exit::BusError { address }) => self.raise(&Cause::gone(address.unwrap_or(0))),
                Ok(Exit::Interrupted | Exit::TimedOut) => {
                    drop(alarm.take());
                    match self.look() {
                        Ok(()) => {
                            alarm = self.arm()?;
                            Ok(())
                        }
                        Err(ending) => Err(ending),
                    }
                }
                Ok(_) => Err(Ending::Failed(microvm_ring3::Error::Stopped {
                    reason: "an exit of an unknown kind".to_owned(),
                })),
                // What its signal handler's frame had in it is the program's own fault.
                Err(microvm_ring3::Error::ExtendedState { .. }) => Err(Ending::Signaled(SIGSEGV)),
                Err(error) => Err(Ending::Failed(error)),
            };
            let stop = stop.and_then(|()| match self.memory.take_broken() {
                Some(error) => Err(Ending::Failed(error)),
                None => self.deliver_pending(),
            });
            if let Err(ending) = stop {
                return self.ended(ending);
            }
        }
    }

    fn ended(&mut self, ending: Ending) -> Result<Ending, Error> {
        match ending {
            Ending::Failed(source) => Err(Error::Platform {
                doing: "Running the program",
                source,
            }),
            ending => {
                if let (Some(observer), Some(line)) = (&mut self.observer, trace::ending(&ending)) {
                    observer.observe(&Observed {
                        call: SystemCall {
                            number: u64::MAX,
                            args: [0; 6],
                            path: None,
                            second_path: None,
                            until: self.deadlines.wall,
                        },
                        result: None,
                        line: &line,
                    });
                }
                Ok(ending)
            }
        }
    }

    fn arm(&self) -> Result<Option<crate::interrupt::Armed<'run>>, Error> {
        let next = self.deadlines.next();
        next.map(|instant| self.alarms.arm(instant, self.bell))
            .transpose()
            .map_err(Error::host("Starting the thread that ends runs in time"))
    }

    /// Whether the run is to end now.
    pub fn look(&mut self) -> Result<(), Ending> {
        if self.bell.take() {
            return Err(Ending::Interrupted);
        }
        match self.deadlines.over() {
            Some(limit) => Err(Ending::Limit(limit)),
            None => Ok(()),
        }
    }

    /// Waits until one of these is ready or the time is over; the run may end meanwhile.
    pub fn wait<'fd>(
        &mut self,
        fds: &mut Vec<PollFd<'fd>>,
        until: Option<Instant>,
    ) -> Result<(), Stop>
    where
        'run: 'fd,
    {
        let bell: &'run Arc<Bell> = self.bell;
        loop {
            let end = match (until, self.deadlines.wall) {
                (Some(until), Some(wall)) => Some(until.min(wall)),
                (until, wall) => until.or(wall),
            };
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            bell.wait(fds, left);
            let ready = fds.iter().any(|fd| !fd.revents().is_empty());
            self.look().map_err(Stop::End)?;
            let over = until.is_some_and(|until| Instant::now() >= until);
            if ready || over {
                return Ok(());
            }
        }
    }

    fn system_call(&mut self, wanted: &CallSet) -> Result<(), Ending> {
        self.calls += 1;
        let registers = &self.registers;
        let number = u64::from(int(registers.rax));
        let args = [
            registers.rdi,
            registers.rsi,
            registers.rdx,
            registers.r10,
            registers.r8,
            registers.r9,
        ];
        let answer = if wanted.contains(number) {
            self.decide(number, args)
        } else {
            self.call(number, args)
        };
        let result = match answer {
            Ok(value) => Ok(Some(value.cast_signed())),
            // Work that took long was broken off, for this.
            Err(Stop::Error(Errno::INTR)) => {
                let errno = -i64::from(Errno::INTR.raw_os_error());
                self.look().map(|()| Some(errno))
            }
            Err(Stop::Error(errno)) => Ok(Some(-i64::from(errno.raw_os_error()))),
            Err(Stop::Unsupported) => {
                // Numbers are the program's choice; those without a name count as one.
                let key = system_call_name(number).map_or(u64::MAX, |_| number);
                let count = self.unsupported.entry(key).or_default();
                *count = count.saturating_add(1);
                Ok(Some(-i64::from(Errno::NOSYS.raw_os_error())))
            }
            Err(Stop::Resume) => Ok(None),
            Err(Stop::End(ending)) => Err(ending),
        };
        if self.observer.is_some() {
            self.observe(number, args, result.as_ref().ok().copied().flatten());
        }
        if let Some(value) = result? {
            self.registers.rax = value.cast_unsigned();
        }
        Ok(())
    }

    fn decide(&mut self, number: u64, args: [u64; 6]) -> Answer {
        let (path, second) = self.paths_of(number, args);
        let Some(policy) = &mut self.policy else {
            return self.call(number, args);
        };
        let call = SystemCall {
            number,
            args,
            path: path.then_some(self.path.as_slice()),
            second_path: second.as_deref(),
            until: self.deadlines.wall,
        };
        let decision = policy.decide(&call);
        // It may have taken any time, and the program is not to run on after its own.
        self.look().map_err(Stop::End)?;
        match decision {
            Decision::Allow => self.call(number, args),
            Decision::Deny(errno) if (1..4096).contains(&errno) => {
                Ok((-i64::from(errno)).cast_unsigned())
            }
            Decision::Deny(_) => Err(Errno::PERM.into()),
            Decision::Answer(value) => Ok(value.cast_unsigned()),
        }
    }

    /// Reads the paths of a call: whether it has a first one, and its second one.
    fn paths_of(&mut self, number: u64, args: [u64; 6]) -> (bool, Option<Vec<u8>>) {
        let mut read = |index: Option<usize>, path: &mut Vec<u8>| {
            let address = index.and_then(|index| args.get(index).copied());
            address.is_some_and(|address| self.memory.read_string(address, path).is_ok())
        };
        let first = read(path_argument(number), &mut self.path);
        let mut second = Vec::new();
        let has_second = read(second_path_argument(number), &mut second);
        (first, has_second.then_some(second))
    }

    fn observe(&mut self, number: u64, args: [u64; 6], result: Option<i64>) {
        let line = trace::line(self.memory, number, args, result);
        let (path, second) = self.paths_of(number, args);
        let Some(observer) = &mut self.observer else {
            return;
        };
        observer.observe(&Observed {
            call: SystemCall {
                number,
                args,
                path: path.then_some(self.path.as_slice()),
                second_path: second.as_deref(),
                until: self.deadlines.wall,
            },
            result,
            line: &line,
        });
    }

    fn fault(&mut self, fault: Fault) -> Result<(), Ending> {
        let (Some(address), Some(access)) = (fault.address, fault.access()) else {
            return self.raise(&Cause::exception(&fault, self.registers.rip));
        };
        match self.memory.touch(address, access) {
            Ok(Touch::Mapped) => {
                self.spurious = 0;
                Ok(())
            }
            Ok(Touch::There) if self.spurious < SPURIOUS => {
                self.spurious += 1;
                Ok(())
            }
            Ok(Touch::There | Touch::Forbidden) => self.raise(&Cause::page(&fault, true)),
            Ok(Touch::Nothing) => self.raise(&Cause::page(&fault, false)),
            Ok(Touch::Gone) => self.raise(&Cause::gone(address)),
            Err(Failure::Limit) => Err(Ending::Limit(Limit::Memory)),
            Err(Failure::Platform(error)) => Err(Ending::Failed(error)),
        }
    }
}
