//! A thread of a program: what is left of its processor when it does not run, and running it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::address_space::AddressSpace;
use crate::error::Error;
use crate::extended::{Extended, Values};
use crate::interrupts::{Interrupts, Request};
use crate::layout::{GENERAL_PROTECTION_VECTOR, LOWER_HALF_END};
use crate::machine::Machine;
use crate::pool::Taken;
use crate::registers::{Exit, Fault, Registers, Restore, SegmentBases};
use crate::vcpu::{Stop, Vcpu};

/// How a switch is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwitchOptions {
    /// How registers are set. Default: all of them.
    pub restore: Restore,
    /// How long the switch may take, the wait for a vCPU included. Default: as long as it likes.
    pub timeout: Option<Duration>,
}

/// A thread of a program.
///
/// It keeps what the caller has no use for most of the time: segment bases and the extended state
/// (x87, SSE, AVX), which stay as they are from one switch to the next, whichever vCPU runs it.
#[derive(Debug)]
pub struct Context {
    machine: Arc<Machine>,
    extended: Arc<Extended>,
    interrupts: Arc<Interrupts>,
}

/// Interrupts a context, from any thread; clones reach the same context.
#[derive(Clone, Debug)]
pub struct Interrupter {
    interrupts: Arc<Interrupts>,
}

impl Interrupter {
    /// Ends the switch that is under way with [`Exit::Interrupted`], or else the next one, which
    /// then returns at once. Interrupts that come before one has ended a switch count as one. An
    /// interrupt is never lost: where the switch ends by something else, it ends the next one.
    ///
    /// # Errors
    ///
    /// Where the thread that runs the context cannot be signalled (`tgkill`).
    pub fn interrupt(&self) -> Result<(), Error> {
        self.interrupts
            .interrupt()
            .map_err(Error::kvm("Interrupting a context"))
    }

    /// Takes back an interrupt that has not ended a switch, and tells whether there was one. For
    /// callers whose switch ended by itself at the moment in which they interrupted it.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        self.interrupts.withdraw()
    }
}

impl Context {
    pub(crate) fn new(machine: Arc<Machine>) -> Self {
        Self {
            machine,
            extended: Arc::default(),
            interrupts: Arc::default(),
        }
    }

