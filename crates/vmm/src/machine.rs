//! One virtual machine: its face to the owner.
//!
//! [`Machine::new`] builds everything and runs nothing; [`Machine::start`] lets the vCPUs run.
//! From then on the machine works on threads of its own until the guest ends or
//! [`Machine::stop`]. What goes in and comes out is plain data, so that a machine can live in
//! another process than its owner.

mod build;
mod error;

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use microvm_kvm::{VirtualCpuRunner, VirtualMachine};

pub use error::MachineError;

use crate::config::MachineConfig;
use crate::devices::{Console, ConsoleCounters, Power};
use crate::memory::{Ram, allocated_bytes};
use crate::metrics::{DeviceFailure, MachineMetrics};
use crate::reaper;
use crate::run_loop::{Buses, ExitMetrics, ExitReason, Gate, VcpuCounters, VcpuThread};
use crate::virtio::{PluggedDevice, PluggedMeter};

/// A virtual machine. All methods may be called from any thread, several at a time. Dropping it
/// stops it.
#[derive(Debug)]
pub struct Machine {
    gate: Arc<Gate>,
    /// One for each vCPU.
    vcpus: Vec<Arc<VcpuCounters>>,
    console: Arc<ConsoleCounters>,
    devices: Vec<PluggedMeter>,
    /// Weak: the pages are given back when the last owner of the file goes.
    ram_file: Weak<File>,
    failures: Arc<Mutex<Vec<DeviceFailure>>>,
    stage: Mutex<Stage>,
}

/// How far a machine has come.
#[derive(Debug)]
enum Stage {
    /// Nothing runs yet.
    Built(Parts, Vec<VirtualCpuRunner>),
    /// vCPU threads exist; the guest may have ended.
    Started(Parts, Vec<VcpuThread>),
    /// Everything is gone, or goes.
    Stopped,
}

/// What a machine owns besides its vCPUs. Dropped in this order: devices end before the memory
/// that they work on.
#[derive(Debug)]
struct Parts {
    devices: Vec<PluggedDevice>,
    console: Option<Console>,
    power: Arc<Power>,
    buses: Arc<Buses>,
    #[expect(dead_code, reason = "kept open as long as the machine is there")]
    vm: VirtualMachine,
    #[expect(dead_code, reason = "kept mapped as long as the machine is there")]
    ram: Ram,
}

impl Machine {
    /// Builds a machine: checks the configuration, loads the kernel, connects the devices. Nothing
    /// runs yet but the devices' threads.
    ///
    /// # Errors
    ///
    /// [`MachineError`]; nothing is left behind then.
    pub fn new(config: MachineConfig) -> Result<Self, MachineError> {
        build::build(config)
    }

    /// Lets the guest run.
    ///
    /// # Errors
    ///
    /// [`MachineError::State`] when it was started or stopped before, [`MachineError::Thread`]
    /// when a vCPU's thread cannot be made: the machine has ended then.
    pub fn start(&self) -> Result<(), MachineError> {
        let mut stage = self.stage();
        match std::mem::replace(&mut *stage, Stage::Stopped) {
            Stage::Built(parts, runners) => {
                let mut threads = Vec::with_capacity(runners.len());
                let mut result = Ok(());
                for (runner, counters) in runners.into_iter().zip(&self.vcpus) {
                    let buses = Arc::clone(&parts.buses);
                    let counters = Arc::clone(counters);
                    match VcpuThread::start(runner, buses, &self.gate, counters) {
                        Ok(thread) => threads.push(thread),
                        Err(source) => {
                            let reason = format!("A vCPU thread could not be made: {source}");
                            self.gate.finish(ExitReason::Failed(reason));
                            result = Err(MachineError::Thread(source));
                            break;
                        }
                    }
                }
                *stage = Stage::Started(parts, threads);
                result
            }
            other => {
                *stage = other;
                Err(self.wrong_state("start"))
            }
        }
    }

