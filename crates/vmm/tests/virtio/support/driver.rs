use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use microvm_vmm::bus::BusDevice;
use microvm_vmm::virtio::{DeviceEvent, MmioTransport, VirtioDeviceSource, VirtioError};
use virtio_bindings::virtio_mmio as register;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::Ring;

/// Long enough for the busiest machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A guest's driver: it knows the device by its registers alone.
pub struct Driver {
    pub transport: Arc<MmioTransport>,
    pub memory: Arc<GuestMemoryMmap>,
    events: Mutex<Receiver<DeviceEvent>>,
    line: Epoll,
}

impl Driver {
    pub const ACKNOWLEDGE: u32 = 1;
    pub const DRIVER: u32 = 2;
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const NEEDS_RESET: u32 = 64;
    pub const FAILED: u32 = 128;

    pub const VERSION_1: u64 = 1 << 32;
    pub const EVENT_IDX: u64 = 1 << 29;

    pub fn of(memory: Arc<GuestMemoryMmap>, source: VirtioDeviceSource) -> Self {
        Self::try_of(memory, source).unwrap()
    }

    pub fn try_of(
        memory: Arc<GuestMemoryMmap>,
        source: VirtioDeviceSource,
    ) -> Result<Self, VirtioError> {
        let (sender, events) = channel();
        let sender = Mutex::new(sender);
        let transport = MmioTransport::new(
            Arc::clone(&memory),
            source,
            Arc::new(move |event| {
                let _ = sender.lock().unwrap().send(event);
            }),
        )?;
        let line = Epoll::new().unwrap();
        line.ctl(
            ControlOperation::Add,
            std::os::fd::AsRawFd::as_raw_fd(transport.interrupt_line()),
            EpollEvent::new(EventSet::IN, 0),
        )
        .unwrap();
        Ok(Self {
            transport: Arc::new(transport),
            memory,
            events: Mutex::new(events),
            line,
        })
    }

    pub fn read(&self, offset: u32) -> u32 {
        let mut data = [0xaa; 4];
        self.transport.read(offset.into(), &mut data);
        u32::from_le_bytes(data)
    }

    pub fn write(&self, offset: u32, value: u32) {
        self.transport.write(offset.into(), &value.to_le_bytes());
    }

    pub fn status(&self) -> u32 {
        self.read(register::VIRTIO_MMIO_STATUS)
    }

    pub fn set_status(&self, status: u32) -> u32 {
        self.write(register::VIRTIO_MMIO_STATUS, status);
        self.status()
    }

    pub fn add_status(&self, bit: u32) -> u32 {
        self.set_status(self.status() | bit)
    }

    pub fn offered_features(&self) -> u64 {
        self.write(register::VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
        let low = self.read(register::VIRTIO_MMIO_DEVICE_FEATURES);
        self.write(register::VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
        let high = self.read(register::VIRTIO_MMIO_DEVICE_FEATURES);
        u64::from(high) << 32 | u64::from(low)
    }

    pub fn take_features(&self, features: u64) {
        self.write(register::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
        self.write(register::VIRTIO_MMIO_DRIVER_FEATURES, features as u32);
        self.write(register::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
        self.write(
            register::VIRTIO_MMIO_DRIVER_FEATURES,
            (features >> 32) as u32,
        );
    }

    /// From reset up to `FEATURES_OK`; returns the status.
    pub fn negotiate(&self, features: u64) -> u32 {
        self.set_status(0);
        self.add_status(Self::ACKNOWLEDGE);
        self.add_status(Self::DRIVER);
        self.take_features(features);
        self.add_status(Self::FEATURES_OK)
    }

    pub fn set_queue(&self, index: u32, size: u32, addresses: [u64; 3]) {
        self.write(register::VIRTIO_MMIO_QUEUE_SEL, index);
        self.write(register::VIRTIO_MMIO_QUEUE_NUM, size);
        let registers = [
            register::VIRTIO_MMIO_QUEUE_DESC_LOW,
            register::VIRTIO_MMIO_QUEUE_AVAIL_LOW,
            register::VIRTIO_MMIO_QUEUE_USED_LOW,
        ];
        for (register, address) in registers.into_iter().zip(addresses) {
            self.write(register, address as u32);
            self.write(register + 4, (address >> 32) as u32);
        }
        self.write(register::VIRTIO_MMIO_QUEUE_READY, 1);
    }

    /// From reset to a device that runs with these rings.
    pub fn start(&self, features: u64, rings: &[&Ring]) {
        let status = self.negotiate(features);
        assert_ne!(status & Self::FEATURES_OK, 0, "the device refused features");
        for (index, ring) in (0..).zip(rings) {
            self.set_queue(index, ring.size.into(), ring.addresses());
        }
        assert_eq!(self.add_status(Self::DRIVER_OK) & Self::NEEDS_RESET, 0);
    }

    pub fn kick(&self, queue: u32) {
        self.write(register::VIRTIO_MMIO_QUEUE_NOTIFY, queue);
    }

    /// Waits for the line and handles it as a driver does; returns the interrupt's status.
    pub fn wait_interrupt(&self) -> u32 {
        self.wait_line(PATIENCE).expect("no interrupt came")
    }

    /// The interrupt's status if the line was raised before.
    pub fn pending_interrupt(&self) -> Option<u32> {
        self.wait_line(Duration::ZERO)
    }

    fn wait_line(&self, patience: Duration) -> Option<u32> {
        let mut events = [EpollEvent::default()];
        let timeout = i32::try_from(patience.as_millis()).unwrap();
        if self.line.wait(timeout, &mut events).unwrap() == 0 {
            return None;
        }
        self.transport.interrupt_line().read().unwrap();
        let status = self.read(register::VIRTIO_MMIO_INTERRUPT_STATUS);
        self.write(register::VIRTIO_MMIO_INTERRUPT_ACK, status);
        Some(status)
    }

    pub fn wait_event(&self) -> DeviceEvent {
        self.events
            .lock()
            .unwrap()
            .recv_timeout(PATIENCE)
            .expect("no event came")
    }

    pub fn pending_event(&self) -> Option<DeviceEvent> {
        self.events.lock().unwrap().try_recv().ok()
    }

    /// Waits until the device used a buffer of the ring, by its interrupts.
    pub fn wait_used(&self, ring: &mut Ring) -> (u32, u32) {
        loop {
            if let Some(used) = ring.take_used() {
                return used;
            }
            self.wait_interrupt();
        }
    }
}
