//! Building a machine, in the order that costs the least: memory slots, interrupt controller,
//! vCPUs, then everything that registers eventfds with KVM. In another order each step waits for
//! a grace period of the kernel.

use std::error::Error as _;
use std::fmt::Write;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{CpuId, KVM_CAP_MAX_VCPUS, KVM_CAP_TSC_DEADLINE_TIMER};
use microvm_kvm::{Kvm, MemoryRegion, VirtualCpu, VirtualCpuRunner, VirtualMachine};
use vm_memory::{GuestAddress, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

use super::{Machine, MachineError, Parts, Stage};
use crate::acpi::{self, VirtioMmio};
use crate::arch::x86_64::{self, Topology, layout};
use crate::boot::{self, LoadedGuest};
use crate::bus::Bus;
use crate::config::{
    ConfigError, MEMORY_MIN, MachineConfig, VhostUserConfig, VhostUserPeer, VsockConfig,
    VsockHostEnd,
};
use crate::devices::rng::Rng;
use crate::devices::{Console, I8042, Power, Serial};
use crate::memory::{PageSize, Ram};
use crate::metrics::DeviceFailure;
use crate::run_loop::{Buses, Gate};
use crate::virtio::{
    self, DeviceEvent, DeviceEventKind, DeviceEvents, MmioSlot, PluggedDevice, VhostUserDevice,
    VhostVsockDevice, VirtioDeviceSource,
};

/// Failures of devices that are kept for the owner.
const FAILURES_MAX: usize = 64;

pub(super) fn build(mut config: MachineConfig) -> Result<Machine, MachineError> {
    config.validate()?;
    let kvm = match &config.kvm_device {
        Some(path) => Kvm::open_path(path)?,
        None => Kvm::open()?,
    };
    let cpuid = kvm.supported_cpuid()?;
    check_limits(&kvm, cpuid, &config)?;

    // What takes long or is often wrong comes before there is a VM to tear down.
    let page_size = if config.huge_pages {
        PageSize::Huge
    } else {
        PageSize::Base
    };
    let ram = Ram::new(config.memory_bytes, page_size)?;
    let guest = boot::load(
        &ram,
        &config.kernel,
        config.initramfs.as_deref(),
        &config.command_line,
    )?;
    let sources = device_sources(config.vsock.take(), config.rng)?;

    let vm = create_vm(&kvm, &ram)?;
    let vcpus = create_vcpus(&kvm, &vm, cpuid, config.cpus)?;
    if let Some(boot_cpu) = vcpus.first() {
        enter_guest(boot_cpu, &ram, &config, &guest)?;
    }

    let gate = Arc::new(Gate::new());
    let failures = Arc::new(Mutex::new(Vec::new()));
    let mut sources = sources;
    sources.extend(config.vhost_user.into_iter().map(vhost_user_source));
    let devices = plug(&vm, &ram, sources, &record_failures(&failures))?;
    write_acpi(&ram, config.cpus, &devices)?;

    let (serial, console) = connect_console(&vm, config.console)?;
    let power = Arc::new(Power::new(
        Arc::clone(&gate),
        interrupt(&vm, layout::EVENT_GSI)?,
    ));
    let buses = Arc::new(Buses {
        io: io_bus(&gate, &serial, &power)?,
        mmio: mmio_bus(&devices)?,
        memory: Arc::clone(ram.memory()),
    });
    let runners = vcpus
        .into_iter()
        .map(VirtualCpu::into_runner)
        .collect::<Result<Vec<VirtualCpuRunner>, _>>()?;
    let meters = devices
        .iter()
        .map(|device| device.meter().clone())
        .collect();
    let ram_file = ram.file();
    let parts = Parts {
        devices,
        console,
        power,
        buses,
        vm,
        ram,
    };
    Ok(Machine {
        gate,
        vcpus: runners.iter().map(|_| Arc::default()).collect(),
        console: serial.counters(),
        devices: meters,
        ram_file,
        failures,
        stage: Mutex::new(Stage::Built(parts, runners)),
    })
}

/// Limits of this host: vCPUs of a machine and width of its addresses.
fn check_limits(kvm: &Kvm, cpuid: &CpuId, config: &MachineConfig) -> Result<(), MachineError> {
    let max = kvm.check_extension(KVM_CAP_MAX_VCPUS.cast_signed())?;
    let max = u8::try_from(max).unwrap_or(u8::MAX);
    if config.cpus > max {
        let cpus = config.cpus;
        return Err(ConfigError::Cpus { cpus, max }.into());
    }
    // The RAM above the hole ends this far above the RAM's size.
    let hole = layout::RAM_ABOVE_4G - layout::MMIO_HOLE;
    let bits = x86_64::physical_address_bits(cpuid);
    let max = 1u64.checked_shl(bits).unwrap_or(u64::MAX) - hole;
    if config.memory_bytes > max {
        return Err(ConfigError::MemorySize {
            bytes: config.memory_bytes,
            min: MEMORY_MIN,
            max,
        }
        .into());
    }
    Ok(())
}

fn create_vm(kvm: &Kvm, ram: &Ram) -> Result<VirtualMachine, MachineError> {
    let vm = kvm.create_vm()?;
    for (slot, region) in (0..).zip(ram.regions()) {
        let GuestAddress(address) = region.start_addr();
        let region = Arc::new(MemoryRegion::from_guest_region(Arc::clone(region)));
        vm.set_guest_memory_region(slot, 0, address, region)?;
    }
    vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)?;
    vm.set_tss_address(layout::KVM_TSS)?;
    vm.create_irqchip()?;
    Ok(vm)
}

