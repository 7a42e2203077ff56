//! One vCPU, and its running.

use std::sync::Arc;

use kvm_bindings::{CpuId, kvm_guest_debug, kvm_mp_state};
use microvm_kvm::{VirtualCpu, xsave_from_bytes, xsave_to_bytes};
use napi::Env;
use napi::bindgen_prelude::{PromiseRaw, Uint8Array};
use napi_derive::napi;

use super::exit::{BindingExit, answer};
use super::shared_cpu::CpuHandle;
use super::state::{
    BindingCpuidEntry, BindingDebugRegs, BindingFpu, BindingMsr, BindingRegs, BindingSregs,
    BindingVcpuEvents, BindingXcr, list,
};
use crate::cleanup::stop_at_end_of_env;
use crate::error::BindingError;
use crate::field::Field;
use crate::promise;

/// A vCPU. Its methods fail with `ERR_KVM_BUSY` while it runs.
#[derive(Debug)]
#[napi]
pub struct BindingVirtualCpu {
    handle: Arc<CpuHandle>,
}

/// Reads a state.
macro_rules! get {
    ($self:ident, $env:ident, $get:ident) => {
        $self.with(&$env, |vcpu| Ok(Field::from_native(vcpu.$get()?)))
    };
}

/// Sets a state.
macro_rules! set {
    ($self:ident, $env:ident, $set:ident, $name:literal, $value:ident) => {
        $self.with(&$env, |vcpu| Ok(vcpu.$set(&$value.into_native($name)?)?))
    };
}

#[napi]
impl BindingVirtualCpu {
    /// Number of the vCPU in its machine.
    #[napi(getter, catch_unwind)]
    #[allow(clippy::cast_precision_loss, reason = "made from 32 bits")]
    pub fn id(&self) -> f64 {
        self.handle.id() as f64
    }

    /// `KVM_GET_REGS`
    #[napi(catch_unwind)]
    pub fn get_regs(&self, env: Env) -> napi::Result<BindingRegs> {
        get!(self, env, get_regs)
    }

    /// `KVM_SET_REGS`
    #[napi(catch_unwind)]
    pub fn set_regs(&self, env: Env, regs: BindingRegs) -> napi::Result<()> {
        set!(self, env, set_regs, "regs", regs)
    }

    /// `KVM_GET_SREGS`
    #[napi(catch_unwind)]
    pub fn get_sregs(&self, env: Env) -> napi::Result<BindingSregs> {
        get!(self, env, get_sregs)
    }

    /// `KVM_SET_SREGS`
    #[napi(catch_unwind)]
    pub fn set_sregs(&self, env: Env, sregs: BindingSregs) -> napi::Result<()> {
        set!(self, env, set_sregs, "sregs", sregs)
    }

    /// `KVM_GET_FPU`
    #[napi(catch_unwind)]
    pub fn get_fpu(&self, env: Env) -> napi::Result<BindingFpu> {
        get!(self, env, get_fpu)
    }

    /// `KVM_SET_FPU`
    #[napi(catch_unwind)]
    pub fn set_fpu(&self, env: Env, fpu: BindingFpu) -> napi::Result<()> {
        set!(self, env, set_fpu, "fpu", fpu)
    }

    /// `KVM_GET_VCPU_EVENTS`
    #[napi(catch_unwind)]
    pub fn get_vcpu_events(&self, env: Env) -> napi::Result<BindingVcpuEvents> {
        get!(self, env, get_vcpu_events)
    }

    /// `KVM_SET_VCPU_EVENTS`
    #[napi(catch_unwind)]
    pub fn set_vcpu_events(&self, env: Env, events: BindingVcpuEvents) -> napi::Result<()> {
        set!(self, env, set_vcpu_events, "events", events)
    }

    /// `KVM_GET_DEBUGREGS`
    #[napi(catch_unwind)]
    pub fn get_debug_regs(&self, env: Env) -> napi::Result<BindingDebugRegs> {
        get!(self, env, get_debug_regs)
    }

