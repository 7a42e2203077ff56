//! A machine of our own VMM.

use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use microvm_vmm::boot::{ExtractError, extract_vmlinux as extract};
use microvm_vmm::{
    ExitReason, Machine, MachineConfig, VhostUserConfig, VhostUserPeer, VsockConfig, VsockHostEnd,
    reaper,
};
use napi::Env;
use napi::bindgen_prelude::{BigInt, PromiseRaw};
use napi_derive::napi;

use crate::cleanup::{Stop, stop_at_end_of_env};
use crate::descriptor::duplicate;
use crate::error::BindingError;
use crate::metrics::{BindingMachineMetrics, machine_metrics};
use crate::promise;
use crate::slot::Slot;

/// What a machine is made of.
#[derive(Debug)]
#[napi(object)]
pub struct BindingMachineConfig {
    /// Number of vCPUs.
    pub cpus: u32,
    /// RAM in bytes.
    pub memory_bytes: BigInt,
    /// Back RAM with huge pages.
    pub huge_pages: bool,
    /// Path of the kernel.
    pub kernel: String,
    /// Path of the initramfs.
    pub initramfs: Option<String>,
    /// Kernel command line.
    pub command_line: String,
    /// The vsock device.
    pub vsock: Option<BindingMachineVsock>,
    /// Whether there is an entropy device.
    pub rng: bool,
    /// Devices of other processes.
    pub vhost_user: Vec<BindingVhostUser>,
    /// Path of the KVM device; `/dev/kvm` when absent.
    pub kvm_device: Option<String>,
}

/// The vsock device of a machine.
#[derive(Debug)]
#[napi(object)]
pub struct BindingMachineVsock {
    /// Context ID of the guest.
    pub guest_cid: u32,
    /// Path of its Unix socket, or else
    pub socket: Option<String>,
    /// an open vhost-vsock device that has the context ID. The caller keeps its own.
    pub vhost_fd: Option<RawFd>,
}

/// A vhost-user device of a machine.
#[derive(Debug)]
#[napi(object)]
pub struct BindingVhostUser {
    /// Path of the socket at which its back end listens.
    pub socket: String,
    /// Virtio device type.
    pub device_type: u32,
    /// Number of queues.
    pub queues: u16,
    /// Size of each queue.
    pub queue_size: u16,
}

/// Why a machine ended.
#[derive(Debug)]
#[napi(object)]
pub struct BindingMachineExit {
    /// Name of the reason.
    #[napi(
        ts_type = "'power-off' | 'reset' | 'triple-fault' | 'stopped' | 'internal-error' | 'failed'"
    )]
    pub reason: String,
    /// What there is to say about it.
    pub detail: Option<String>,
}

/// A machine; it is stopped at the latest when its environment ends.
#[derive(Debug)]
#[napi]
pub struct BindingMachine {
    /// Empty once it was stopped.
    machine: Slot<Owned>,
    console: Mutex<Option<OwnedFd>>,
}

/// The machine as the environment's clean-up sees it.
#[derive(Debug)]
struct Owned(Machine);

impl Stop for Owned {
    fn stop(&self) {
        self.0.stop();
    }
}

