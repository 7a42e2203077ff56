//! The virtual machine monitor: one machine, from its configuration to the reason of its end.
//!
//! [`Machine`] is the whole face: a [`MachineConfig`] goes in, an [`ExitReason`] and
//! [`MachineMetrics`] come out, all plain data. Behind it, in the order of a machine's life:
//!
//! | module | job |
//! |---|---|
//! | [`config`] | what a machine is made of, checked before anything is opened |
//! | [`memory`] | guest RAM: one memfd around the hole for 32-bit MMIO |
//! | [`boot`] | kernel, initramfs and command line into guest RAM |
//! | [`arch`] | address map, CPUID, registers: the state in which CPUs start |
//! | [`acpi`] | the tables by which the guest finds CPUs and devices |
//! | [`bus`] | which device answers at a port or address |
//! | [`devices`] | serial console, reset, power; [`devices::rng`] for virtio |
//! | [`virtio`] | the virtio-mmio transport and the hosts of device code |
//! | [`run_loop`] | vCPU threads, pauses, the reason of the end |
//! | [`machine`] | puts it together and takes it apart |
//! | [`reaper`] | closes what is slow to close, elsewhere |
//!
//! The guest is hostile: no access of its may panic, hang or grow anything in this process.
#![cfg_attr(test, allow(clippy::cast_possible_truncation))]

pub mod acpi;
pub mod arch;
pub mod boot;
pub mod bus;
pub mod config;
pub mod devices;
pub mod machine;
pub mod memory;
pub mod metrics;
pub mod run_loop;
pub mod virtio;

pub use config::{
    ConfigError, MachineConfig, VhostUserConfig, VhostUserPeer, VsockConfig, VsockHostEnd,
};
pub use machine::{Machine, MachineError};
pub use metrics::{DeviceFailure, DeviceMetrics, MachineMetrics};
pub use microvm_kvm::reaper;
pub use microvm_virtio::QueueMetrics;
pub use run_loop::ExitReason;