    /// `KVM_SET_DEBUGREGS`
    #[napi(catch_unwind)]
    pub fn set_debug_regs(&self, env: Env, debug_regs: BindingDebugRegs) -> napi::Result<()> {
        set!(self, env, set_debug_regs, "debugRegs", debug_regs)
    }

    /// `KVM_GET_XCRS`
    #[napi(catch_unwind)]
    pub fn get_xcrs(&self, env: Env) -> napi::Result<Vec<BindingXcr>> {
        get!(self, env, get_xcrs)
    }

    /// `KVM_SET_XCRS`
    #[napi(catch_unwind)]
    pub fn set_xcrs(&self, env: Env, xcrs: Vec<BindingXcr>) -> napi::Result<()> {
        set!(self, env, set_xcrs, "xcrs", xcrs)
    }

    /// `KVM_GET_MP_STATE`
    #[napi(catch_unwind)]
    pub fn get_mp_state(&self, env: Env) -> napi::Result<u32> {
        self.with(&env, |vcpu| Ok(vcpu.get_mp_state()?.mp_state))
    }

    /// `KVM_SET_MP_STATE`
    #[napi(catch_unwind)]
    pub fn set_mp_state(&self, env: Env, state: f64) -> napi::Result<()> {
        self.with(&env, |vcpu| {
            let mp_state = state.into_native("mpState")?;
            Ok(vcpu.set_mp_state(kvm_mp_state { mp_state })?)
        })
    }

    /// `KVM_GET_XSAVE2`
    #[napi(catch_unwind)]
    pub fn get_xsave(&self, env: Env) -> napi::Result<Uint8Array> {
        self.with(&env, |vcpu| {
            Ok(Uint8Array::new(xsave_to_bytes(&vcpu.get_xsave()?)))
        })
    }

    /// `KVM_SET_XSAVE`
    #[napi(catch_unwind)]
    pub fn set_xsave(&self, env: Env, bytes: &[u8]) -> napi::Result<()> {
        self.with(&env, |vcpu| Ok(vcpu.set_xsave(&xsave_from_bytes(bytes)?)?))
    }

    /// `KVM_GET_MSRS`
    #[napi(catch_unwind)]
    pub fn get_msrs(&self, env: Env, indices: Vec<f64>) -> napi::Result<Vec<BindingMsr>> {
        self.with(&env, |vcpu| {
            let indices = list(indices, "indices")?;
            let msrs = vcpu.get_msrs(&indices)?;
            Ok(msrs.into_iter().map(Field::from_native).collect())
        })
    }

    /// `KVM_SET_MSRS`
    #[napi(catch_unwind)]
    pub fn set_msrs(&self, env: Env, msrs: Vec<BindingMsr>) -> napi::Result<()> {
        self.with(&env, |vcpu| Ok(vcpu.set_msrs(&list(msrs, "msrs")?)?))
    }

    /// `KVM_GET_CPUID2`
    #[napi(catch_unwind)]
    pub fn get_cpuid(&self, env: Env) -> napi::Result<Vec<BindingCpuidEntry>> {
        self.with(&env, |vcpu| {
            let cpuid = vcpu.get_cpuid2()?;
            let entries = cpuid.as_slice().iter();
            Ok(entries.copied().map(Field::from_native).collect())
        })
    }

    /// `KVM_SET_CPUID2`
    #[napi(catch_unwind)]
    pub fn set_cpuid(&self, env: Env, entries: Vec<BindingCpuidEntry>) -> napi::Result<()> {
        self.with(&env, |vcpu| {
            let entries = list(entries, "cpuid")?;
            let cpuid = CpuId::from_entries(&entries).map_err(|_| {
                let message = format!("cpuid has {} entries, too many for KVM", entries.len());
                BindingError::coded("ERR_INVALID_OPTIONS", message)
            })?;
            Ok(vcpu.set_cpuid2(&cpuid)?)
        })
    }

