//! What a driver has negotiated, and the rules by which it may do so (virtio 1.2, sections 2.1,
//! 3.1 and 4.2.2). Plain data: no descriptors, so it can be written to a snapshot.

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_F_VERSION_1,
};

/// Feature bits that change what a transport has to do, and that none of ours does: platform
/// access (33), packed rings (34), SR-IOV (37), data in notifications (38, 39), reset of single
/// queues (40), administration queues (41). The vhost bits for logging (26) and for the protocol
/// features (30) are between front end and back end and not the driver's.
const WITHHELD: u64 =
    1 << 26 | 1 << 30 | 1 << 33 | 1 << 34 | 1 << 37 | 1 << 38 | 1 << 39 | 1 << 40 | 1 << 41;

/// What a transport offers of the features that a device has.
#[must_use]
pub(super) fn offered_features(device: u64) -> u64 {
    (device & !WITHHELD) | 1 << VIRTIO_F_VERSION_1
}

/// One queue as the driver set it up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueState {
    /// Largest size that the device takes, in descriptors.
    pub max_size: u16,
    /// Size that the driver chose; 0 until it chose a valid one.
    pub size: u16,
    /// The driver finished setting it up.
    pub ready: bool,
    /// Guest physical address of the descriptor table.
    pub descriptor_table: u64,
    /// Guest physical address of the available ring.
    pub avail_ring: u64,
    /// Guest physical address of the used ring.
    pub used_ring: u64,
    /// How far the device got in the two rings.
    pub position: RingPosition,
}

/// How far a device got in a queue; both wrap at 2^16.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingPosition {
    /// Next entry of the available ring to be taken.
    pub next_avail: u16,
    /// Next entry of the used ring to be written.
    pub next_used: u16,
}

/// What a write of the status register asks of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatusChange {
    /// Nothing beyond the register.
    None,
    /// The device goes live: `DRIVER_OK`.
    Activate,
    /// Back to the state after creation.
    Reset,
}

/// A device as its driver sees it through the transport.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransportState {
    /// Status bits that the driver set; `DEVICE_NEEDS_RESET` is not among them.
    pub status: u32,
    /// Features offered to the driver.
    pub offered_features: u64,
    /// Features that the driver took.
    pub driver_features: u64,
    /// The driver took a feature bit above 63.
    pub unknown_features: bool,
    /// Which 32 bits the driver reads of the offered features.
    pub device_features_select: u32,
    /// Which 32 bits the driver writes of its features.
    pub driver_features_select: u32,
    /// Which queue the queue registers are about.
    pub queue_select: u32,
    /// The queues.
    pub queues: Vec<QueueState>,
}

/// A register that belongs to the selected queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueueRegister {
    Size,
    Ready,
    DescriptorLow,
    DescriptorHigh,
    AvailLow,
    AvailHigh,
    UsedLow,
    UsedHigh,
}

impl TransportState {
    /// The state before a driver came.
    pub(super) fn new(offered_features: u64, queue_sizes: &[u16]) -> Self {
        Self {
            offered_features,
            queues: queue_sizes
                .iter()
                .map(|&max_size| QueueState {
                    max_size,
                    ..QueueState::default()
                })
                .collect(),
            ..Self::default()
        }
    }

    pub(super) fn reset(&mut self) {
        let sizes: Vec<u16> = self.queues.iter().map(|queue| queue.max_size).collect();
        *self = Self::new(self.offered_features, &sizes);
    }

    pub(super) fn has(&self, bit: u32) -> bool {
        self.status & bit != 0
    }

