//! A vCPU as the platform uses it: what is loaded in it, entering ring 3, and telling why it left.

use std::sync::Arc;

use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS, Xsave, kvm_mp_state,
    kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcr, kvm_xcrs,
};
use microvm_kvm::{Exit as KvmExit, ImmediateExit, VirtualCpuRunner, VirtualMachine};

use crate::error::Error;
use crate::extended::{Extended, Values, reset, whole};
use crate::global::Global;
use crate::kernel::Kernel;
use crate::layout::*;
use crate::registers::{Fault, Registers, Restore, SegmentBases, user_flags};
use crate::space::Space;
use crate::traits::SyscallEntry;

/// `EFAULT` and `EHWPOISON`, and an interrupted call.
const EFAULT: i32 = 14;
const EHWPOISON: i32 = 133;
const EINTR: i32 = 4;

/// Why a run ended.
#[derive(Debug)]
pub enum Stop {
    /// With a system call.
    SystemCall(Registers),
    /// With an exception.
    Fault(Registers, Fault),
    /// The host has no memory at a place; its guest physical address, where that is known.
    BusError(Registers, Option<u64>),
    /// By a signal or a request, between two instructions of the program.
    Interrupted(Registers),
    /// As before, but before the program's first instruction: its registers are as they were.
    NotEntered,
    /// As before, in the middle of a stub: only running on tells what the program wants.
    Unfinished,
}

/// A vCPU; whoever has it owns it.
#[derive(Debug)]
pub struct Vcpu {
    pub id: u64,
    /// The thread that used it last.
    pub thread: u64,
    runner: VirtualCpuRunner,
    exit: ImmediateExit,
    kernel: Arc<Kernel>,
    entry: SyscallEntry,
    /// Special registers in ring 3, but for CR3 and the segment bases.
    template: kvm_sregs,
    /// The extended state after a reset.
    clean: Arc<Xsave>,
    /// Whether the extended state is still that of a reset.
    pristine: bool,
    /// Whose extended state is loaded.
    resident: Option<Arc<Extended>>,
    /// Whose page tables are loaded.
    space: Option<Arc<Space>>,
    /// Segment bases that the next run sets.
    queued: Option<SegmentBases>,
    /// Whether the processor is in ring 3, and not in a stub.
    in_ring3: bool,
    /// Whether KVM gave up on it, so that all state has to be set anew.
    broken: bool,
}

impl Vcpu {
    pub fn new(
        vm: &VirtualMachine,
        id: u64,
        kernel: &Arc<Kernel>,
        entry: SyscallEntry,
        global: &Global,
    ) -> Result<Self, Error> {
        let failed = Error::kvm("Creating a vCPU");
        let vcpu = vm.create_vcpu(id).map_err(&failed)?;
        vcpu.set_cpuid2(global.cpuid).map_err(&failed)?;
        let initial = vcpu.get_sregs().map_err(&failed)?;
        let template = kernel.sregs(id, &initial, global.features);
        // Components can only be enabled once the control register says so.
        vcpu.set_sregs(&template).map_err(&failed)?;
        if global.components != 0 {
            let mut xcrs = kvm_xcrs {
                nr_xcrs: 1,
                ..Default::default()
            };
            if let Some(first) = xcrs.xcrs.first_mut() {
                *first = kvm_xcr {
                    value: global.components,
                    ..Default::default()
                };
            }
            vcpu.set_xcrs(&xcrs).map_err(&failed)?;
        }
        let clean = Arc::new(reset(&vcpu.get_xsave().map_err(&failed)?));
        let mut runner = vcpu.into_runner().map_err(&failed)?;
        runner.sync_after_runs(match entry {
            SyscallEntry::Ring0 => KVM_SYNC_X86_REGS.into(),
            // Such a host changes the privilege level after all when it emulates a system call,
            // as it does where the stack pointer is in neither half: that has to be looked at.
            SyscallEntry::Ring3 => (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS).into(),
        });
        let vcpu = Self {
            id,
            thread: 0,
            exit: runner.immediate_exit(),
            runner,
            kernel: Arc::clone(kernel),
            entry,
            template,
            clean,
            pristine: true,
            resident: None,
            space: None,
            queued: None,
            in_ring3: false,
            broken: false,
        };
        vcpu.set_msrs().map_err(&failed)?;
        Ok(vcpu)
    }

    /// The handle that ends its runs.
    pub fn immediate_exit(&self) -> &ImmediateExit {
        &self.exit
    }

