//! What a program sees of memory.

use std::sync::Arc;

use microvm_kvm::reaper;
use microvm_ring3::{AddressSpace, Protection};
use napi::Env;
use napi::bindgen_prelude::{BigInt, PromiseRaw};
use napi_derive::napi;

use super::handle::Handle;
use super::memory::BindingRing3Memory;
use crate::error::BindingError;
use crate::field::word;
use crate::promise;

/// What programs may do with a range.
#[derive(Debug)]
#[napi(object)]
pub struct BindingProtection {
    /// Read.
    pub read: bool,
    /// Write.
    pub write: bool,
    /// Execute.
    pub execute: bool,
}

impl From<BindingProtection> for Protection {
    fn from(protection: BindingProtection) -> Self {
        Self {
            read: protection.read,
            write: protection.write,
            execute: protection.execute,
        }
    }
}

/// What to map where.
#[derive(Debug)]
#[napi(object)]
pub struct BindingMapping {
    /// Address in the space.
    pub address: BigInt,
    /// Bytes from the start of the memory.
    pub offset: BigInt,
    /// Bytes.
    pub length: BigInt,
    /// What programs may do there.
    pub protection: BindingProtection,
    /// Allocate the pages now.
    pub precommit: bool,
}

/// An address space.
#[derive(Debug)]
#[napi]
pub struct BindingAddressSpace {
    space: Handle<AddressSpace>,
}

#[napi]
impl BindingAddressSpace {
    /// Maps a part of a memory.
    #[napi(catch_unwind)]
    pub fn map<'env>(
        &self,
        env: &'env Env,
        memory: &BindingRing3Memory,
        mapping: BindingMapping,
    ) -> napi::Result<PromiseRaw<'env, ()>> {
        let parts = || {
            Ok((
                memory.share()?,
                word(&mapping.address, "address")?,
                word(&mapping.offset, "offset")?,
                word(&mapping.length, "length")?,
            ))
        };
        let (memory, address, offset, length) =
            parts().map_err(|error: BindingError| error.into_js(env))?;
        self.change(env, move |space| {
            let (protection, precommit) = (mapping.protection.into(), mapping.precommit);
            space.map(address, &memory, offset, length, protection, precommit)
        })
    }

    /// Removes what is mapped in a range.
    #[napi(catch_unwind)]
    pub fn unmap<'env>(
        &self,
        env: &'env Env,
        address: BigInt,
        length: BigInt,
    ) -> napi::Result<PromiseRaw<'env, ()>> {
        let (address, length) = range(&address, &length).map_err(|error| error.into_js(env))?;
        self.change(env, move |space| space.unmap(address, length))
    }

    /// Changes what programs may do with a range.
    #[napi(catch_unwind)]
    pub fn protect<'env>(
        &self,
        env: &'env Env,
        address: BigInt,
        length: BigInt,
        protection: BindingProtection,
    ) -> napi::Result<PromiseRaw<'env, ()>> {
        let (address, length) = range(&address, &length).map_err(|error| error.into_js(env))?;
        self.change(env, move |space| {
            space.protect(address, length, protection.into())
        })
    }

    /// Ends the space, even while programs run in it.
    #[napi(catch_unwind)]
    pub fn release<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, ()>> {
        let space = self.space.close();
        promise::blocking(env, move || {
            if let Some(space) = space {
                space.release()?;
            }
            // It may have been the last that kept its machine.
            reaper::wait_idle();
            Ok(())
        })
    }

    fn change<'env>(
        &self,
        env: &'env Env,
        f: impl FnOnce(&AddressSpace) -> Result<(), microvm_ring3::Error> + Send + 'static,
    ) -> napi::Result<PromiseRaw<'env, ()>> {
        let space = self.share().map_err(|error| error.into_js(env))?;
        promise::blocking(env, move || Ok(f(&space)?))
    }
}

impl BindingAddressSpace {
    pub(super) fn new(space: AddressSpace) -> Self {
        Self {
            space: Handle::new("address space", Arc::new(space)),
        }
    }

    /// A share of the space, for a switch.
    pub(super) fn share(&self) -> Result<Arc<AddressSpace>, BindingError> {
        self.space.get()
    }
}

fn range(address: &BigInt, length: &BigInt) -> Result<(u64, u64), BindingError> {
    Ok((word(address, "address")?, word(length, "length")?))
}
