//! A vCPU as the platform uses it: what is loaded in it, and what becomes of that.

mod run;

use std::sync::Arc;

use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS, Xsave, kvm_mp_state,
    kvm_msr_entry, kvm_sregs, kvm_vcpu_events, kvm_xcr, kvm_xcrs,
};
use microvm_kvm::{ImmediateExit, VirtualCpuRunner, VirtualMachine};

use crate::error::Error;
use crate::extended::{Extended, Values, reset, whole};
use crate::global::Global;
use crate::kernel::Kernel;
use crate::layout::*;
use crate::registers::SegmentBases;
use crate::space::Space;
use crate::traits::SyscallEntry;

pub use run::Stop;

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
    /// Whether something of its last run may be left in it, so that all state has to be set anew.
    broken: bool,
    /// Whether nobody may ever use it again: what it has begun would end in the next context.
    retired: bool,
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
        kernel.write_vcpu(id);
        let vcpu = vm.create_vcpu(id).map_err(&failed)?;
        vcpu.set_cpuid2(global.cpuid).map_err(&failed)?;
        let initial = vcpu.get_sregs().map_err(&failed)?;
        let template = kernel.sregs(id, &initial, global.features);
        // Components can only be enabled once the control register says so.
        vcpu.set_sregs(&template).map_err(&failed)?;
        if global.components != 0 {
            vcpu.set_xcrs(&components(global.components))
                .map_err(&failed)?;
        }
        let clean = Arc::new(whole(&reset(&vcpu.get_xsave().map_err(&failed)?)));
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
            retired: false,
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
    #[inline]
    pub fn evict(&mut self, next: Option<&Arc<Extended>>) {
        if let (Some(resident), Some(next)) = (&self.resident, next)
            && Arc::ptr_eq(resident, next)
        {
            return;
        }
        self.save();
    }

    fn save(&mut self) {
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
        let space = self.space.as_ref();
        if space.is_some_and(|space| space.gate().is_released()) {
            self.use_tables(None);
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

    /// Makes the next run one of this context in this address space. Comes after
    /// [`Vcpu::evict`] with this context.
    pub fn load(&mut self, context: &Arc<Extended>, space: &Arc<Space>) -> Result<(), Error> {
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
                self.pristine = false;
                let own = values.xsave.as_ref().map(whole);
                self.runner
                    .vcpu()
                    .set_xsave(own.as_ref().unwrap_or(&self.clean))
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
        self.use_tables(Some(space));
        if !here {
            context.loaded(self.id);
            self.resident = Some(Arc::clone(context));
        }
        Ok(())
    }

    /// Notes whose page tables the next run has.
    fn use_tables(&mut self, space: Option<&Arc<Space>>) {
        if let Some(old) = self.space.take() {
            old.gate().dismiss(self.id);
        }
        if let Some(new) = space {
            new.gate().admit(self.id, &self.exit);
            self.space = Some(Arc::clone(new));
        }
    }

    /// Has the next run set all state anew: an exception that a run has begun to deliver, and did
    /// not finish, is nobody else's. What the context keeps in this vCPU stays.
    pub fn abandon(&mut self) {
        self.broken = true;
    }

    /// Whether it must not go back to where others take it from.
    pub fn is_retired(&self) -> bool {
        self.retired
    }

    fn mend(&mut self) -> Result<(), Error> {
        let failed = Error::kvm("Resetting a vCPU");
        self.use_tables(None);
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
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        self.use_tables(None);
    }
}

/// The set of components of the extended state that are enabled.
fn components(set: u64) -> kvm_xcrs {
    let mut xcrs = kvm_xcrs {
        nr_xcrs: 1,
        ..Default::default()
    };
    if let Some(first) = xcrs.xcrs.first_mut() {
        *first = kvm_xcr {
            value: set,
            ..Default::default()
        };
    }
    xcrs
}
