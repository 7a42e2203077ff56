//! The handles of crates `microvm-ring3` and `microvm-ring3-linux`, for `@hybrid/microvm/ring3`.
//!
//! A handle can be closed before JavaScript collects it; from then on it answers with
//! `ERR_RING3_CLOSED`. What may wait for a vCPU, or takes the kernel some time (adding and removing
//! memory, changing what is mapped), happens off the event loop and comes back as a promise.
//! Programs run on a thread of their own, one for each context and sandbox (`worker`).

mod address_space;
mod context;
mod exit;
mod handle;
mod hook;
mod memory;
mod outcome;
mod platform;
mod sandbox;
mod worker;

use crate::error::BindingError;

/// The failure of a call on something that was closed.
fn closed(what: &str) -> BindingError {
    BindingError::coded("ERR_RING3_CLOSED", format!("The {what} is closed"))
}

/// The failure of a call on something that is in use.
fn busy(message: &str) -> BindingError {
    BindingError::coded("ERR_RING3_BUSY", message.to_owned())
}
