//! vCPU threads and what their exits mean.
//!
//! Each vCPU has a thread that runs it until the machine ends. A [`Gate`] stands between them and
//! the machine's owner: it holds what is asked for (run, pause, end) and why the machine ended.
//! Nobody polls: the owner sets the request and makes every vCPU leave the guest, and a vCPU that
//! was made to leave asks the gate what to do.

mod counters;
mod failure;
mod gate;
mod vcpu;

pub use counters::{ExitMetrics, VcpuCounters};
pub use gate::{Gate, Passage, Turn};
pub use vcpu::{Buses, VcpuThread};

/// Why a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// The guest switched itself off (ACPI).
    PowerOff,
    /// The guest reset itself (keyboard controller or ACPI).
    Reset,
    /// The guest's CPU reset: a triple fault. Also what `reboot=t` and a crash of the crash
    /// handler look like.
    TripleFault,
    /// The owner stopped it.
    Stopped,
    /// KVM or the CPU cannot go on with the guest. Tells RIP, code bytes and registers.
    InternalError(String),
    /// The machine itself failed.
    Failed(String),
}