fn create_vcpus(
    kvm: &Kvm,
    vm: &VirtualMachine,
    supported: &CpuId,
    cpus: u8,
) -> Result<Vec<VirtualCpu>, MachineError> {
    let tsc_deadline = kvm.check_extension(KVM_CAP_TSC_DEADLINE_TIMER.cast_signed())? > 0;
    (0..cpus)
        .map(|cpu| {
            let vcpu = vm.create_vcpu(cpu.into())?;
            let cpuid = x86_64::guest_cpuid(supported, Topology { cpu, cpus }, tsc_deadline);
            x86_64::setup_vcpu(&vcpu, &cpuid)?;
            Ok(vcpu)
        })
        .collect()
}

fn enter_guest(
    boot_cpu: &VirtualCpu,
    ram: &Ram,
    config: &MachineConfig,
    guest: &LoadedGuest,
) -> Result<(), MachineError> {
    let memory = ram.memory();
    let map = x86_64::memory_map(config.memory_bytes);
    x86_64::write_boot_params(memory, &map, guest, config.command_line.len())
        .map_err(boot::BootError::from)?;
    x86_64::enter(boot_cpu, memory, guest.kernel.entry)?;
    Ok(())
}

/// Devices that take no other process.
fn device_sources(
    vsock: Option<VsockConfig>,
    rng: bool,
) -> Result<Vec<VirtioDeviceSource>, MachineError> {
    let mut sources = Vec::new();
    if let Some(vsock) = vsock {
        sources.push(vsock_source(vsock)?);
    }
    if rng {
        sources.push(VirtioDeviceSource::Hosted(Box::new(Rng::new())));
    }
    Ok(sources)
}

fn vsock_source(
    VsockConfig {
        guest_cid,
        host_end,
    }: VsockConfig,
) -> Result<VirtioDeviceSource, MachineError> {
    match host_end {
        VsockHostEnd::Unix(socket) => {
            let config = microvm_vsock::VsockConfig { guest_cid, socket };
            let device = microvm_vsock::VsockDevice::new(config).map_err(MachineError::Vsock)?;
            Ok(VirtioDeviceSource::Hosted(Box::new(device)))
        }
        VsockHostEnd::Vhost(device) => {
            let device = VhostVsockDevice { device, guest_cid };
            Ok(VirtioDeviceSource::VhostVsock(device))
        }
    }
}

fn vhost_user_source(config: VhostUserConfig) -> VirtioDeviceSource {
    VirtioDeviceSource::VhostUser(VhostUserDevice {
        peer: match config.peer {
            VhostUserPeer::Socket(path) => virtio::VhostUserPeer::Socket(path),
            VhostUserPeer::Fd(fd) => virtio::VhostUserPeer::Fd(fd),
        },
        device_type: config.device_type,
        queues: config.queues,
        queue_size: config.queue_size,
        config: None,
    })
}