    /// Takes a write of the status register. Bits only ever come on, each after those that go
    /// before it; what breaks the order is not taken, and the driver can read that back.
    /// `accept_features` is false for a device that can serve no driver any more.
    pub(super) fn set_status(&mut self, value: u32, accept_features: bool) -> StatusChange {
        if value == 0 {
            self.reset();
            return StatusChange::Reset;
        }
        if self.status & !value != 0 {
            return StatusChange::None;
        }
        let steps = [
            (VIRTIO_CONFIG_S_ACKNOWLEDGE, 0),
            (VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_ACKNOWLEDGE),
            (VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_DRIVER),
            (VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK),
        ];
        let new = value & !self.status;
        let mut change = StatusChange::None;
        for (bit, before) in steps {
            let in_order = before == 0 || self.has(before);
            if new & bit == 0 || !in_order || self.has(VIRTIO_CONFIG_S_FAILED) {
                continue;
            }
            if bit == VIRTIO_CONFIG_S_FEATURES_OK
                && !(accept_features && self.features_acceptable())
            {
                continue;
            }
            self.status |= bit;
            if bit == VIRTIO_CONFIG_S_DRIVER_OK {
                change = StatusChange::Activate;
            }
        }
        self.status |= new & VIRTIO_CONFIG_S_FAILED;
        change
    }

    fn features_acceptable(&self) -> bool {
        !self.unknown_features
            && self.driver_features & !self.offered_features == 0
            && self.driver_features & (1 << VIRTIO_F_VERSION_1) != 0
    }

    /// The offered features that the driver selected to read.
    pub(super) fn device_features(&self) -> u32 {
        match self.device_features_select {
            0 => low(self.offered_features),
            1 => high(self.offered_features),
            _ => 0,
        }
    }

    /// Takes the driver's choice of features: between `DRIVER` and `FEATURES_OK`.
    pub(super) fn set_driver_features(&mut self, value: u32) {
        if !self.has(VIRTIO_CONFIG_S_DRIVER) || self.has(VIRTIO_CONFIG_S_FEATURES_OK) {
            return;
        }
        match self.driver_features_select {
            0 => set_low(&mut self.driver_features, value),
            1 => set_high(&mut self.driver_features, value),
            _ => self.unknown_features |= value != 0,
        }
    }

    /// The selected queue, if there is one of that index.
    pub(super) fn queue(&self) -> Option<&QueueState> {
        self.queues.get(usize::try_from(self.queue_select).ok()?)
    }

    /// Takes a write of a queue register: between `FEATURES_OK` and `DRIVER_OK`, and for all but
    /// [`QueueRegister::Ready`] only while the queue is not ready.
    pub(super) fn set_queue_register(&mut self, register: QueueRegister, value: u32) {
        let blocking = VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FAILED;
        if !self.has(VIRTIO_CONFIG_S_FEATURES_OK) || self.has(blocking) {
            return;
        }
        let Some(queue) = usize::try_from(self.queue_select)
            .ok()
            .and_then(|index| self.queues.get_mut(index))
        else {
            return;
        };
        if register == QueueRegister::Ready {
            match value {
                0 => queue.ready = false,
                1 => queue.ready = true,
                _ => {}
            }
            return;
        }
        if queue.ready {
            return;
        }
        match register {
            QueueRegister::Size => {
                // An impossible size is kept as 0, so that activation fails rather than runs
                // with rings that driver and device see differently.
                queue.size = u16::try_from(value)
                    .ok()
                    .filter(|size| size.is_power_of_two() && *size <= queue.max_size)
                    .unwrap_or(0);
            }
            QueueRegister::DescriptorLow => set_low(&mut queue.descriptor_table, value),
            QueueRegister::DescriptorHigh => set_high(&mut queue.descriptor_table, value),
            QueueRegister::AvailLow => set_low(&mut queue.avail_ring, value),
            QueueRegister::AvailHigh => set_high(&mut queue.avail_ring, value),
            QueueRegister::UsedLow => set_low(&mut queue.used_ring, value),
            QueueRegister::UsedHigh => set_high(&mut queue.used_ring, value),
            QueueRegister::Ready => {}
        }
    }
}

#[allow(clippy::cast_possible_truncation)] // The low half is what is asked for.
fn low(value: u64) -> u32 {
    value as u32
}

fn high(value: u64) -> u32 {
    low(value >> 32)
}

fn set_low(target: &mut u64, value: u32) {
    *target = (*target & !0xffff_ffff) | u64::from(value);
}

fn set_high(target: &mut u64, value: u32) {
    *target = (*target & 0xffff_ffff) | u64::from(value) << 32;
}
