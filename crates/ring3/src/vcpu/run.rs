//! Entering ring 3, and telling why it was left.

use kvm_bindings::{KVM_SYNC_X86_REGS, kvm_regs, kvm_sregs};
use microvm_kvm::Exit as KvmExit;

use super::Vcpu;
use crate::error::Error;
use crate::layout::*;
use crate::registers::{Fault, Registers, Restore, user_flags};
use crate::traits::SyscallEntry;

/// `EFAULT` and `EHWPOISON`.
const EFAULT: i32 = 14;
const EHWPOISON: i32 = 133;

/// Runs that may be needed until KVM has done with what it began; more than any kernel takes.
const COMPLETIONS: usize = 16;

/// Why a run ended.
#[derive(Debug)]
pub enum Stop {
    /// With a system call; the registers were handed over.
    SystemCall,
    /// With an exception; the registers were handed over.
    Fault(Fault),
    /// The host has no memory at a place; its guest physical address, where that is known.
    BusError(Box<Registers>, Option<u64>),
    /// By a signal or a request, between two instructions of the program.
    Interrupted(Box<Registers>),
    /// As before, but before the program's first instruction: its registers are as they were.
    NotEntered,
    /// As before, in the middle of a stub: only running on tells what the program wants.
    Unfinished,
}

/// Why KVM came back, as far as it matters here.
enum Reason {
    /// One byte written to the port of the stubs.
    Stub,
    /// Any other use of a port.
    Port,
    Interrupted,
    /// Memory is gone; its guest physical address, where that is known.
    Memory(Option<u64>),
}

impl Vcpu {
    /// Makes the next run begin with these registers.
    pub fn start(&mut self, registers: &Registers, restore: Restore) {
        // In place: they are copied often enough.
        let regs = &mut self.runner.synced().regs;
        registers.store(regs);
        if restore == Restore::Partial {
            regs.rcx = regs.rip;
            regs.r11 = regs.rflags;
        }
        if !self.in_ring3 {
            let stubs = kernel_address(STUB_PAGE);
            match restore {
                Restore::Full => {
                    let (rip, rflags, rsp) = (regs.rip, regs.rflags, regs.rsp);
                    regs.rsp = self.kernel.write_frame(self.id, rip, rflags, rsp);
                    regs.rip = stubs + IRET_STUB;
                }
                Restore::Partial => regs.rip = stubs + SYSRET_STUB,
            }
            regs.rflags = 2;
        }
        self.runner.sync_before_run(KVM_SYNC_X86_REGS.into());
    }

    /// Runs until something stops it, and hands over the registers where the program stopped by
    /// itself. After an error nothing of the run is left in it, or else it is retired.
    pub fn run(&mut self, registers: &mut Registers) -> Result<Stop, Error> {
        self.pristine = false;
        self.queued = None;
        let stop = self
            .enter()
            .and_then(|reason| self.stopped(&reason, registers));
        if stop.is_err() {
            self.give_up();
        }
        stop
    }

    fn enter(&mut self) -> Result<Reason, Error> {
        let exit = match self.runner.run_to_port(PORT.into()) {
            Ok(None) => return Ok(Reason::Stub),
            Ok(Some(exit)) => exit,
            Err(error) if matches!(error.errno(), EFAULT | EHWPOISON) => {
                return Ok(Reason::Memory(None));
            }
            Err(error) => return Err(Error::kvm("Running the guest")(error)),
        };
        match exit {
            KvmExit::IoOut { .. } | KvmExit::IoIn { .. } => Ok(Reason::Port),
            KvmExit::Interrupted => Ok(Reason::Interrupted),
            KvmExit::MemoryFault { address, .. } => Ok(Reason::Memory(Some(address))),
            exit => Err(Error::Stopped {
                reason: format!("{exit:?}"),
            }),
        }
    }

    fn stopped(&mut self, reason: &Reason, registers: &mut Registers) -> Result<Stop, Error> {
        match *reason {
            Reason::Stub => self.stub(registers),
            Reason::Port => Ok(self.port_access(registers)),
            Reason::Interrupted => self.interrupted(),
            Reason::Memory(address) => self.bus_error(address),
        }
    }

    /// What a stub's `out` means. Its RIP is at the instruction or behind it, as the host likes.
    fn stub(&mut self, registers: &mut Registers) -> Result<Stop, Error> {
        let synced = self.runner.synced();
        let rip = synced.regs.rip;
        let offset = rip.wrapping_sub(kernel_address(STUB_PAGE));
        if offset < SYSCALL_STUB + 4 {
            self.in_ring3 = false;
            return Ok(system_call(&synced.regs, registers));
        }
        if offset < microvm_kvm::PAGE_SIZE {
            self.in_ring3 = false;
            let vector = offset.wrapping_sub(EXCEPTION_STUBS) / EXCEPTION_STUB_BYTES;
            return self.exception(vector, registers);
        }
        if rip.wrapping_sub(LOWER_STUB) < 4 && self.entry == SyscallEntry::Ring3 {
            self.in_ring3 = is_ring3(&synced.sregs);
            return Ok(system_call(&synced.regs, registers));
        }
        Ok(self.port_access(registers))
    }

