//! The device's queues (virtio 1.2, sections 5.10.2 and 5.10.6).

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use microvm_virtio::{Access, Device, DeviceError, GuestBuffer, QueueSet, ring};
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemory;

use crate::VsockError;
use crate::guest_socket;
use crate::muxer::{Muxer, Work};
use crate::packet::{HEADER_BYTES, HEADER_LEN, Header, op};
use crate::unix_socket::would_block;

/// Packets to the guest.
const RX: usize = 0;
/// Packets from the guest.
const TX: usize = 1;
/// Descriptors of each queue: rx, tx, event. Nothing is ever sent on the event queue: its one
/// event tells a guest that it was moved to another machine.
const QUEUE_SIZES: [u16; 3] = [256; 3];
/// Most chains that one read of a socket fills.
const MAX_BATCH: usize = 32;

/// What a vsock device needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VsockConfig {
    /// The guest's context id, from 3 to 4294967294. It only has to differ between guests that
    /// share a host kernel's own vsock; Unix sockets tell guests apart by their paths.
    pub guest_cid: u64,
    /// Where the device listens for the host's programs, with mode 0600. Nothing may be there
    /// yet. At most 96 bytes, so that `_<port>` still fits.
    pub socket: PathBuf,
}

/// A virtio-vsock device. Dropping it ends its connections and removes its socket.
#[derive(Debug)]
pub struct VsockDevice {
    guest_cid: u64,
    muxer: Muxer,
    /// Bytes in receive buffers that were filled and are yet to be counted.
    filled_bytes: u64,
}

impl VsockDevice {
    /// Makes the device; its socket accepts clients from now on, and they wait for the guest.
    ///
    /// # Errors
    ///
    /// Where the CID is reserved, the path too long, or the socket cannot be made.
    pub fn new(config: VsockConfig) -> Result<Self, VsockError> {
        let VsockConfig { guest_cid, socket } = config;
        if !(3..u64::from(u32::MAX)).contains(&guest_cid) {
            return Err(VsockError::GuestCid(guest_cid));
        }
        let muxer = Muxer::new(guest_cid, &socket)?;
        Ok(Self {
            guest_cid,
            muxer,
            filled_bytes: 0,
        })
    }

    /// Takes the guest's packets.
    fn drain_tx<M: GuestMemory>(
        &mut self,
        memory: &M,
        queues: &mut dyn QueueSet,
    ) -> Result<(), DeviceError> {
        let Some(queue) = queues.queue(TX) else {
            return Ok(());
        };
        let broken = || ring::broken(TX);
        let mut used = 0;
        let mut bytes = 0;
        while used < queue.size()
            && let Some(chain) = ring::pop(memory, queue).map_err(broken())?
        {
            let head = chain.head_index();
            // What is too short to name a connection can only be dropped.
            if let Some(packet) = GuestBuffer::gather(memory, chain, Access::Read) {
                bytes += packet.len() as u64;
                let mut header = [0; HEADER_LEN];
                if packet.read(0, &mut header) == HEADER_LEN {
                    self.muxer
                        .guest_packet(&Header::from_bytes(&header), &packet);
                }
            }
            queue.add_used(memory, head, 0).map_err(broken())?;
            used += 1;
        }
        if let Some(meter) = queues.meter() {
            meter.passed(TX, bytes);
        }
        if used > 0 {
            ring::notify(TX, memory, queues).map_err(broken())?;
        }
        Ok(())
    }

    /// Fills the guest's receive buffers with what there is for it.
    fn fill_rx<M: GuestMemory>(
        &mut self,
        memory: &M,
        queues: &mut dyn QueueSet,
    ) -> Result<(), DeviceError> {
        let Some(queue) = queues.queue(RX) else {
            return Ok(());
        };
        let broken = || ring::broken(RX);
        let used_before = queue.next_used();
        let mut left = usize::from(queue.size());
        // A connection whose socket turns out empty uses no chain, but is off the list then.
        while left > 0
            && let Some(work) = self.muxer.next_work()
        {
            let filled = match work {
                Work::Packet(header) => self.put_packet(memory, queue, &header),
                Work::Data { id, credit } => self.put_data(memory, queue, id, credit, left),
            }
            .map_err(broken())?;
            // Without buffers it goes on when the driver adds some.
            let Some(chains) = filled else { break };
            left = left.saturating_sub(chains);
        }
        let filled = queue.next_used() != used_before;
        if let Some(meter) = queues.meter() {
            meter.passed(RX, std::mem::take(&mut self.filled_bytes));
        }
        if filled {
            ring::notify(RX, memory, queues).map_err(broken())?;
        }
        Ok(())
    }

