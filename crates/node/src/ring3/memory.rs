//! Memory of a machine. Bytes are copied in and out: JavaScript gets no window into memory that a
//! program may change.

use std::sync::Arc;

use microvm_kvm::reaper;
use microvm_ring3::Memory;
use napi::Env;
use napi::bindgen_prelude::{BigInt, PromiseRaw, Uint8Array};
use napi_derive::napi;

use super::handle::Handle;
use crate::error::BindingError;
use crate::field::word;
use crate::promise;

/// Memory that can be mapped into address spaces, which keep what they map.
#[derive(Debug)]
#[napi]
pub struct BindingRing3Memory {
    memory: Handle<Memory>,
}

#[napi]
impl BindingRing3Memory {
    /// Its bytes.
    #[napi(getter, catch_unwind)]
    pub fn length(&self, env: Env) -> napi::Result<BigInt> {
        self.with(&env, |memory| Ok(memory.length().into()))
    }

    /// Copies bytes out.
    #[napi(catch_unwind)]
    pub fn read(&self, env: Env, offset: BigInt, length: u32) -> napi::Result<Uint8Array> {
        self.with(&env, |memory| {
            let offset = word(&offset, "offset")?;
            let length = u64::from(length);
            // A length that cannot be right is refused before memory is taken for it.
            if offset
                .checked_add(length)
                .is_none_or(|end| end > memory.length())
            {
                return Err(outside(offset, length, memory));
            }
            let mut bytes = Vec::new();
            let room = usize::try_from(length).unwrap_or(usize::MAX);
            bytes
                .try_reserve_exact(room)
                .map_err(|_| BindingError::invalid("There is no memory for a copy"))?;
            bytes.resize(room, 0);
            memory.read(offset, &mut bytes)?;
            Ok(Uint8Array::new(bytes))
        })
    }

    /// Copies bytes in.
    #[napi(catch_unwind)]
    pub fn write(&self, env: Env, offset: BigInt, bytes: &[u8]) -> napi::Result<()> {
        self.with(&env, |memory| {
            Ok(memory.write(word(&offset, "offset")?, bytes)?)
        })
    }

    /// Lets go of the memory; it goes when nothing maps it any more.
    #[napi(catch_unwind)]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, ()>> {
        let memory = self.memory.close();
        promise::blocking(env, move || {
            drop(memory);
            // It may have been the last that kept its machine.
            reaper::wait_idle();
            Ok(())
        })
    }

    fn with<R>(
        &self,
        env: &Env,
        f: impl FnOnce(&Memory) -> Result<R, BindingError>,
    ) -> napi::Result<R> {
        let result = self.memory.get().and_then(|memory| f(&memory));
        result.map_err(|error| error.into_js(env))
    }
}

impl BindingRing3Memory {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        Self {
            memory: Handle::new("memory", memory),
        }
    }

    /// A share of the memory, for an address space.
    pub(super) fn share(&self) -> Result<Arc<Memory>, BindingError> {
        self.memory.get()
    }
}

fn outside(offset: u64, length: u64, memory: &Memory) -> BindingError {
    BindingError::coded(
        "ERR_RING3_RANGE",
        format!(
            "{length} bytes at offset {offset} are not inside of the memory of {} bytes",
            memory.length()
        ),
    )
}
