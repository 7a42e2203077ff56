//! The vhost-user front end: devices whose queues another process runs.
//!
//! The back end gets the memfd of guest memory, the queues' kick descriptors (which KVM signals)
//! and the interrupt line (which KVM listens to): once it runs, no request passes through this
//! process. All that is left here is to set it up, to take its rings back, and to notice when it
//! is gone.

mod config_space;
mod connect;
mod memory_table;
mod peer;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use vm_memory::{Bytes, GuestAddress};

use self::config_space::ConfigSpace;
use self::peer::{Exchange, Peer};
use super::error::VirtioError;
use super::plug::{DeviceEvent, DeviceEventKind, VhostUserDevice};
use super::state::{QueueState, RingPosition};
use super::transport::{Activation, DeviceHost, HostContext};

/// Longest that a back end may take to connect, to take a device over or to give it back. Each of
/// these is a millisecond's work; the driver's vCPU waits meanwhile.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The kind of access to the configuration space: the driver's. On the wire it is the absence of
/// bit 0, which crate `vhost` calls `WRITABLE` and which marks a live migration.
const OF_THE_DRIVER: VhostUserConfigFlags = VhostUserConfigFlags::empty();

/// A device behind a vhost-user back end.
pub(super) struct VhostUserHost {
    peer: Peer,
    device_type: u32,
    queue_sizes: Vec<u16>,
    features: u64,
    /// Rings are enabled by a message of their own.
    enables_rings: bool,
    config: ConfigSpace,
    context: HostContext,
    memory_known: bool,
    /// What the driver set up, while it is set up.
    active: Option<Active>,
    paused: bool,
}

struct Active {
    features: u64,
    queues: Vec<QueueState>,
}

impl VhostUserHost {
    /// Connects and agrees on features. The rings wait for the driver.
    pub(super) fn connect(
        device: VhostUserDevice,
        context: HostContext,
    ) -> Result<Self, VirtioError> {
        Self::connect_within(device, context, TIMEOUT)
    }

    fn connect_within(
        device: VhostUserDevice,
        context: HostContext,
        timeout: Duration,
    ) -> Result<Self, VirtioError> {
        // Better refused now than at the driver's start.
        memory_table::regions(&context.memory)?;
        let VhostUserDevice {
            peer,
            device_type,
            queues,
            queue_size,
            config,
        } = device;
        let socket = connect::open(peer, timeout)?;
        let on_loss = {
            let context = context.clone();
            Box::new(move |loss: &_| {
                context.interrupt.fail(true);
                (context.events)(DeviceEvent {
                    device_type,
                    kind: DeviceEventKind::PeerLost(Clone::clone(loss)),
                });
            })
        };
        let name = format!("vhost-user-{device_type}");
        let clock = Arc::clone(context.meter.thread());
        let peer = Peer::new(socket, queues, name, timeout, on_loss, clock)?;

        let mut exchange = peer.begin()?;
        exchange.call("take an owner", |peer| peer.set_owner())?;
        let features = exchange.call("tell its features", |peer| peer.get_features())?;
        if features & (1 << VIRTIO_F_VERSION_1) == 0 {
            return Err(VirtioError::LegacyPeer);
        }
        let protocol = negotiate_protocol(&mut exchange, features)?;
        if protocol.contains(VhostUserProtocolFeatures::MQ) {
            let available = exchange.call("tell its queues", |peer| peer.get_queue_num())?;
            if available < u64::from(queues) {
                return Err(VirtioError::TooFewQueues {
                    wanted: queues,
                    available,
                });
            }
        }
        let config = match config {
            Some(bytes) => ConfigSpace::fixed(bytes),
            None if protocol.contains(VhostUserProtocolFeatures::CONFIG) => {
                read_peer_config(&mut exchange, device_type)?
            }
            None => ConfigSpace::default(),
        };
        drop(exchange);

        Ok(Self {
            peer,
            device_type,
            queue_sizes: vec![queue_size; queues.into()],
            features,
            enables_rings: features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() != 0,
            config,
            context,
            memory_known: false,
            active: None,
            paused: false,
        })
    }

    /// Hands the rings over, from where they are.
    fn start_rings(&mut self) -> Result<(), VirtioError> {
        let Some(active) = &self.active else {
            return Ok(());
        };
        let memory = &self.context.memory;
        let mut exchange = self.peer.begin()?;
        let protocol_features = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() & self.features;
        exchange.call("take the driver's features", |peer| {
            peer.set_features(active.features | protocol_features)
        })?;
        if !self.memory_known {
            let regions = memory_table::regions(memory)?;
            exchange.call("map guest memory", |peer| peer.set_mem_table(&regions))?;
            self.memory_known = true;
        }
        for (index, queue) in ready(&active.queues) {
            let addresses =
                memory_table::ring_addresses(memory, queue).ok_or(VirtioError::Ring {
                    queue: index,
                    reason: "it is outside guest memory",
                })?;
            let kick = self.context.kicks.get(index).ok_or(VirtioError::Stopped)?;
            exchange.call("take a ring's size", |peer| {
                peer.set_vring_num(index, queue.size)
            })?;
            exchange.call("take a ring's addresses", |peer| {
                peer.set_vring_addr(index, &addresses)
            })?;
            exchange.call("take a ring's position", |peer| {
                peer.set_vring_base(index, queue.position.next_avail)
            })?;
            exchange.call("take a ring's interrupt", |peer| {
                peer.set_vring_call(index, self.context.interrupt.queue_descriptor(index))
            })?;
            exchange.call("take a ring's error descriptor", |peer| {
                peer.set_vring_err(index, self.peer.ring_error())
            })?;
            exchange.call("take a ring's kicks", |peer| {
                peer.set_vring_kick(index, kick)
            })?;
            if self.enables_rings {
                exchange.call("enable a ring", |peer| peer.set_vring_enable(index, true))?;
            }
            // For buffers from before, and for back ends that lose a kick before the enabling.
            let _ = kick.write(1);
        }
        Ok(())
    }

