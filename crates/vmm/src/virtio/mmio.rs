//! The virtio-mmio transport, version 2 (virtio 1.2, section 4.2).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use microvm_kvm::VirtualMachine;
use microvm_virtio::DeviceMeter;
use virtio_bindings::virtio_config::{VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_NEEDS_RESET};
use virtio_bindings::virtio_mmio as register;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::error::VirtioError;
use super::interrupt::MmioInterrupt;
use super::meter::PluggedMeter;
use super::plug::{
    DeviceEvent, DeviceEventKind, DeviceEvents, MmioSlot, VhostVsockDevice, VirtioDeviceSource,
};
use super::state::{QueueRegister, StatusChange, TransportState, offered_features};
use super::transport::{Activation, DeviceHost, HostContext, Interrupt, Transport};
use super::{hosted, rings, vhost_kernel, vhost_user};
use crate::bus::BusDevice;

/// "virt", little-endian.
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// No vendor has been asked for a number; drivers match by device type.
const VENDOR: u32 = 0x4d56_4d55;
/// Most descriptors that a split queue may have (virtio 1.2, section 2.7).
const MAX_QUEUE_SIZE: u16 = 1 << 15;

/// One device's registers, and whoever runs its queues.
///
/// Registers are 32 bits wide and aligned; reads of any other kind give zeros, writes are not
/// taken. Only the configuration space takes all widths.
pub struct MmioTransport {
    inner: Mutex<Inner>,
    interrupt: Arc<MmioInterrupt>,
    kicks: Arc<[EventFd]>,
    memory: Arc<GuestMemoryMmap>,
    events: DeviceEvents,
    meter: PluggedMeter,
    canceller: Option<Box<dyn Fn() + Send + Sync>>,
}

struct Inner {
    state: TransportState,
    host: Box<dyn DeviceHost>,
}

impl std::fmt::Debug for MmioTransport {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("MmioTransport")
            .field("device_type", &self.device_type())
            .field("interrupt", &self.interrupt)
            .finish_non_exhaustive()
    }
}

impl MmioTransport {
    /// Makes the transport and the host of a device. A vhost-user back end is connected here, and
    /// the call waits for its answers (bounded in time).
    ///
    /// # Errors
    ///
    /// Where the device's queues are impossible, a descriptor or a thread cannot be had, or a back
    /// end does not come up to what is asked of it.
    pub fn new(
        memory: Arc<GuestMemoryMmap>,
        source: VirtioDeviceSource,
        events: DeviceEvents,
    ) -> Result<Self, VirtioError> {
        let (queues, unseen) = match &source {
            VirtioDeviceSource::Hosted(device) => (device.queue_sizes().len(), false),
            VirtioDeviceSource::VhostUser(device) => (usize::from(device.queues), true),
            VirtioDeviceSource::VhostVsock(_) => (vhost_kernel::QUEUES, true),
        };
        let kicks: Arc<[EventFd]> = (0..queues)
            .map(|_| event_descriptor("a kick descriptor"))
            .collect::<Result<_, _>>()?;
        let interrupt = Arc::new(MmioInterrupt::new(
            event_descriptor("the interrupt descriptor")?,
            unseen,
        ));
        let meter = Arc::new(DeviceMeter::new(if unseen { 0 } else { queues }));
        let context = HostContext {
            memory: Arc::clone(&memory),
            kicks: Arc::clone(&kicks),
            interrupt: Arc::clone(&interrupt) as Arc<dyn Interrupt>,
            meter: Arc::clone(&meter),
            events: Arc::clone(&events),
        };
        let host: Box<dyn DeviceHost> = match source {
            VirtioDeviceSource::Hosted(device) => {
                Box::new(hosted::HostedDevice::new(device, context)?)
            }
            VirtioDeviceSource::VhostUser(device) => {
                Box::new(vhost_user::VhostUserHost::connect(device, context)?)
            }
            VirtioDeviceSource::VhostVsock(VhostVsockDevice { device, guest_cid }) => {
                vhost_kernel::vsock(device, guest_cid, context)?
            }
        };
        let sizes = host.queue_sizes();
        let device_type = host.device_type();
        let wrong = |size| VirtioError::QueueLayout {
            device_type,
            queues: sizes.len(),
            size,
        };
        if sizes.is_empty() {
            return Err(wrong(0));
        }
        if let Some(&size) = sizes
            .iter()
            .find(|size| !size.is_power_of_two() || **size > MAX_QUEUE_SIZE)
        {
            return Err(wrong(size));
        }
        let state = TransportState::new(offered_features(host.features()), &sizes);
        Ok(Self {
            canceller: host.canceller(),
            inner: Mutex::new(Inner { state, host }),
            meter: PluggedMeter {
                device_type,
                acknowledged: Arc::clone(interrupt.acknowledged()),
                host: meter,
            },
            interrupt,
            kicks,
            memory,
            events,
        })
    }