    fn set_msrs(&self) -> Result<(), microvm_kvm::Error> {
        let upper = kernel_address(STUB_PAGE) + SYSCALL_STUB;
        let target = match self.entry {
            SyscallEntry::Ring0 => upper,
            SyscallEntry::Ring3 => LOWER_STUB,
        };
        let star = u64::from(USER_BASE) << 48 | u64::from(KERNEL_CODE) << 32;
        let entries = [
            (MSR_STAR, star),
            (MSR_LSTAR, target),
            (MSR_CSTAR, upper),
            (MSR_SYSCALL_MASK, SYSCALL_MASK),
        ];
        let entries = entries.map(|(index, data)| kvm_msr_entry {
            index,
            data,
            ..Default::default()
        });
        self.runner.vcpu().set_msrs(&entries)
    }

    /// Saves the state of the context that is loaded, unless that is `next`. Comes before anything
    /// that waits: another vCPU's holder may wait for this.
    pub fn evict(&mut self, next: Option<&Arc<Extended>>) {
        if let (Some(resident), Some(next)) = (&self.resident, next)
            && Arc::ptr_eq(resident, next)
        {
            return;
        }
        let Some(resident) = self.resident.take() else {
            return;
        };
        // Nobody is left to ask for it.
        if Arc::strong_count(&resident) > 1 {
            let values = self.values();
            resident.save(values);
        }
    }

    /// Forgets page tables that were released, so that they can be used again.
    pub fn drop_released(&mut self) {
        if self.space.as_ref().is_some_and(|space| space.is_released()) {
            self.space = None;
        }
    }

    fn values(&self) -> Result<Values, microvm_kvm::Error> {
        Ok(Values {
            bases: self.bases()?,
            xsave: Some(self.runner.vcpu().get_xsave()?),
        })
    }

    fn bases(&self) -> Result<SegmentBases, microvm_kvm::Error> {
        if let Some(bases) = self.queued {
            return Ok(bases);
        }
        let sregs = self.runner.vcpu().get_sregs()?;
        Ok(SegmentBases {
            fs: sregs.fs.base,
            gs: sregs.gs.base,
        })
    }

    /// Makes the next run one of this context in this address space.
    pub fn load(&mut self, context: &Arc<Extended>, space: &Arc<Space>) -> Result<(), Error> {
        self.evict(Some(context));
        if self.broken {
            self.mend()?;
        }
        let here = self.resident.is_some();
        if here
            && self
                .space
                .as_ref()
                .is_some_and(|old| Arc::ptr_eq(old, space))
        {
            return Ok(());
        }
        let bases = if here {
            self.bases()
                .map_err(Error::kvm("Reading the segment bases"))?
        } else {
            let values = context.values(Some(self.id))?.unwrap_or_default();
            if values.xsave.is_some() || !self.pristine {
                let xsave = values.xsave.as_ref().unwrap_or(&self.clean);
                self.pristine = false;
                let xsave = whole(xsave);
                self.runner
                    .vcpu()
                    .set_xsave(&xsave)
                    .map_err(|error| match &values.xsave {
                        Some(state) => Error::ExtendedState {
                            length: microvm_kvm::xsave_to_bytes(state).len(),
                        },
                        None => Error::kvm("Resetting the extended state")(error),
                    })?;
            }
            values.bases
        };
        let mut sregs = self.template;
        sregs.cr3 = space.root();
        sregs.fs.base = bases.fs;
        sregs.gs.base = bases.gs;
        self.runner.synced().sregs = sregs;
        self.runner.sync_before_run(KVM_SYNC_X86_SREGS.into());
        self.queued = Some(bases);
        self.in_ring3 = true;
        self.space = Some(Arc::clone(space));
        if !here {
            context.loaded(self.id);
            self.resident = Some(Arc::clone(context));
        }
        Ok(())
    }

    fn mend(&mut self) -> Result<(), Error> {
        let failed = Error::kvm("Resetting a vCPU");
        self.space = None;
        let vcpu = self.runner.vcpu();
        vcpu.set_vcpu_events(&kvm_vcpu_events::default())
            .map_err(&failed)?;
        let runnable = kvm_mp_state {
            mp_state: KVM_MP_STATE_RUNNABLE,
        };
        vcpu.set_mp_state(runnable).map_err(&failed)?;
        self.set_msrs().map_err(&failed)?;
        self.broken = false;
        Ok(())
    }

    /// Makes the next run begin with these registers.
    pub fn start(&mut self, registers: &Registers, restore: Restore) {
        let mut regs = registers.to_kvm();
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
        self.runner.synced().regs = regs;
        self.runner.sync_before_run(KVM_SYNC_X86_REGS.into());
    }

