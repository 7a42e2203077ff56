//! What a context has beside its general registers: segment bases, and the extended state.
//!
//! It is left in the vCPU that the context ran on, for most often it goes on there; reading and
//! setting it takes many times as long as an exit. Another context that needs the vCPU saves it
//! first.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use kvm_bindings::Xsave;

use microvm_kvm::{xsave_from_bytes, xsave_to_bytes};

use crate::error::Error;
use crate::page_tables::lock;
use crate::registers::SegmentBases;

/// The rest of a context's state, or which vCPU has it.
#[derive(Debug)]
pub struct Extended {
    state: Mutex<State>,
    saved: Condvar,
    /// What `state` says of the resident, for those who only look.
    resident: AtomicU64,
}

/// No vCPU's number.
const NOWHERE: u64 = u64::MAX;

impl Default for Extended {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            saved: Condvar::default(),
            resident: AtomicU64::new(NOWHERE),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// The vCPU that has the state.
    resident: Option<u64>,
    /// The state otherwise.
    values: Values,
    /// Why there is none.
    lost: Option<microvm_kvm::Error>,
}

/// Segment bases and extended state.
#[derive(Clone, Default)]
pub struct Values {
    pub bases: SegmentBases,
    /// `None`: as after a reset.
    pub xsave: Option<Xsave>,
}

impl std::fmt::Debug for Values {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Values")
            .field("bases", &self.bases)
            .finish_non_exhaustive()
    }
}

impl Extended {
    /// The vCPU that has the state, or had it a moment ago.
    pub fn resident(&self) -> Option<u64> {
        let resident = self.resident.load(Ordering::Acquire);
        (resident != NOWHERE).then_some(resident)
    }

    /// Waits until no vCPU but `vcpu` has the state, and gives it; `None` where `vcpu` has it.
    ///
    /// Whoever holds another vCPU that has it saves it before waiting for anything else.
    pub fn values(&self, vcpu: Option<u64>) -> Result<Option<Values>, Error> {
        let mut state = lock(&self.state);
        while state.resident.is_some() && state.resident != vcpu {
            state = self
                .saved
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.resident.is_some() {
            return Ok(None);
        }
        if let Some(source) = state.lost.take() {
            return Err(Error::StateLost { source });
        }
        Ok(Some(state.values.clone()))
    }

    /// Notes that `vcpu` has the state now.
    pub fn loaded(&self, vcpu: u64) {
        let mut state = lock(&self.state);
        state.resident = Some(vcpu);
        self.resident.store(vcpu, Ordering::Release);
    }

    /// Sets the state, which no vCPU has then.
    pub fn save(&self, values: Result<Values, microvm_kvm::Error>) {
        let mut state = lock(&self.state);
        match values {
            Ok(values) => state.values = values,
            Err(error) => {
                state.values = Values::default();
                state.lost = Some(error);
            }
        }
        state.resident = None;
        self.resident.store(NOWHERE, Ordering::Release);
        self.saved.notify_all();
    }
}

/// Offsets of the x87 control word, MXCSR, and the set of components that are not as after a reset.
const CONTROL_WORD: usize = 0;
const MXCSR: usize = 24;
const COMPONENTS: usize = 512;
/// The x87 and the SSE registers.
const LEGACY: u8 = 3;

/// The state with its legacy part marked as present. The part holds the right values in any case,
/// but what the processor does with MXCSR where it is not marked differs: on some it stays what it
/// was in the context before.
pub fn whole(state: &Xsave) -> Xsave {
    changed(state, |bytes| {
        if let Some(components) = bytes.get_mut(COMPONENTS) {
            *components |= LEGACY;
        }
    })
}

/// The state after a reset, as programs are promised to find it.
pub fn reset(state: &Xsave) -> Xsave {
    changed(state, |bytes| {
        for (offset, value) in [
            (CONTROL_WORD, &0x37fu16.to_le_bytes()[..]),
            (MXCSR, &0x1f80u32.to_le_bytes()),
        ] {
            if let Some(place) = bytes.get_mut(offset..offset + value.len()) {
                place.copy_from_slice(value);
            }
        }
    })
}

fn changed(state: &Xsave, change: impl FnOnce(&mut [u8])) -> Xsave {
    let mut bytes = xsave_to_bytes(state);
    change(&mut bytes);
    // As long as before, and so as good.
    xsave_from_bytes(&bytes).unwrap_or_else(|_| state.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_state_is_whole_and_masks_all_exceptions() {
        let state = whole(&reset(&xsave_from_bytes(&[0; 4096]).unwrap()));
        let bytes = xsave_to_bytes(&state);
        assert_eq!(bytes[..2], [0x7f, 0x03]);
        assert_eq!(bytes[24..28], [0x80, 0x1f, 0, 0]);
        assert_eq!(bytes[512], 3);
    }
}
