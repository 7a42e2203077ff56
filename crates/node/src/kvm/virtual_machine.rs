//! One virtual machine.

use microvm_kvm::VirtualMachine;
use napi::Env;
use napi::bindgen_prelude::{BigInt, PromiseRaw};
use napi_derive::napi;

use super::Closable;
use super::memory_region::BindingMemoryRegion;
use super::virtual_cpu::BindingVirtualCpu;
use crate::error::BindingError;
use crate::field::{Field, word};
use crate::promise;

/// A virtual machine.
#[derive(Debug)]
#[napi]
pub struct BindingVirtualMachine {
    machine: Closable<VirtualMachine>,
}

#[napi]
impl BindingVirtualMachine {
    /// `KVM_CHECK_EXTENSION`, for this machine
    #[napi(catch_unwind)]
    pub fn check_extension(&self, env: Env, extension: i32) -> napi::Result<i32> {
        self.with(&env, |machine| Ok(machine.check_extension(extension)?))
    }

    /// `KVM_CREATE_VCPU`
    #[napi(catch_unwind)]
    pub fn create_vcpu(&self, env: Env, id: f64) -> napi::Result<BindingVirtualCpu> {
        self.with(&env, |machine| {
            let id: u32 = id.into_native("id")?;
            Ok(BindingVirtualCpu::new(machine.create_vcpu(id.into())?))
        })
    }

    /// `KVM_SET_USER_MEMORY_REGION`
    #[napi(catch_unwind)]
    pub fn set_guest_memory_region(
        &self,
        env: Env,
        slot: f64,
        flags: f64,
        guest_address: BigInt,
        region: &BindingMemoryRegion,
    ) -> napi::Result<()> {
        self.with(&env, |machine| {
            let slot = slot.into_native("slot")?;
            let flags = flags.into_native("flags")?;
            let address = word(&guest_address, "guestAddress")?;
            Ok(machine.set_guest_memory_region(slot, flags, address, region.share()?)?)
        })
    }

    /// `KVM_SET_USER_MEMORY_REGION` with a size of 0
    #[napi(catch_unwind)]
    pub fn remove_guest_memory_region(&self, env: Env, slot: f64) -> napi::Result<()> {
        self.with(&env, |machine| {
            machine.remove_guest_memory_region(slot.into_native("slot")?)?;
            Ok(())
        })
    }

    /// Lets go of the machine; its vCPUs keep it until they are closed too.
    #[napi(catch_unwind)]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, ()>> {
        let machine = self.machine.close();
        promise::blocking(env, move || {
            drop(machine);
            Ok(())
        })
    }

    fn with<R>(
        &self,
        env: &Env,
        f: impl FnOnce(&VirtualMachine) -> Result<R, BindingError>,
    ) -> napi::Result<R> {
        self.machine.with(f).map_err(|error| error.into_js(env))
    }
}

impl BindingVirtualMachine {
    pub(super) fn new(machine: VirtualMachine) -> Self {
        Self {
            machine: Closable::new("virtual machine", machine),
        }
    }
}