    /// Runs until something stops it.
    pub fn run(&mut self) -> Result<Stop, Error> {
        self.pristine = false;
        self.queued = None;
        match self.runner.run_raw() {
            Ok(()) => self.stopped(),
            Err(error) if error.errno() == EINTR => self.interrupted(),
            Err(error) if matches!(error.errno(), EFAULT | EHWPOISON) => self.bus_error(None),
            Err(error) => {
                self.give_up();
                Err(Error::kvm("Running the guest")(error))
            }
        }
    }

    fn stopped(&mut self) -> Result<Stop, Error> {
        let reason = match self.runner.last_exit() {
            Ok(KvmExit::IoOut { port, .. }) if port == u16::from(PORT) => None,
            Ok(KvmExit::IoOut { .. }) => Some(Stop::Unfinished),
            Ok(KvmExit::IoIn { .. }) => Some(Stop::NotEntered),
            Ok(KvmExit::Interrupted) => return self.interrupted(),
            Ok(KvmExit::MemoryFault { address, .. }) => {
                Some(Stop::BusError(Registers::default(), Some(address)))
            }
            Ok(exit) => {
                let reason = format!("{exit:?}");
                self.give_up();
                return Err(Error::Stopped { reason });
            }
            Err(source) => {
                self.give_up();
                return Err(Error::kvm("Reading the exit")(source));
            }
        };
        let regs = self.runner.synced().regs;
        match reason {
            None => self.stub(&regs),
            Some(Stop::BusError(_, address)) => self.bus_error(address),
            // Only a host that ignores what the task state segment says lets programs do this.
            Some(other) => {
                if matches!(other, Stop::NotEntered) {
                    let completed = self.runner.complete_exit().map(|_| ());
                    completed.map_err(Error::kvm("Completing a port access"))?;
                }
                Ok(self.port_access(&regs))
            }
        }
    }

    /// What a stub's `out` means. Its RIP is at the instruction or behind it, as the host likes.
    fn stub(&mut self, regs: &kvm_regs) -> Result<Stop, Error> {
        let offset = regs.rip.wrapping_sub(kernel_address(STUB_PAGE));
        if offset < SYSCALL_STUB + 4 {
            self.in_ring3 = false;
            return Ok(system_call(regs));
        }
        if offset < microvm_kvm::PAGE_SIZE {
            self.in_ring3 = false;
            return self.exception(
                regs,
                offset.wrapping_sub(EXCEPTION_STUBS) / EXCEPTION_STUB_BYTES,
            );
        }
        if regs.rip.wrapping_sub(LOWER_STUB) < 4 && self.entry == SyscallEntry::Ring3 {
            self.in_ring3 = is_ring3(&self.runner.synced().sregs);
            return Ok(system_call(regs));
        }
        Ok(self.port_access(regs))
    }

    /// A program that uses a port is as wrong as it is on any operating system.
    fn port_access(&mut self, regs: &kvm_regs) -> Stop {
        self.in_ring3 = self.entry == SyscallEntry::Ring3 && is_ring3(&self.runner.synced().sregs);
        let fault = Fault {
            vector: GENERAL_PROTECTION_VECTOR,
            error_code: 0,
            address: None,
        };
        Stop::Fault(Registers::from_kvm(regs), fault)
    }

    fn exception(&mut self, regs: &kvm_regs, vector: u64) -> Result<Stop, Error> {
        let mut regs = *regs;
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
                return Ok(system_call(&regs));
            }
            self.give_up();
            let reason = format!("exception {vector} at {rip:#x} in a stub");
            return Err(Error::Stopped { reason });
        }
        regs.rip = rip;
        regs.rflags = rflags;
        regs.rsp = rsp;
        Ok(Stop::Fault(Registers::from_kvm(&regs), fault))
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
            return Ok(Stop::Interrupted(Registers::from_kvm(&regs)));
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
            _ => {
                self.give_up();
                let reason = "memory of a stub is gone".to_owned();
                Err(Error::Stopped { reason })
            }
        }
    }

    fn give_up(&mut self) {
        self.broken = true;
        self.space = None;
        if let Some(resident) = self.resident.take() {
            resident.save(Ok(Values::default()));
        }
    }
}

/// Whether the processor is in ring 3 by all that tells it.
fn is_ring3(sregs: &kvm_sregs) -> bool {
    sregs.cs.selector & 3 == 3 && sregs.ss.dpl == 3
}

fn system_call(regs: &kvm_regs) -> Stop {
    let mut registers = Registers::from_kvm(regs);
    registers.rip = regs.rcx;
    registers.rflags = user_flags(regs.r11);
    registers.r11 = registers.rflags;
    Stop::SystemCall(registers)
}
