//! The virtual machine monitor: one machine, from its configuration to the reason of its end.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::cast_possible_truncation
    )
)]

pub mod acpi;
pub mod arch;
pub mod boot;
pub mod bus;
pub mod config;
pub mod devices;
pub mod machine;
pub mod memory;
pub mod metrics;
pub mod reaper;
pub mod run_loop;
pub mod virtio;

pub use config::{ConfigError, MachineConfig, VhostUserConfig, VhostUserPeer, VsockConfig};
pub use machine::{Machine, MachineError};
pub use metrics::{DeviceFailure, MachineMetrics};
pub use run_loop::ExitReason;
