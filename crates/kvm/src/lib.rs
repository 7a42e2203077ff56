//! Safe handles for /dev/kvm

pub mod guest_speed;