    /// What interrupts this context.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        Interrupter {
            interrupts: Arc::clone(&self.interrupts),
        }
    }

    /// Runs the program with these registers in this address space until it wants something or is
    /// stopped; `registers` are then those that it was left with. Waits for a vCPU while all are
    /// busy, in turn with others; an interrupt or the end of the time ends the wait too.
    ///
    /// An instruction pointer that is not in the lower half is a general protection fault, as it
    /// is where a processor returns to it.
    ///
    /// # Errors
    ///
    /// [`Error::OtherMachine`], [`Error::Released`], [`Error::StateLost`], or where KVM fails.
    /// `registers` are as before then.
    pub fn switch(
        &mut self,
        space: &AddressSpace,
        registers: &mut Registers,
        options: SwitchOptions,
    ) -> Result<Exit, Error> {
        if !Arc::ptr_eq(space.machine(), &self.machine) {
            return Err(Error::OtherMachine);
        }
        if registers.rip >= LOWER_HALF_END {
            if self.interrupts.take() {
                return Ok(Exit::Interrupted);
            }
            return Ok(Exit::Fault(Fault {
                vector: GENERAL_PROTECTION_VECTOR,
                error_code: 0,
                address: None,
            }));
        }
        let deadline = options
            .timeout
            .and_then(|time| Instant::now().checked_add(time));
        let Some(deadline) = deadline else {
            return self.take_and_run(space, registers, options.restore);
        };
        let deadline = self.machine.timer.arm(deadline, &self.interrupts)?;
        let result = self.take_and_run(space, registers, options.restore);
        self.machine.timer.disarm(deadline);
        self.interrupts.forget_timeout();
        result
    }

    fn take_and_run(
        &self,
        space: &AddressSpace,
        registers: &mut Registers,
        restore: Restore,
    ) -> Result<Exit, Error> {
        let resident = self.extended.resident();
        let mut vcpu = loop {
            match self.machine.take_vcpu(resident, &self.interrupts)? {
                Taken::Vcpu(vcpu) => break vcpu,
                Taken::Ended(request) => {
                    if let Some(exit) = exit_of(request) {
                        return Ok(exit);
                    }
                }
            }
        };
        // First of all: another vCPU's holder may wait for it.
        vcpu.evict(Some(&self.extended));
        let result = match exit_of(self.interrupts.begin(vcpu.id, vcpu.immediate_exit())) {
            Some(exit) => Ok(exit),
            None => {
                let result = self.run(&mut vcpu, space, registers, restore);
                self.interrupts.end();
                result
            }
        };
        self.machine.pool.put(vcpu);
        result
    }

    fn run(
        &self,
        vcpu: &mut Vcpu,
        address_space: &AddressSpace,
        registers: &mut Registers,
        restore: Restore,
    ) -> Result<Exit, Error> {
        let space = address_space.space();
        vcpu.load(&self.extended, space)?;
        vcpu.start(registers, restore);
        loop {
            if let Err(error) = space.gate().enter() {
                // The run before may have been in the middle of a stub or of an exception.
                vcpu.abandon();
                return Err(error);
            }
            let stop = vcpu.run(registers);
            space.gate().leave();
            match stop? {
                Stop::SystemCall => return Ok(Exit::SystemCall),
                Stop::Fault(fault) => return Ok(Exit::Fault(fault)),
                Stop::BusError(now, physical) => {
                    *registers = *now;
                    let address = physical.and_then(|physical| address_space.find(physical));
                    return Ok(Exit::BusError { address });
                }
                Stop::Interrupted(now) => {
                    if let Some(exit) = exit_of(self.interrupts.request()) {
                        *registers = *now;
                        return Ok(exit);
                    }
                }
                Stop::NotEntered => {
                    if let Some(exit) = exit_of(self.interrupts.request()) {
                        return Ok(exit);
                    }
                }
                Stop::Unfinished => {}
            }
        }
    }

    /// Reads the segment bases.
    ///
    /// # Errors
    ///
    /// [`Error::StateLost`], once.
    pub fn segment_bases(&mut self) -> Result<SegmentBases, Error> {
        Ok(self.values()?.bases)
    }

    /// Sets the segment bases.
    ///
    /// # Errors
    ///
    /// [`Error::StateLost`], once; [`Error::Range`] where a base is in neither half of the address
    /// space.
    pub fn set_segment_bases(&mut self, bases: SegmentBases) -> Result<(), Error> {
        for base in [bases.fs, bases.gs] {
            // Programs have no use for the upper half, where processors allow it too.
            if base >= LOWER_HALF_END {
                return Err(Error::Range {
                    address: base,
                    length: 0,
                    min: 0,
                    max: LOWER_HALF_END,
                });
            }
        }
        let mut values = self.values()?;
        values.bases = bases;
        self.extended.save(Ok(values));
        Ok(())
    }

    /// Reads the extended state, in the layout of XSAVE; empty where it is that of a reset.
    ///
    /// # Errors
    ///
    /// [`Error::StateLost`], once.
    pub fn extended_state(&mut self) -> Result<Vec<u8>, Error> {
        let values = self.values()?;
        Ok(values
            .xsave
            .as_ref()
            .map_or_else(Vec::new, microvm_kvm::xsave_to_bytes))
    }

    /// Sets the extended state, as [`Context::extended_state`] read it. What the processor refuses
    /// is an error of the next switch.
    ///
    /// # Errors
    ///
    /// [`Error::StateLost`], once; [`Error::ExtendedState`] for a wrong length.
    pub fn set_extended_state(&mut self, state: &[u8]) -> Result<(), Error> {
        let length = state.len();
        let mut values = self.values()?;
        values.xsave = if state.is_empty() {
            None
        } else {
            let xsave = microvm_kvm::xsave_from_bytes(state);
            Some(xsave.map_err(|_| Error::ExtendedState { length })?)
        };
        self.extended.save(Ok(values));
        Ok(())
    }

    /// The state that is not in the caller's hands, taken out of the vCPU that has it.
    fn values(&mut self) -> Result<Values, Error> {
        if let Some(id) = self.extended.resident()
            && let Some(mut vcpu) = self.machine.pool.take_idle(id)
        {
            vcpu.evict(None);
            self.machine.pool.put(vcpu);
        }
        // Whoever has the vCPU now is about to save it.
        Ok(self.extended.values(None)?.unwrap_or_default())
    }
}

/// How a switch ends by a request.
fn exit_of(request: Request) -> Option<Exit> {
    match request {
        Request::Interrupt => Some(Exit::Interrupted),
        Request::Timeout => Some(Exit::TimedOut),
        Request::Other => None,
    }
}