    /// `KVM_SET_GUEST_DEBUG`; `debug_regs`: DR0 to DR7.
    #[napi(catch_unwind)]
    pub fn set_guest_debug(
        &self,
        env: Env,
        control: f64,
        debug_regs: Vec<napi::bindgen_prelude::BigInt>,
    ) -> napi::Result<()> {
        self.with(&env, |vcpu| {
            let mut debug = kvm_guest_debug {
                control: control.into_native("control")?,
                ..Default::default()
            };
            debug.arch.debugreg = debug_regs.into_native("debugRegs")?;
            Ok(vcpu.set_guest_debug(&debug)?)
        })
    }

    /// Makes the vCPU able to run.
    #[napi(catch_unwind)]
    pub fn make_runner(&self, env: Env) -> napi::Result<BindingVirtualCpuRunner> {
        self.handle
            .make_runner()
            .map_err(|error| error.into_js(&env))?;
        // From now on there may be a thread.
        stop_at_end_of_env(&env, &self.handle)?;
        Ok(BindingVirtualCpuRunner {
            handle: Arc::clone(&self.handle),
        })
    }

    /// Closes the vCPU and its runner; a run under way ends.
    #[napi(catch_unwind)]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, ()>> {
        self.handle.begin_close();
        let handle = Arc::clone(&self.handle);
        promise::blocking(env, move || {
            handle.close();
            Ok(())
        })
    }

    fn with<R>(
        &self,
        env: &Env,
        f: impl FnOnce(&VirtualCpu) -> Result<R, BindingError>,
    ) -> napi::Result<R> {
        self.handle.with(f).map_err(|error| error.into_js(env))
    }
}

impl BindingVirtualCpu {
    pub(super) fn new(vcpu: VirtualCpu) -> Self {
        Self {
            handle: Arc::new(CpuHandle::new(vcpu)),
        }
    }
}

/// A vCPU that can run.
#[derive(Debug)]
#[napi]
pub struct BindingVirtualCpuRunner {
    handle: Arc<CpuHandle>,
}

#[napi]
impl BindingVirtualCpuRunner {
    /// Runs the vCPU, on its own thread, until it leaves the guest.
    #[napi(catch_unwind)]
    pub fn run<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, BindingExit>> {
        let exit = self.handle.run().map_err(|error| error.into_js(env))?;
        promise::settle(env, async move {
            match exit.await {
                Ok(exit) => exit,
                Err(_) => {
                    let message = "The vCPU's thread ended unexpectedly".to_owned();
                    Err(BindingError::internal(message))
                }
            }
        })
    }

    /// Completes the last exit without running the guest.
    #[napi(catch_unwind)]
    pub fn complete_exit(&self, env: Env) -> napi::Result<BindingExit> {
        let complete = self
            .handle
            .with_runner(|runner| Ok(super::exit::from_native(runner.complete_exit()?)));
        complete.map_err(|error| error.into_js(&env))
    }

    /// Answers the read that the guest waits for.
    #[napi(catch_unwind)]
    pub fn answer(&self, env: Env, bytes: &[u8]) -> napi::Result<()> {
        let answered = self.handle.with_runner(|runner| answer(runner, bytes));
        answered.map_err(|error| error.into_js(&env))
    }

    /// Ends the run, or the next one.
    #[napi(catch_unwind)]
    pub fn interrupt(&self, env: Env) -> napi::Result<()> {
        let interrupted = self.handle.interrupt();
        interrupted.map_err(|error| error.into_js(&env))
    }

    /// Takes an interruption back that has not ended a run; tells whether there was one.
    #[napi(catch_unwind)]
    pub fn withdraw_interrupt(&self) -> bool {
        self.handle.withdraw_interrupt()
    }
}
