//! What can go wrong with a machine.

use std::io;

use crate::acpi::AcpiError;
use crate::arch::x86_64::EnterError;
use crate::boot::BootError;
use crate::bus::BusError;
use crate::config::ConfigError;
use crate::devices::ConsoleError;
use crate::memory::MemoryError;
use crate::run_loop::ExitReason;
use crate::virtio::VirtioError;

/// Why a machine cannot be made, or not do what it is asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// The configuration cannot be right.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// KVM refused something.
    #[error(transparent)]
    Kvm(#[from] microvm_kvm::Error),
    /// There is no such guest memory to be had.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The kernel or the initramfs cannot be loaded.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The console cannot be served.
    #[error(transparent)]
    Console(#[from] ConsoleError),
    /// The vsock device cannot be made.
    #[error("vsock device cannot be made")]
    Vsock(#[source] microvm_vsock::VsockError),
    /// A virtio device cannot be plugged, paused or resumed.
    #[error("Virtio device failed")]
    Device(#[from] VirtioError),
    /// An eventfd cannot be made.
    #[error("Eventfd cannot be made")]
    Eventfd(#[source] io::Error),
    /// The ACPI tables cannot be written.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// Two devices want the same address.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The boot CPU cannot be set up.
    #[error("Boot CPU cannot be set up")]
    Enter(#[from] EnterError),
    /// A vCPU's thread cannot be made.
    #[error("Thread of a vCPU cannot be made")]
    Thread(#[source] io::Error),
    /// The power button's interrupt cannot be raised.
    #[error("Interrupt of the power button cannot be raised")]
    PowerButton(#[source] io::Error),
    /// The machine is not in a state for this.
    #[error("Cannot {operation} a machine that {}", describe(ended.as_ref()))]
    State {
        /// What was asked for.
        operation: &'static str,
        /// Why it ended, if it did.
        ended: Option<ExitReason>,
    },
}

fn describe(ended: Option<&ExitReason>) -> String {
    match ended {
        Some(reason) => format!("has ended ({reason:?})"),
        None => "was not started yet, or was started before".to_owned(),
    }
}