    /// Lets KVM pass kicks and interrupts on by itself: an ioeventfd for each queue's
    /// `QueueNotify` value, an irqfd for the line. Comes after the vCPUs' creation, since each
    /// registration makes a later change of the VM wait for a grace period of the kernel's.
    ///
    /// They are never taken back: that would cost milliseconds each, and the VM's closing, which
    /// happens off everybody's path, does it.
    ///
    /// # Errors
    ///
    /// [`VirtioError::Kvm`] where KVM refuses.
    pub fn register(&self, vm: &VirtualMachine, slot: MmioSlot) -> Result<(), VirtioError> {
        let refused = |what| {
            move |error: microvm_kvm::Error| VirtioError::Kvm {
                what,
                base: slot.base,
                source: std::io::Error::from_raw_os_error(error.errno()),
            }
        };
        let notify = slot
            .base
            .saturating_add(u64::from(register::VIRTIO_MMIO_QUEUE_NOTIFY));
        for (index, kick) in (0_u32..).zip(self.kicks.iter()) {
            vm.register_mmio_ioeventfd(kick, notify, index)
                .map_err(refused("an ioeventfd"))?;
        }
        vm.register_irqfd(self.interrupt.line(), slot.gsi)
            .map_err(refused("the irqfd"))
    }

    /// Device type (virtio 1.2, section 5).
    #[must_use]
    pub fn device_type(&self) -> u32 {
        self.meter.device_type
    }

    /// What the device counts.
    #[must_use]
    pub fn meter(&self) -> &PluggedMeter {
        &self.meter
    }

