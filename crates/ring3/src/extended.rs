//! What a context has beside its general registers: segment bases, and the extended state.
//!
//! It is left in the vCPU that the context ran on, for most often it goes on there; reading and
//! setting it takes many times as long as an exit. Another context that needs the vCPU saves it
//! first.

use std::sync::{Condvar, Mutex, PoisonError};

use kvm_bindings::Xsave;

use crate::error::Error;
use crate::page_tables::lock;
use crate::registers::SegmentBases;

/// The rest of a context's state, or which vCPU has it.
#[derive(Debug, Default)]
pub struct Extended {
    state: Mutex<State>,
    saved: Condvar,
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
        formatter.debug_struct("Values").field("bases", &self.bases).finish_non_exhaustive()
    }
}

impl Extended {
    /// The vCPU that has the state.
    pub fn resident(&self) -> Option<u64> {
        lock(&self.state).resident
    }

    /// Waits until no vCPU but `vcpu` has the state, and gives it; `None` where `vcpu` has it.
    ///
    /// Whoever holds another vCPU that has it saves it before waiting for anything else.
    pub fn values(&self, vcpu: Option<u64>) -> Result<Option<Values>, Error> {
        let mut state = lock(&self.state);
        while state.resident.is_some() && state.resident != vcpu {
            state = self.saved.wait(state).unwrap_or_else(PoisonError::into_inner);
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
        lock(&self.state).resident = Some(vcpu);
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
        self.saved.notify_all();
    }
}
