//! One virtual machine that all address spaces and contexts of a platform share.

use std::ops::Deref;
use std::sync::{Arc, Mutex};

use microvm_kvm::{Kvm, VirtualMachine, reaper};

use crate::error::Error;
use crate::global::Global;
use crate::interrupts::Interrupts;
use crate::kernel::Kernel;
use crate::layout::{MAX_VCPUS, SPARE_VCPUS};
use crate::page_tables::TablePages;
use crate::physical::PhysicalSpace;
use crate::pool::{Pool, Taken};
use crate::timer::Timer;
use crate::traits::{HostTraits, SyscallEntry};
use crate::vcpu::Vcpu;

/// The machine. Fields drop in this order: the last owner of the parts is the thread that closes
/// them, which takes the kernel up to tens of milliseconds.
#[derive(Debug)]
pub struct Machine {
    parts: Arc<Parts>,
    _close: Close,
}

/// Fields drop in this order: vCPUs, then the machine itself.
#[derive(Debug)]
pub struct Parts {
    pub pool: Pool,
    pub timer: Timer,
    pub tables: Arc<TablePages>,
    pub physical: Arc<Mutex<PhysicalSpace>>,
    pub kernel: Arc<Kernel>,
    pub vm: VirtualMachine,
    pub traits: HostTraits,
    global: Global,
}

#[derive(Debug)]
struct Close(Option<Arc<Parts>>);

impl Drop for Close {
    fn drop(&mut self) {
        if let Some(parts) = self.0.take() {
            reaper::reap(parts);
        }
    }
}

impl Deref for Machine {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Machine {
    /// Creates the machine, with at most this many vCPUs.
    pub fn new(
        kvm: &Kvm,
        global: Global,
        traits: HostTraits,
        vcpus: u64,
    ) -> Result<Arc<Self>, Error> {
        // Interrupted calls are repeated there.
        let vm = kvm
            .create_vm()
            .map_err(Error::kvm("Creating the machine"))?;
        let vcpus = vcpus.clamp(1, global.vcpus.min(MAX_VCPUS));
        let mut physical = PhysicalSpace::new(global.physical_end, global.slots);
        let numbers = vcpus + SPARE_VCPUS;
        let kernel = Kernel::new(&vm, &mut physical, numbers, traits.syscall_entry)?;
        let kernel = Arc::new(kernel);
        let physical = Arc::new(Mutex::new(physical));
        let recycle = traits.recycles_page_tables;
        let tables = TablePages::new(vm.clone(), Arc::clone(&physical), recycle);
        let parts = Arc::new(Parts {
            pool: Pool::new(vcpus, numbers),
            timer: Timer::new(),
            tables: Arc::new(tables),
            physical,
            kernel,
            vm,
            traits,
            global,
        });
        Ok(Arc::new(Self {
            _close: Close(Some(Arc::clone(&parts))),
            parts,
        }))
    }
}

impl Parts {
    /// Takes a vCPU from the pool; see [`Pool::take`].
    pub fn take_vcpu(
        &self,
        resident: Option<u64>,
        interrupts: &Interrupts,
    ) -> Result<Taken, Error> {
        let entry: SyscallEntry = self.traits.syscall_entry;
        let make = |id| Vcpu::new(&self.vm, id, &self.kernel, entry, &self.global);
        self.pool.take(resident, interrupts, make)
    }
}