    /// Counts a back end as lost that declined what it cannot decline.
    fn give_up(&self, error: VirtioError) -> VirtioError {
        match error {
            VirtioError::Declined { operation } => self.peer.distrust(operation, "it declined"),
            error => error,
        }
    }

    /// Takes the rings back, and notes how far the back end got. When this returns well, the back
    /// end does no more work on them.
    fn stop_rings(&mut self) -> Result<(), VirtioError> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let mut exchange = self.peer.begin()?;
        for (index, queue) in active.queues.iter_mut().enumerate() {
            if !queue.ready {
                continue;
            }
            if self.enables_rings {
                exchange.call("disable a ring", |peer| peer.set_vring_enable(index, false))?;
            }
            let base = exchange.call("give a ring back", |peer| peer.get_vring_base(index))?;
            queue.position = RingPosition {
                next_avail: u16::try_from(base).map_err(|_| {
                    self.peer
                        .distrust("give a ring back", "its position is above 65535")
                })?,
                // The back end's own account, which is in guest memory.
                next_used: self
                    .context
                    .memory
                    .load(
                        GuestAddress(queue.used_ring.saturating_add(2)),
                        Ordering::Acquire,
                    )
                    .map_or(0, u16::from_le),
            };
        }
        Ok(())
    }
}

/// Agrees on what of the protocol is used: queue count, configuration space, acknowledgements.
fn negotiate_protocol(
    exchange: &mut Exchange<'_>,
    features: u64,
) -> Result<VhostUserProtocolFeatures, VirtioError> {
    if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
        return Ok(VhostUserProtocolFeatures::empty());
    }
    let ours = VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::REPLY_ACK;
    let offered = exchange.call("tell its protocol features", |peer| {
        peer.get_protocol_features()
    })?;
    let agreed = offered & ours;
    exchange.call("take the protocol features", |peer| {
        peer.set_protocol_features(agreed)
    })?;
    if agreed.contains(VhostUserProtocolFeatures::REPLY_ACK) {
        exchange.call("acknowledge requests", |peer| {
            peer.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
            Ok(())
        })?;
    }
    Ok(agreed)
}

fn read_peer_config(
    exchange: &mut Exchange<'_>,
    device_type: u32,
) -> Result<ConfigSpace, VirtioError> {
    let length = config_space::length(device_type);
    let payload = vec![0; usize::try_from(length).unwrap_or(0)];
    let read = exchange.call("tell its configuration space", |peer| {
        peer.get_config(0, length, OF_THE_DRIVER, &payload)
    });
    match read {
        Ok((_, bytes)) => Ok(ConfigSpace::of_peer(bytes)),
        // It has none.
        Err(VirtioError::Declined { .. }) => Ok(ConfigSpace::default()),
        Err(error) => Err(error),
    }
}

fn ready(queues: &[QueueState]) -> impl Iterator<Item = (usize, &QueueState)> {
    queues.iter().enumerate().filter(|(_, queue)| queue.ready)
}

impl DeviceHost for VhostUserHost {
    fn device_type(&self) -> u32 {
        self.device_type
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> Vec<u16> {
        self.queue_sizes.clone()
    }

    fn read_config(&self, offset: u32, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn write_config(&mut self, offset: u32, data: &[u8]) {
        if !self.config.takes(offset, data.len()) {
            return;
        }
        let written = self.peer.begin().and_then(|mut exchange| {
            exchange.call("take a write to its configuration space", |peer| {
                peer.set_config(offset, OF_THE_DRIVER, data)
            })
        });
        if written.is_ok() {
            self.config.write(offset, data);
        }
    }

    fn activate(&mut self, activation: &Activation<'_>) -> Result<(), VirtioError> {
        self.active = Some(Active {
            features: activation.features,
            queues: activation.queues.to_vec(),
        });
        if self.paused {
            return Ok(());
        }
        self.start_rings()
    }

    fn reset(&mut self) {
        // A paused device has its rings back already. A back end that does not give them back is
        // told to the owner by whoever watches it.
        if !self.paused {
            let _ = self.stop_rings().map_err(|error| self.give_up(error));
        }
        self.active = None;
    }

    fn pause(&mut self) -> Result<Vec<RingPosition>, VirtioError> {
        if !self.paused && !self.peer.is_lost() {
            // Some rings may be back and others not, which is no state to go on from.
            self.stop_rings().map_err(|error| self.give_up(error))?;
        }
        self.paused = true;
        Ok(match &self.active {
            Some(active) => active.queues.iter().map(|queue| queue.position).collect(),
            None => Vec::new(),
        })
    }

    fn resume(&mut self) -> Result<(), VirtioError> {
        if self.paused && !self.peer.is_lost() {
            self.start_rings().map_err(|error| self.give_up(error))?;
        }
        self.paused = false;
        Ok(())
    }

    fn stop(&mut self) {
        self.peer.stop();
    }

    fn canceller(&self) -> Option<Box<dyn Fn() + Send + Sync>> {
        Some(Box::new(self.peer.canceller()))
    }
}
