//! The virtio part, from the guest's side: through its registers and rings.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation
)]

mod hosted;
mod kvm;
mod properties;
mod registers;
mod rng;
mod support;