    /// A program that uses a port is as wrong as it is on any operating system. Only a host whose
    /// system calls stay in ring 3, or that ignores what the task state segment says, gets here.
    fn port_access(&mut self, registers: &mut Registers) -> Stop {
        *registers = Registers::from_kvm(&self.runner.synced().regs);
        if !self.complete() {
            self.retire();
        }
        // The access may have changed registers, or raised an exception in the end.
        self.abandon();
        let fault = Fault {
            vector: GENERAL_PROTECTION_VECTOR,
            error_code: 0,
            address: None,
        };
        Stop::Fault(fault)
    }

    /// Ends what the last exit left for the next run, which may be another context's: the rest of
    /// a string instruction would write to its memory and its registers. What is read is zeros.
    /// Tells whether nothing is left.
    ///
    /// A long string instruction comes back after each part of it, so that its count need not be
    /// cut down, which KVM does not support in the middle of one.
    fn complete(&mut self) -> bool {
        for _ in 0..COMPLETIONS {
            match self.runner.last_exit() {
                Ok(KvmExit::IoIn { data, .. } | KvmExit::MmioRead { data, .. }) => data.fill(0),
                Ok(_) => {}
                Err(_) => return false,
            }
            match self.runner.complete_exit() {
                Ok(KvmExit::Interrupted) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        false
    }

    fn exception(&mut self, vector: u64, registers: &mut Registers) -> Result<Stop, Error> {
        let mut regs = self.runner.synced().regs;
        let mut below = STACK_TOP - 40;
        let mut fault = Fault {
            vector: u8::try_from(vector).unwrap_or(u8::MAX),
            error_code: 0,
            address: None,
        };
        let word = |offset| self.kernel.read_stack(self.id, offset);
        let frame = [below, below + 8, below + 16, below + 24].map(word);
        let [rip, cs, rflags, rsp] = frame;
        if has_error_code(vector) {
            below -= 8;
            fault.error_code = u32::try_from(word(below) & 0xffff_ffff).unwrap_or(0);
        }
        if fault.vector == PAGE_FAULT_VECTOR {
            regs.rax = word(below - 8);
            fault.address = Some(word(below - 16));
        }
        if cs & 3 == 0 {
            let stub = rip.wrapping_sub(kernel_address(STUB_PAGE));
            if stub < SYSCALL_STUB + 4 || rip.wrapping_sub(LOWER_STUB) < 4 {
                // The entry point is closed to the level that this host has chosen, or a debug exception that a system call outran; the call is what counts.
                return Ok(system_call(&regs, registers));
            }
            let reason = format!("exception {vector} at {rip:#x} in a stub");
            return Err(Error::Stopped { reason });
        }
        regs.rip = rip;
        regs.rflags = rflags;
        regs.rsp = rsp;
        *registers = Registers::from_kvm(&regs);
        Ok(Stop::Fault(fault))
    }

    /// How far behind the `out` of a stub RIP was at the last exit.
    pub fn rip_in_stub(&mut self) -> u64 {
        let rip = self.runner.synced().regs.rip;
        let stub = match self.entry {
            SyscallEntry::Ring0 => kernel_address(STUB_PAGE) + SYSCALL_STUB,
            SyscallEntry::Ring3 => LOWER_STUB,
        };
        rip.wrapping_sub(stub)
    }

    /// Finds out where a signal or a request has stopped it.
    fn interrupted(&mut self) -> Result<Stop, Error> {
        let vcpu = self.runner.vcpu();
        let failed = Error::kvm("Reading the registers");
        let sregs = vcpu.get_sregs().map_err(&failed)?;
        let events = vcpu.get_vcpu_events().map_err(&failed)?;
        let regs = vcpu.get_regs().map_err(&failed)?;
        if events.exception.injected != 0 || events.exception.pending != 0 {
            return Ok(Stop::Unfinished);
        }
        if is_ring3(&sregs) {
            let in_stub = self.entry == SyscallEntry::Ring3
                && regs.rip.wrapping_sub(LOWER_STUB) < microvm_kvm::PAGE_SIZE;
            if in_stub {
                return Ok(Stop::Unfinished);
            }
            self.in_ring3 = true;
            return Ok(Stop::Interrupted(Box::new(Registers::from_kvm(&regs))));
        }
        let stubs = kernel_address(STUB_PAGE);
        if regs.rip == stubs + IRET_STUB || regs.rip == stubs + SYSRET_STUB {
            return Ok(Stop::NotEntered);
        }
        Ok(Stop::Unfinished)
    }

    fn bus_error(&mut self, address: Option<u64>) -> Result<Stop, Error> {
        match self.interrupted()? {
            Stop::Interrupted(registers) => Ok(Stop::BusError(registers, address)),
            _ => Err(Error::Stopped {
                reason: "memory of a stub is gone".to_owned(),
            }),
        }
    }

    /// Saves what can be saved after a run that went wrong.
    fn give_up(&mut self) {
        if self.complete() {
            self.evict(None);
        } else {
            self.retire();
        }
        self.abandon();
        self.use_tables(None);
    }

    /// Sees that nobody uses it again.
    fn retire(&mut self) {
        self.evict(None);
        self.retired = true;
    }
}

/// Whether the processor is in ring 3 by all that tells it.
fn is_ring3(sregs: &kvm_sregs) -> bool {
    sregs.cs.selector & 3 == 3 && sregs.ss.dpl == 3
}

fn system_call(regs: &kvm_regs, registers: &mut Registers) -> Stop {
    *registers = Registers::from_kvm(regs);
    registers.rip = regs.rcx;
    registers.rflags = user_flags(regs.r11);
    registers.r11 = registers.rflags;
    Stop::SystemCall
}