#[napi]
impl BindingMachine {
    /// Makes a machine with its kernel loaded; nothing runs yet.
    #[napi(catch_unwind, ts_return_type = "Promise<BindingMachine>")]
    pub fn create(
        env: &Env,
        config: BindingMachineConfig,
    ) -> napi::Result<PromiseRaw<'_, BindingMachine>> {
        let work = move || {
            let (near, far) = UnixStream::pair()
                .map_err(|error| BindingError::system("Cannot make a socket pair", &error))?;
            let machine = Machine::new(machine_config(config, far.into())?)?;
            Ok((machine, OwnedFd::from(near)))
        };
        promise::blocking_then(env, work, |env, (machine, console)| {
            let machine = Arc::new(Owned(machine));
            stop_at_end_of_env(env, &machine)?;
            Ok(BindingMachine {
                machine: Slot::new(machine),
                console: Mutex::new(Some(console)),
            })
        })
    }

    /// Lets the vCPUs run.
    #[napi(catch_unwind)]
    pub fn start(&self, env: Env) -> napi::Result<()> {
        let started = self.running().and_then(|machine| Ok(machine.0.start()?));
        started.map_err(|error| error.into_js(&env))
    }

    /// Stops the vCPUs; resolves when they stand.
    #[napi(catch_unwind)]
    pub fn pause<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, ()>> {
        let machine = self.running().map_err(|error| error.into_js(env))?;
        promise::blocking(env, move || Ok(machine.0.pause()?))
    }

    /// Lets paused vCPUs run on.
    #[napi(catch_unwind)]
    pub fn resume<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, ()>> {
        let machine = self.running().map_err(|error| error.into_js(env))?;
        promise::blocking(env, move || Ok(machine.0.resume()?))
    }

    /// What it did and took so far. Waits for nobody.
    #[napi(catch_unwind)]
    pub fn metrics(&self, env: Env) -> napi::Result<BindingMachineMetrics> {
        let machine = self.running().map_err(|error| error.into_js(&env))?;
        Ok(machine_metrics(machine.0.metrics()))
    }

    /// Presses the power button.
    #[napi(catch_unwind)]
    pub fn press_power_button(&self, env: Env) -> napi::Result<()> {
        let pressed = self
            .running()
            .and_then(|machine| Ok(machine.0.press_power_button()?));
        pressed.map_err(|error| error.into_js(&env))
    }

    /// Ends the machine; resolves when nothing of it is left, which the kernel may take tens of
    /// milliseconds for. Idempotent.
    #[napi(catch_unwind)]
    pub fn stop<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, ()>> {
        let machine = self.machine.clone();
        promise::blocking(env, move || {
            machine.stop();
            reaper::wait_idle();
            Ok(())
        })
    }

    /// The same, for a process that is about to exit.
    #[napi(catch_unwind)]
    pub fn stop_sync(&self) {
        self.machine.stop();
    }

    /// The host end of the serial console, which then belongs to the caller.
    #[napi(catch_unwind)]
    pub fn take_console(&self, env: Env) -> napi::Result<RawFd> {
        let mut console = self.console.lock().unwrap_or_else(PoisonError::into_inner);
        console
            .take()
            .map(IntoRawFd::into_raw_fd)
            .ok_or_else(|| BindingError::invalid("The console was taken before").into_js(&env))
    }

    /// Resolves with the reason when the machine has ended.
    #[napi(catch_unwind)]
    pub fn wait<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, BindingMachineExit>> {
        let machine = self.running().map_err(|error| error.into_js(env))?;
        promise::waiting(env, "machine-wait", move || exit(machine.0.wait()))
    }

    fn running(&self) -> Result<Arc<Owned>, BindingError> {
        let machine = self.machine.get();
        machine.ok_or_else(BindingError::ended)
    }
}

/// Unpacks the kernel of a bzImage into `out`, which appears whole or not at all. False where its
/// compression is not one that is unpacked here: then the bzImage is booted.
#[napi(catch_unwind)]
pub fn extract_vmlinux(
    env: &Env,
    bz_image: String,
    out: String,
) -> napi::Result<PromiseRaw<'_, bool>> {
    promise::blocking(env, move || {
        match extract(Path::new(&bz_image), Path::new(&out)) {
            Ok(()) => Ok(true),
            Err(ExtractError::Compression { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    })
}

fn machine_config(
    config: BindingMachineConfig,
    console: OwnedFd,
) -> Result<MachineConfig, BindingError> {
    let (negative, memory_bytes, lossless) = config.memory_bytes.get_u64();
    if negative || !lossless {
        return Err(BindingError::invalid("memoryBytes is out of range"));
    }
    let vsock = config.vsock.map(vsock_config).transpose()?;
    let vhost_user = config.vhost_user.into_iter().map(|device| VhostUserConfig {
        peer: VhostUserPeer::Socket(PathBuf::from(device.socket)),
        device_type: device.device_type,
        queues: device.queues,
        queue_size: device.queue_size,
    });
    Ok(MachineConfig {
        cpus: u8::try_from(config.cpus)
            .map_err(|_| BindingError::invalid("cpus is out of range"))?,
        memory_bytes,
        huge_pages: config.huge_pages,
        kernel: PathBuf::from(config.kernel),
        initramfs: config.initramfs.map(PathBuf::from),
        command_line: config.command_line,
        vsock,
        rng: config.rng,
        vhost_user: vhost_user.collect(),
        console: Some(console),
        kvm_device: config.kvm_device.map(PathBuf::from),
    })
}

fn vsock_config(vsock: BindingMachineVsock) -> Result<VsockConfig, BindingError> {
    let host_end = match (vsock.socket, vsock.vhost_fd) {
        (Some(socket), None) => VsockHostEnd::Unix(PathBuf::from(socket)),
        (None, Some(device)) => VsockHostEnd::Vhost(duplicate(device)?),
        _ => return Err(BindingError::invalid("A vsock device has one host end")),
    };
    Ok(VsockConfig {
        guest_cid: vsock.guest_cid.into(),
        host_end,
    })
}

fn exit(reason: ExitReason) -> BindingMachineExit {
    let (reason, detail) = match reason {
        ExitReason::PowerOff => ("power-off", None),
        ExitReason::Reset => ("reset", None),
        ExitReason::TripleFault => ("triple-fault", None),
        ExitReason::Stopped => ("stopped", None),
        ExitReason::InternalError(detail) => ("internal-error", Some(detail)),
        ExitReason::Failed(detail) => ("failed", Some(detail)),
    };
    BindingMachineExit {
        reason: reason.to_owned(),
        detail,
    }
}
