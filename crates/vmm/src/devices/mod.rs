//! Devices that the VMM emulates itself.

pub mod rng;
