//! The KVM device.

use std::os::fd::RawFd;

use microvm_kvm::{DEFAULT_DEVICE, Error, Kvm};
use napi::Env;
use napi_derive::napi;

use super::Closable;
use super::state::BindingCpuidEntry;
use super::virtual_machine::BindingVirtualMachine;
use crate::descriptor::duplicate;
use crate::error::BindingError;
use crate::field::Field;

/// Which device to open: a path, a descriptor (of which the caller keeps its own), or the usual.
#[derive(Debug)]
#[napi(object)]
pub struct BindingKvmOptions {
    /// Path of the device.
    pub path: Option<String>,
    /// An open descriptor of it.
    pub fd: Option<RawFd>,
}

/// The KVM subsystem.
#[derive(Debug)]
#[napi]
pub struct BindingKvm {
    kvm: Closable<Kvm>,
}

#[napi]
impl BindingKvm {
    /// Opens the device.
    #[napi(factory, catch_unwind)]
    pub fn open(env: Env, options: BindingKvmOptions) -> napi::Result<Self> {
        let open = || {
            Ok(match (options.fd, options.path) {
                (Some(fd), _) => Kvm::from_owned_fd(duplicate(fd)?)?,
                (None, Some(path)) => Kvm::open_path(path)?,
                (None, None) => Kvm::open_path(DEFAULT_DEVICE)?,
            })
        };
        let kvm = open().map_err(|error: BindingError| error.into_js(&env))?;
        Ok(Self {
            kvm: Closable::new("KVM device", kvm),
        })
    }

    /// Version of the KVM API.
    #[napi(getter, catch_unwind)]
    pub fn api_version(&self, env: Env) -> napi::Result<i32> {
        self.with(&env, |kvm| Ok(kvm.api_version()))
    }

    /// `KVM_CHECK_EXTENSION`
    #[napi(catch_unwind)]
    pub fn check_extension(&self, env: Env, extension: i32) -> napi::Result<i32> {
        self.with(&env, |kvm| kvm.check_extension(extension))
    }

    /// `KVM_GET_VCPU_MMAP_SIZE`
    #[napi(catch_unwind)]
    pub fn vcpu_mmap_size(&self, env: Env) -> napi::Result<u32> {
        self.with(&env, |kvm| {
            let size = kvm.vcpu_mmap_size()?;
            Ok(u32::try_from(size).unwrap_or(u32::MAX))
        })
    }

    /// `KVM_GET_SUPPORTED_CPUID`, once per process
    #[napi(catch_unwind)]
    pub fn supported_cpuid(&self, env: Env) -> napi::Result<Vec<BindingCpuidEntry>> {
        self.with(&env, |kvm| {
            let entries = kvm.supported_cpuid()?.as_slice().iter();
            Ok(entries.copied().map(Field::from_native).collect())
        })
    }

    /// `KVM_GET_MSR_INDEX_LIST`
    #[napi(catch_unwind)]
    pub fn msr_index_list(&self, env: Env) -> napi::Result<Vec<u32>> {
        self.with(&env, |kvm| Ok(kvm.msr_index_list()?.as_slice().to_vec()))
    }

    /// `KVM_CREATE_VM`
    #[napi(catch_unwind)]
    pub fn create_vm(&self, env: Env) -> napi::Result<BindingVirtualMachine> {
        self.with(&env, Kvm::create_vm)
            .map(BindingVirtualMachine::new)
    }

    /// Closes the device; machines stay.
    #[napi(catch_unwind)]
    pub fn close(&self) {
        drop(self.kvm.close());
    }

    fn with<R>(&self, env: &Env, f: impl FnOnce(&Kvm) -> Result<R, Error>) -> napi::Result<R> {
        self.kvm.with(f).map_err(|error| error.into_js(env))
    }
}