    /// Writes a packet without payload; `None` where the guest has no buffer for it.
    fn put_packet<M: GuestMemory>(
        &mut self,
        memory: &M,
        queue: &mut Queue,
        header: &Header,
    ) -> Result<Option<usize>, virtio_queue::Error> {
        let Some(chain) = ring::pop(memory, queue)? else {
            return Ok(None);
        };
        let head = chain.head_index();
        match GuestBuffer::gather(memory, chain, Access::Write) {
            Some(buffer) if buffer.len() >= HEADER_LEN => {
                buffer.write(0, &header.to_bytes());
                queue.add_used(memory, head, HEADER_BYTES)?;
                self.filled_bytes += u64::from(HEADER_BYTES);
                self.muxer.packet_sent(header);
            }
            // Given back empty; the packet waits for a better one.
            _ => queue.add_used(memory, head, 0)?,
        }
        Ok(Some(1))
    }

    /// Reads a connection's socket into the guest's buffers: several with one system call, each
    /// a packet of its own. Returns how many were filled; `None` where the guest has none.
    fn put_data<M: GuestMemory>(
        &mut self,
        memory: &M,
        queue: &mut Queue,
        id: u64,
        credit: u32,
        most: usize,
    ) -> Result<Option<usize>, virtio_queue::Error> {
        let Some(connection) = self.muxer.connection(id) else {
            self.muxer.data_done();
            return Ok(Some(0));
        };
        let limit = credit as usize;
        let batch = connection.batch.min(most);
        let mut heads = Vec::with_capacity(batch);
        let mut buffers = Vec::with_capacity(batch);
        let mut room = 0;
        while buffers.len() < batch && room < limit {
            let Some(chain) = ring::pop(memory, queue)? else {
                break;
            };
            let head = chain.head_index();
            match GuestBuffer::gather(memory, chain, Access::Write) {
                Some(buffer) if buffer.len() > HEADER_LEN => {
                    room += buffer.len() - HEADER_LEN;
                    heads.push(head);
                    buffers.push(buffer);
                }
                // Chains go back in order, so a bad one behind good ones waits its turn.
                _ if !buffers.is_empty() => {
                    ring::push_back(queue, 1);
                    break;
                }
                _ => {
                    queue.add_used(memory, head, 0)?;
                    return Ok(Some(1));
                }
            }
        }
        if buffers.is_empty() {
            return Ok(None);
        }
        let room = room.min(limit);
        let mut filled = 0;
        match guest_socket::receive(connection.socket(), &buffers, HEADER_LEN, room) {
            Ok(0) => connection.host_ended(),
            Ok(received) => {
                let mut left = received;
                for (head, buffer) in heads.iter().zip(&buffers) {
                    if left == 0 {
                        break;
                    }
                    let count = left.min(buffer.len() - HEADER_LEN);
                    left -= count;
                    let mut header = connection.header(op::RW);
                    // At most the credit, a u32.
                    header.len = u32::try_from(count).unwrap_or(u32::MAX);
                    buffer.write(0, &header.to_bytes());
                    let used = header.len + HEADER_BYTES;
                    queue.add_used(memory, *head, used)?;
                    self.filled_bytes += u64::from(used);
                    connection.sent(&header);
                    filled += 1;
                }
                // A full read promises more; a short one was all there is.
                connection.batch = if received == room {
                    (batch * 2).min(MAX_BATCH)
                } else {
                    filled.max(1)
                };
            }
            Err(error) if would_block(&error) => connection.host_drained(),
            Err(_) => connection.host_ended(),
        }
        ring::push_back(queue, buffers.len() - filled);
        self.muxer.data_done();
        Ok(Some(filled))
    }
}

impl<M: GuestMemory> Device<M> for VsockDevice {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC
    }

    fn read_config(&self, offset: u32, data: &mut [u8]) {
        let config = self.guest_cid.to_le_bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let known = config.get(start..).unwrap_or_default();
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = known.get(index).copied().unwrap_or(0);
        }
    }

    fn event_source(&self) -> Option<BorrowedFd<'_>> {
        Some(self.muxer.event_source())
    }

    fn queue_event(
        &mut self,
        index: usize,
        memory: &M,
        queues: &mut dyn QueueSet,
    ) -> Result<(), DeviceError> {
        if index == TX {
            self.drain_tx(memory, queues)?;
        }
        self.fill_rx(memory, queues)
    }

    fn host_event(&mut self, memory: &M, queues: &mut dyn QueueSet) -> Result<(), DeviceError> {
        self.muxer
            .host_event()
            .map_err(|source| DeviceError::Host {
                operation: "wait for its sockets",
                source,
            })?;
        self.fill_rx(memory, queues)
    }

    fn reset(&mut self) {
        self.muxer.reset();
    }
}