    /// The descriptor of the interrupt line: readable where nothing is registered with KVM.
    #[must_use]
    pub fn interrupt_line(&self) -> &EventFd {
        self.interrupt.line()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_register(&self, offset: u32) -> u32 {
        match offset {
            // The two that interrupt handlers use go without the lock.
            register::VIRTIO_MMIO_INTERRUPT_STATUS => return self.interrupt.status(),
            register::VIRTIO_MMIO_CONFIG_GENERATION => return self.interrupt.generation(),
            register::VIRTIO_MMIO_MAGIC_VALUE => return MAGIC,
            register::VIRTIO_MMIO_VERSION => return VERSION,
            register::VIRTIO_MMIO_DEVICE_ID => return self.device_type(),
            register::VIRTIO_MMIO_VENDOR_ID => return VENDOR,
            // No shared memory: a region's length reads as -1.
            register::VIRTIO_MMIO_SHM_LEN_LOW
            | register::VIRTIO_MMIO_SHM_LEN_HIGH
            | register::VIRTIO_MMIO_SHM_BASE_LOW
            | register::VIRTIO_MMIO_SHM_BASE_HIGH => return u32::MAX,
            _ => {}
        }
        let state = &self.inner().state;
        match offset {
            register::VIRTIO_MMIO_DEVICE_FEATURES => state.device_features(),
            register::VIRTIO_MMIO_QUEUE_NUM_MAX => {
                state.queue().map_or(0, |queue| queue.max_size.into())
            }
            register::VIRTIO_MMIO_QUEUE_READY => {
                state.queue().map_or(0, |queue| queue.ready.into())
            }
            register::VIRTIO_MMIO_STATUS if self.interrupt.needs_reset() => {
                state.status | VIRTIO_CONFIG_S_NEEDS_RESET
            }
            register::VIRTIO_MMIO_STATUS => state.status,
            _ => 0,
        }
    }

    fn write_register(&self, offset: u32, value: u32) {
        match offset {
            register::VIRTIO_MMIO_INTERRUPT_ACK => return self.interrupt.acknowledge(value),
            register::VIRTIO_MMIO_QUEUE_NOTIFY => return self.kick(value),
            _ => {}
        }
        let mut inner = self.inner();
        let queue_register = match offset {
            register::VIRTIO_MMIO_DEVICE_FEATURES_SEL => {
                inner.state.device_features_select = value;
                return;
            }
            register::VIRTIO_MMIO_DRIVER_FEATURES_SEL => {
                inner.state.driver_features_select = value;
                return;
            }
            register::VIRTIO_MMIO_QUEUE_SEL => {
                inner.state.queue_select = value;
                return;
            }
            register::VIRTIO_MMIO_DRIVER_FEATURES => {
                return inner.state.set_driver_features(value);
            }
            register::VIRTIO_MMIO_STATUS => return self.set_status(&mut inner, value),
            register::VIRTIO_MMIO_QUEUE_NUM => QueueRegister::Size,
            register::VIRTIO_MMIO_QUEUE_READY => QueueRegister::Ready,
            register::VIRTIO_MMIO_QUEUE_DESC_LOW => QueueRegister::DescriptorLow,
            register::VIRTIO_MMIO_QUEUE_DESC_HIGH => QueueRegister::DescriptorHigh,
            register::VIRTIO_MMIO_QUEUE_AVAIL_LOW => QueueRegister::AvailLow,
            register::VIRTIO_MMIO_QUEUE_AVAIL_HIGH => QueueRegister::AvailHigh,
            register::VIRTIO_MMIO_QUEUE_USED_LOW => QueueRegister::UsedLow,
            register::VIRTIO_MMIO_QUEUE_USED_HIGH => QueueRegister::UsedHigh,
            _ => return,
        };
        inner.state.set_queue_register(queue_register, value);
    }

    /// A kick that KVM did not take for itself.
    fn kick(&self, queue: u32) {
        if !self.interrupt.driver_ok() {
            return;
        }
        let kick = usize::try_from(queue)
            .ok()
            .and_then(|index| self.kicks.get(index));
        if let Some(kick) = kick {
            // It fails only where the counter is full, and then the kick is known already.
            let _ = kick.write(1);
        }
    }

    fn set_status(&self, inner: &mut Inner, value: u32) {
        let change = inner.state.set_status(value, !self.interrupt.is_dead());
        match change {
            StatusChange::None => {}
            StatusChange::Reset => {
                inner.host.reset();
                self.interrupt.reset();
            }
            StatusChange::Activate => {
                self.interrupt.set_driver_ok();
                if let Err(error) = self.activate(inner) {
                    self.interrupt.fail(false);
                    // The loss of a back end is told by whoever watches it, a stop by nobody.
                    if !matches!(error, VirtioError::PeerLost(_) | VirtioError::Stopped) {
                        (self.events)(DeviceEvent {
                            device_type: self.device_type(),
                            kind: DeviceEventKind::Failed(error),
                        });
                    }
                }
            }
        }
    }

    fn activate(&self, inner: &mut Inner) -> Result<(), VirtioError> {
        let Inner { state, host } = inner;
        rings::check(&self.memory, &state.queues)?;
        host.activate(&Activation {
            features: state.driver_features,
            queues: &state.queues,
        })
    }
}

impl BusDevice for MmioTransport {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Ok(offset) = u32::try_from(offset) else {
            return;
        };
        if let Some(offset) = offset.checked_sub(register::VIRTIO_MMIO_CONFIG) {
            self.inner().host.read_config(offset, data);
            return;
        }
        if offset % 4 == 0
            && let Ok(data) = <&mut [u8; 4]>::try_from(data)
        {
            *data = self.read_register(offset).to_le_bytes();
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let Ok(offset) = u32::try_from(offset) else {
            return;
        };
        if let Some(offset) = offset.checked_sub(register::VIRTIO_MMIO_CONFIG) {
            let mut inner = self.inner();
            if inner.state.has(VIRTIO_CONFIG_S_DRIVER) {
                inner.host.write_config(offset, data);
            }
            return;
        }
        if offset % 4 == 0
            && let Ok(data) = <[u8; 4]>::try_from(data)
        {
            self.write_register(offset, u32::from_le_bytes(data));
        }
    }
}

impl Transport for MmioTransport {
    fn pause(&self) -> Result<(), VirtioError> {
        let mut inner = self.inner();
        let positions = inner.host.pause()?;
        for (queue, position) in inner.state.queues.iter_mut().zip(positions) {
            queue.position = position;
        }
        Ok(())
    }

    fn resume(&self) -> Result<(), VirtioError> {
        self.inner().host.resume()
    }

    fn stop(&self) {
        // A vCPU may be inside a call that waits for a back end, and hold the lock.
        if let Some(cancel) = &self.canceller {
            cancel();
        }
        self.inner().host.stop();
    }

    fn state(&self) -> TransportState {
        self.inner().state.clone()
    }
}

impl Drop for MmioTransport {
    fn drop(&mut self) {
        self.stop();
    }
}

fn event_descriptor(what: &'static str) -> Result<EventFd, VirtioError> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
        .map_err(|source| VirtioError::Descriptor { what, source })
}
