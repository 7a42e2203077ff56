//! Whole machines, on real KVM.
//!
//! Most guests here are a few bytes of code that any KVM runs, even one that emulates the guest's
//! kernel. The tests in `linux` boot a stock kernel and say why when they cannot.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation
)]

mod bad_input;
mod cpio;
mod guest;
mod leaks;
mod lifecycle;
mod linux;
mod support;
// The tests of the front end use more of it.
#[allow(dead_code)]
#[path = "../virtiofsd/upstream.rs"]
mod upstream;
mod world;