    /// Makes all vCPUs, then all devices wait; returns when they do. The guest's clock goes on.
    /// A machine that is paused already stays so.
    ///
    /// # Errors
    ///
    /// [`MachineError::State`] when the machine does not run, [`MachineError::Device`] when a
    /// device cannot be paused: the guest runs on then.
    pub fn pause(&self) -> Result<(), MachineError> {
        let stage = self.stage();
        let Stage::Started(parts, _) = &*stage else {
            return Err(self.wrong_state("pause"));
        };
        if !self.gate.pause() {
            return Err(self.wrong_state("pause"));
        }
        for device in &parts.devices {
            if let Err(error) = device.pause() {
                // All or nothing; a second failure would say the same.
                let _ = Self::resume_parts(parts);
                self.gate.resume();
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Lets a paused machine run on. A machine that runs already stays so.
    ///
    /// # Errors
    ///
    /// [`MachineError::State`] when the machine was not started or has ended,
    /// [`MachineError::Device`] when a device cannot go on: the machine stays paused.
    pub fn resume(&self) -> Result<(), MachineError> {
        let stage = self.stage();
        let Stage::Started(parts, _) = &*stage else {
            return Err(self.wrong_state("resume"));
        };
        if self.gate.reason().is_some() {
            return Err(self.wrong_state("resume"));
        }
        Self::resume_parts(parts)?;
        self.gate.resume();
        Ok(())
    }

    fn resume_parts(parts: &Parts) -> Result<(), MachineError> {
        for device in &parts.devices {
            device.resume()?;
        }
        Ok(())
    }

    /// Presses the power button, by ACPI. What the guest does then is its own business; a kernel
    /// without a driver for it does nothing.
    ///
    /// # Errors
    ///
    /// [`MachineError::State`] when the machine was not started or has ended.
    pub fn press_power_button(&self) -> Result<(), MachineError> {
        let stage = self.stage();
        match &*stage {
            Stage::Started(parts, _) if self.gate.reason().is_none() => parts
                .power
                .press_button()
                .map_err(MachineError::PowerButton),
            _ => Err(self.wrong_state("press the power button of")),
        }
    }

    /// Ends the machine at once, whatever the guest does, and returns when its threads are gone
    /// and its devices closed. Its memory is given back by a thread of its own
    /// ([`reaper::wait_idle`] waits for that). Does nothing the second time.
    pub fn stop(&self) {
        // Before the lock: it ends a pause that is under way.
        self.gate.finish(ExitReason::Stopped);
        let mut stage = self.stage();
        let (mut parts, runners, threads) = match std::mem::replace(&mut *stage, Stage::Stopped) {
            Stage::Built(parts, runners) => (parts, runners, Vec::new()),
            Stage::Started(parts, threads) => (parts, Vec::new(), threads),
            Stage::Stopped => return,
        };
        // Before the vCPUs are waited for: one may be inside a call that waits for a back end,
        // which stopping the device breaks off.
        for device in &parts.devices {
            device.stop();
        }
        let joined = threads.into_iter().filter_map(VcpuThread::join);
        let runners: Vec<_> = runners.into_iter().chain(joined).collect();
        if let Some(console) = &mut parts.console {
            console.stop();
        }
        reaper::reap((runners, parts));
    }

    /// Waits until the guest has ended or the machine was stopped, and tells why. The machine
    /// still has to be stopped then.
    #[must_use]
    pub fn wait(&self) -> ExitReason {
        self.gate.wait()
    }

    /// What the machine did and took so far. Waits for nobody.
    #[must_use]
    pub fn metrics(&self) -> MachineMetrics {
        let exits = self
            .vcpus
            .iter()
            .map(|counters| counters.metrics())
            .fold(ExitMetrics::default(), ExitMetrics::plus);
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        MachineMetrics {
            exits,
            console: self.console.metrics(),
            device_failures: failures.clone(),
            vcpu_times: self.vcpus.iter().map(|vcpu| vcpu.thread().time()).collect(),
            device_time: self
                .devices
                .iter()
                .map(PluggedMeter::time)
                .sum::<Duration>()
                + self.console.thread().time(),
            ram_bytes: self
                .ram_file
                .upgrade()
                .map_or(0, |file| allocated_bytes(&file)),
            devices: self.devices.iter().map(PluggedMeter::metrics).collect(),
        }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        // A panic in between leaves `Stopped`, which is safe: what was owned has been dropped.
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrong_state(&self, operation: &'static str) -> MachineError {
        MachineError::State {
            operation,
            ended: self.gate.reason(),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}
