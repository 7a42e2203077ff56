//! Host memory for guests. Bytes are copied in and out: JavaScript gets no window into memory
//! that the guest may change.

use std::sync::Arc;

use microvm_kvm::{Errno, Error, HugePages, MemoryRegion};
use napi::Env;
use napi::bindgen_prelude::{BigInt, Uint8Array};
use napi_derive::napi;

use super::Closable;
use crate::error::BindingError;
use crate::field::word;

/// Bytes that every release of Node from 20 on can hold in one buffer: 4 GiB.
const BUFFER_MAX: u64 = 1 << 32;

/// A memory region; slots that map it keep it after it is closed here.
#[derive(Debug)]
#[napi]
pub struct BindingMemoryRegion {
    region: Closable<Arc<MemoryRegion>>,
}

#[napi]
impl BindingMemoryRegion {
    /// Maps anonymous memory.
    #[napi(factory, catch_unwind)]
    pub fn anonymous(env: Env, length: BigInt) -> napi::Result<Self> {
        let map = || Ok(MemoryRegion::anonymous(word(&length, "length")?)?);
        map()
            .map(Self::new)
            .map_err(|error: BindingError| error.into_js(&env))
    }

    /// Maps a memfd. `page_size`: bytes of a page, 4 KiB, 2 MiB or 1 GiB.
    #[napi(factory, catch_unwind)]
    pub fn memfd(env: Env, length: BigInt, page_size: u32) -> napi::Result<Self> {
        let map = || {
            let pages = [
                HugePages::Off,
                HugePages::TwoMebibytes,
                HugePages::OneGibibyte,
            ]
            .into_iter()
            .find(|pages| pages.page_size() == u64::from(page_size))
            .ok_or_else(|| BindingError::invalid("No such page size"))?;
            Ok(MemoryRegion::memfd(word(&length, "length")?, pages)?)
        };
        map()
            .map(Self::new)
            .map_err(|error: BindingError| error.into_js(&env))
    }

    /// Bytes of the region.
    #[napi(getter, catch_unwind)]
    pub fn length(&self, env: Env) -> napi::Result<BigInt> {
        self.with(&env, |region| Ok(region.length().into()))
    }

    /// Copies bytes out.
    #[napi(catch_unwind)]
    pub fn read(&self, env: Env, offset: BigInt, length: BigInt) -> napi::Result<Uint8Array> {
        self.with(&env, |region| {
            let (offset, length) = (word(&offset, "offset")?, word(&length, "length")?);
            // A length that cannot be right is refused before memory is taken for it.
            let outside = Error::OutOfBounds {
                offset,
                length,
                region: region.length(),
            };
            let end = offset.checked_add(length);
            let room = match usize::try_from(length) {
                Ok(room) if end.is_some_and(|end| end <= region.length()) => room,
                _ => return Err(outside.into()),
            };
            if length > BUFFER_MAX {
                let message = format!("{length} bytes are more than a buffer can hold");
                return Err(BindingError::coded("ERR_KVM_OUT_OF_BOUNDS", message));
            }
            let mut bytes = Vec::new();
            // A region can be larger than the memory that is free, for its pages are only taken
            // when they are touched; an allocation that fails any other way ends Node.
            bytes.try_reserve_exact(room).map_err(|_| Error::Call {
                call: "malloc",
                source: Errno::new(libc::ENOMEM),
            })?;
            bytes.resize(room, 0);
            region.read(offset, &mut bytes)?;
            Ok(Uint8Array::new(bytes))
        })
    }

    /// Copies bytes in.
    #[napi(catch_unwind)]
    pub fn write(&self, env: Env, offset: BigInt, bytes: &[u8]) -> napi::Result<()> {
        self.with(&env, |region| {
            Ok(region.write(word(&offset, "offset")?, bytes)?)
        })
    }

    /// Lets go of the region.
    #[napi(catch_unwind)]
    pub fn close(&self) {
        drop(self.region.close());
    }

    fn new(region: MemoryRegion) -> Self {
        Self {
            region: Closable::new("memory region", Arc::new(region)),
        }
    }

    fn with<R>(
        &self,
        env: &Env,
        f: impl FnOnce(&MemoryRegion) -> Result<R, BindingError>,
    ) -> napi::Result<R> {
        let result = self.region.with(|region| f(region));
        result.map_err(|error| error.into_js(env))
    }

    /// A share of the region, for a slot.
    pub(super) fn share(&self) -> Result<Arc<MemoryRegion>, BindingError> {
        self.region
            .with(|region| Ok::<_, BindingError>(Arc::clone(region)))
    }
}
