//! The thread of one vCPU.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use kvm_bindings::{KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN};
use microvm_kvm::{Exit, VirtualCpuRunner};

use super::ExitReason;
use super::counters::VcpuCounters;
use super::failure::describe;
use super::gate::{Gate, Passage, Turn};
use crate::bus::Bus;
use crate::memory::GuestMemory;

/// What vCPUs reach outside of guest memory, and guest memory itself.
#[derive(Debug)]
pub struct Buses {
    /// Ports.
    pub io: Bus,
    /// Devices' memory.
    pub mmio: Bus,
    /// RAM, to tell what the guest was doing when it failed.
    pub memory: Arc<GuestMemory>,
}

/// A vCPU's thread, from its start until it is joined.
#[derive(Debug)]
pub struct VcpuThread {
    thread: JoinHandle<VirtualCpuRunner>,
}

impl VcpuThread {
    /// Starts the thread; it runs the vCPU until `gate` ends the machine, and counts its exits
    /// and its time.
    ///
    /// # Errors
    ///
    /// When no thread can be made.
    pub fn start(
        runner: VirtualCpuRunner,
        buses: Arc<Buses>,
        gate: &Arc<Gate>,
        counters: Arc<VcpuCounters>,
    ) -> io::Result<Self> {
        let immediate_exit = runner.immediate_exit();
        let passage = gate.enter(Box::new(move || {
            // What cannot be signalled still leaves at its next exit.
            let _ = immediate_exit.request();
        }));
        let clock = Arc::clone(counters.thread());
        let mut vcpu = Vcpu {
            buses,
            passage,
            counters,
        };
        let thread = std::thread::Builder::new()
            .name(format!("microvm-vcpu{}", runner.vcpu().id()))
            .spawn(move || {
                let _counted = clock.count();
                let mut runner = runner;
                vcpu.run(&mut runner);
                // The runner goes back to the owner: closing it is slow, and not for this path.
                drop(vcpu);
                runner
            })?;
        Ok(Self { thread })
    }

    /// Waits for the thread's end and hands back the vCPU, unless the thread panicked.
    #[must_use]
    pub fn join(self) -> Option<VirtualCpuRunner> {
        self.thread.join().ok()
    }
}

/// What happens after an exit.
enum Next {
    /// Enter the guest again.
    Run,
    /// The vCPU was made to leave: ask the gate.
    Ask,
    /// The machine ends.
    Finish(ExitReason),
    /// KVM or the CPU cannot go on.
    Fail { what: String, code: Option<Vec<u8>> },
}

struct Vcpu {
    buses: Arc<Buses>,
    passage: Passage,
    counters: Arc<VcpuCounters>,
}

impl Vcpu {
    fn run(&mut self, runner: &mut VirtualCpuRunner) {
        let mut next = Next::Ask;
        loop {
            next = match next {
                Next::Run => self.exit(runner.run()),
                Next::Ask => match self.passage.turn() {
                    Turn::Run => Next::Run,
                    Turn::Park => self.park(runner),
                    Turn::End => return,
                },
                Next::Finish(reason) => {
                    self.passage.finish(reason);
                    return;
                }
                Next::Fail { what, code } => {
                    let text = describe(&what, runner.vcpu(), &self.buses.memory, code);
                    Next::Finish(ExitReason::InternalError(text))
                }
            }
        }
    }

    /// Completes what the last exit left open, so that the vCPU's state is whole, then waits.
    fn park(&self, runner: &mut VirtualCpuRunner) -> Next {
        loop {
            match self.exit(runner.complete_exit()) {
                Next::Ask => break,
                // A string instruction wants its next piece.
                Next::Run => {}
                ended => return ended,
            }
        }
        // Tells the guest's watchdogs that it was the host who stopped the clock. Refused where
        // the guest has no such clock yet.
        let _ = runner.vcpu().fd().kvmclock_ctrl();
        self.passage.park();
        Next::Ask
    }

    fn exit(&self, exit: Result<Exit<'_>, microvm_kvm::Error>) -> Next {
        let exit = match exit {
            Ok(exit) => exit,
            Err(error) => {
                return Next::Fail {
                    what: format!("{error}: {}", io::Error::from_raw_os_error(error.errno())),
                    code: None,
                };
            }
        };
        self.counters.count(&exit);
        match exit {
            Exit::IoIn {
                port, size, data, ..
            } => {
                for access in data.chunks_mut(usize::from(size).max(1)) {
                    self.buses.io.read(port.into(), access);
                }
                Next::Run
            }
            Exit::IoOut {
                port, size, data, ..
            } => {
                for access in data.chunks(usize::from(size).max(1)) {
                    self.buses.io.write(port.into(), access);
                }
                Next::Run
            }
            Exit::MmioRead { address, data } => {
                self.buses.mmio.read(address, data);
                Next::Run
            }
            Exit::MmioWrite { address, data } => {
                self.buses.mmio.write(address, data);
                Next::Run
            }
            Exit::Interrupted => Next::Ask,
            other => rare(other),
        }
    }
}

/// Exits that do not belong to the guest's everyday work.
fn rare(exit: Exit<'_>) -> Next {
    match exit {
        Exit::Shutdown => Next::Finish(ExitReason::TripleFault),
        Exit::SystemEvent { kind, data } => match kind {
            KVM_SYSTEM_EVENT_SHUTDOWN => Next::Finish(ExitReason::PowerOff),
            KVM_SYSTEM_EVENT_RESET => Next::Finish(ExitReason::Reset),
            KVM_SYSTEM_EVENT_CRASH => {
                Next::Finish(ExitReason::Failed("The guest reported a crash".into()))
            }
            _ => fail(format!("Unknown system event {kind} with data {data:x?}")),
        },
        Exit::InternalError(error) => Next::Fail {
            what: format!(
                "KVM internal error, suberror {}, data {:x?}",
                error.suberror, error.data
            ),
            code: error.instruction(),
        },
        Exit::FailEntry {
            hardware_reason,
            cpu,
        } => fail(format!(
            "CPU {cpu} of the host refuses to enter the guest, reason {hardware_reason:#x}"
        )),
        // No hypercall is ours, and KVM asks for no such register: the guest is told so.
        Exit::Hypercall { result, .. } => {
            *result = u64::MAX;
            Next::Run
        }
        Exit::MsrRead { error, .. } | Exit::MsrWrite { error, .. } => {
            *error = 1;
            Next::Run
        }
        // The in-kernel interrupt controller handles what these are about.
        Exit::Hlt
        | Exit::IrqWindowOpen
        | Exit::SetTpr
        | Exit::TprAccess
        | Exit::IoapicEoi { .. }
        | Exit::Nmi => Next::Run,
        other => fail(format!("Unexpected exit {other:?}")),
    }
}

fn fail(what: String) -> Next {
    Next::Fail { what, code: None }
}