fn plug(
    vm: &VirtualMachine,
    ram: &Ram,
    sources: Vec<VirtioDeviceSource>,
    events: &DeviceEvents,
) -> Result<Vec<PluggedDevice>, MachineError> {
    (0..)
        .zip(sources)
        .map(|(index, source)| {
            let slot = MmioSlot {
                base: layout::VIRTIO_MMIO + u64::from(index) * layout::VIRTIO_MMIO_STRIDE,
                gsi: layout::VIRTIO_GSI + index,
            };
            let memory = Arc::clone(ram.memory());
            Ok(virtio::plug(vm, memory, slot, source, Arc::clone(events))?)
        })
        .collect()
}

/// Keeps what devices report, for the owner to ask.
fn record_failures(failures: &Arc<Mutex<Vec<DeviceFailure>>>) -> DeviceEvents {
    let failures = Arc::clone(failures);
    Arc::new(move |event: DeviceEvent| {
        let message = match event.kind {
            DeviceEventKind::PeerLost(loss) => format!("vhost-user back end is lost: {loss}"),
            DeviceEventKind::Failed(error) => {
                let mut message = error.to_string();
                let mut cause = error.source();
                while let Some(error) = cause {
                    // Writing to a String cannot fail.
                    let _ = write!(message, ": {error}");
                    cause = error.source();
                }
                message
            }
        };
        let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() < FAILURES_MAX {
            failures.push(DeviceFailure {
                device_type: event.device_type,
                message,
            });
        }
    })
}

fn write_acpi(ram: &Ram, cpus: u8, devices: &[PluggedDevice]) -> Result<(), MachineError> {
    let devices: Vec<_> = devices
        .iter()
        .map(|device| VirtioMmio {
            // All lie below 4 GiB.
            base: u32::try_from(device.slot().base).unwrap_or(u32::MAX),
            gsi: device.slot().gsi,
        })
        .collect();
    acpi::write(ram.memory(), cpus, &devices)?;
    Ok(())
}

fn connect_console(
    vm: &VirtualMachine,
    stream: Option<OwnedFd>,
) -> Result<(Arc<Serial>, Option<Console>), MachineError> {
    let line = interrupt(vm, layout::COM1_GSI)?;
    let serial = Serial::new(line, stream.is_some()).map_err(MachineError::Eventfd)?;
    let serial = Arc::new(serial);
    let console = stream
        .map(|stream| Console::start(Arc::clone(&serial), stream))
        .transpose()?;
    Ok((serial, console))
}

/// An eventfd that raises interrupt `gsi` in the guest.
fn interrupt(vm: &VirtualMachine, gsi: u32) -> Result<EventFd, MachineError> {
    let line =
        EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(MachineError::Eventfd)?;
    vm.register_irqfd(&line, gsi)?;
    Ok(line)
}

fn io_bus(gate: &Arc<Gate>, serial: &Arc<Serial>, power: &Arc<Power>) -> Result<Bus, MachineError> {
    let mut bus = Bus::new();
    let com1 = (layout::COM1.into(), layout::COM1_LENGTH.into());
    bus.insert(com1.0, com1.1, Arc::clone(serial) as _)?;
    let i8042 = I8042::new(Arc::clone(gate));
    let length = layout::I8042_COMMAND - layout::I8042_DATA + 1;
    bus.insert(layout::I8042_DATA.into(), length.into(), Arc::new(i8042))?;
    let registers = layout::ACPI_SLEEP_CONTROL.into();
    bus.insert(
        registers,
        layout::ACPI_LENGTH.into(),
        Arc::clone(power) as _,
    )?;
    Ok(bus)
}

fn mmio_bus(devices: &[PluggedDevice]) -> Result<Bus, MachineError> {
    let mut bus = Bus::new();
    for device in devices {
        bus.insert(device.slot().base, MmioSlot::SIZE, device.bus_device())?;
    }
    Ok(bus)
}
