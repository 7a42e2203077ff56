//! A guest's vsock driver, down to the rings, on memory that both hosts can map.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::rings::{Descriptor, INDIRECT, NEXT, Ring, WRITE};
use super::{Carrier, Header, PATIENCE};

pub const MEMORY_LEN: usize = 16 << 20;
pub const RX: usize = 0;
pub const TX: usize = 1;
const QUEUE_SIZE: u16 = 64;
const RINGS: u64 = 0x10_0000;
const RX_BUFFERS: u64 = 0x40_0000;
const RX_BUFFER_LEN: u32 = 4096;
const TX_BUFFERS: u64 = 0x80_0000;
const TX_BUFFER_LEN: u64 = 0x1_1000;
/// Stands for a descriptor's own index.
pub const SELF: u16 = 0xfffe;
const INDIRECT_TABLES: u64 = 0x20_0000;

/// How the driver cuts its packets into descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Header and payload in one descriptor, as Linux does since 6.2.
    One,
    /// A descriptor each, as older drivers do.
    Two,
    /// Pieces of odd sizes, across the header's end too, as any driver may.
    Many,
    /// The same by an indirect table.
    Indirect,
}

pub struct Driver {
    pub memory: GuestMemoryMmap,
    pub rx: Ring,
    pub tx: Ring,
    events: Ring,
    pub layout: Layout,
    kicks: [EventFd; 3],
    calls: [EventFd; 3],
    free_tx: VecDeque<u16>,
    /// Receive buffers that were used and not given back yet.
    held_rx: VecDeque<u16>,
    raw_rx: Vec<u16>,
    /// Whether used receive buffers go back at once.
    pub refill: bool,
    pub carrier: Box<dyn Carrier>,
    event_idx: bool,
}

/// What a carrier needs to serve a driver.
pub struct Setup<'a> {
    pub memory: &'a GuestMemoryMmap,
    pub rings: [&'a Ring; 3],
    pub kicks: &'a [EventFd; 3],
    pub calls: &'a [EventFd; 3],
    pub event_idx: bool,
}

impl Driver {
    pub fn new(carrier: Box<dyn Carrier>, event_idx: bool) -> Self {
        let memory = shared_memory();
        let events = || [(); 3].map(|()| EventFd::new(EFD_NONBLOCK).unwrap());
        let (rx, tx, event_queue) = rings(&memory, event_idx);
        let mut driver = Self {
            memory,
            rx,
            tx,
            events: event_queue,
            layout: Layout::One,
            kicks: events(),
            calls: events(),
            free_tx: VecDeque::new(),
            held_rx: VecDeque::new(),
            raw_rx: Vec::new(),
            refill: true,
            carrier,
            event_idx,
        };
        driver.start();
        driver
    }

    /// Resets the device and starts over, as a rebooted guest does.
    pub fn restart(&mut self) {
        self.carrier.reset();
        (self.rx, self.tx, self.events) = rings(&self.memory, self.event_idx);
        self.start();
    }

    fn start(&mut self) {
        self.free_tx = (0..QUEUE_SIZE / 2).collect();
        self.held_rx = (0..QUEUE_SIZE).collect();
        self.carrier.activate(&Setup {
            memory: &self.memory,
            rings: [&self.rx, &self.tx, &self.events],
            kicks: &self.kicks,
            calls: &self.calls,
            event_idx: self.event_idx,
        });
        if self.refill {
            self.give_rx_buffers();
        }
    }

    pub fn kick(&self, queue: usize) {
        self.kicks[queue].write(1).unwrap();
    }

    /// Gives all used receive buffers back.
    pub fn give_rx_buffers(&mut self) {
        let count = self.held_rx.len();
        self.give_some_rx_buffers(count);
    }

    pub fn give_some_rx_buffers(&mut self, count: usize) {
        let mut wanted = false;
        for _ in 0..count {
            let Some(index) = self.held_rx.pop_front() else {
                break;
            };
            self.rx.write_descriptor(
                index,
                Descriptor {
                    address: rx_buffer(index),
                    len: RX_BUFFER_LEN,
                    flags: WRITE,
                    next: 0,
                },
            );
            wanted |= self.rx.publish(index);
        }
        if wanted {
            self.kick(RX);
        }
    }

    /// The next packet from the device; waits for it.
    pub fn receive(&mut self) -> (Header, Vec<u8>) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(packet) = self.try_receive() {
                return packet;
            }
            self.rx.arm();
            if let Some(packet) = self.try_receive() {
                return packet;
            }
            self.wait(RX, deadline);
        }
    }

    /// The next packet that is there already.
    pub fn try_receive(&mut self) -> Option<(Header, Vec<u8>)> {
        let (index, written) = self.rx.take_used()?;
        let mut bytes = vec![0; written as usize];
        self.memory
            .read_slice(&mut bytes, GuestAddress(rx_buffer(index)))
            .unwrap();
        self.held_rx.push_back(index);
        if self.refill {
            self.give_rx_buffers();
        }
        assert!(bytes.len() >= 44, "a used buffer without a header");
        let header = Header::parse(&bytes);
        let payload = bytes.split_off(44);
        assert_eq!(header.len as usize, payload.len());
        Some((header, payload))
    }

    /// Sends a packet; waits while the ring is full.
    pub fn send(&mut self, header: Header, payload: &[u8]) {
        let slot = self.tx_slot();
        let mut bytes = header.bytes();
        bytes.extend(payload);
        let base = TX_BUFFERS + u64::from(slot) * TX_BUFFER_LEN;
        self.memory.write_slice(&bytes, GuestAddress(base)).unwrap();
        let cuts = match self.layout {
            Layout::One => vec![],
            Layout::Two => vec![44],
            Layout::Many | Layout::Indirect => vec![7, 43, 60, 1000],
        };
        let mut pieces = Vec::new();
        let mut start = 0;
        for cut in cuts.into_iter().chain([bytes.len()]) {
            let cut = cut.min(bytes.len());
            if cut > start {
                pieces.push((base + start as u64, (cut - start) as u32));
                start = cut;
            }
        }
        // Two descriptors a slot are the queue's; longer chains come as a table.
        let in_table = pieces.len() > 2 || self.layout == Layout::Indirect;
        if in_table && self.layout == Layout::Many {
            self.publish_long(slot, &pieces);
            return;
        }
        if in_table {
            let table = INDIRECT_TABLES + u64::from(slot) * 0x1000;
            self.write_table(table, &pieces);
            self.publish_tx(
                slot,
                Descriptor {
                    address: table,
                    len: 16 * pieces.len() as u32,
                    flags: INDIRECT,
                    next: 0,
                },
            );
            return;
        }
        let last = pieces.len() - 1;
        let head = slot * 2;
        for (index, (address, len)) in pieces.into_iter().enumerate().rev() {
            let descriptor = Descriptor {
                address,
                len,
                flags: if index < last { NEXT } else { 0 },
                next: head + 1,
            };
            if index == 0 {
                self.publish_tx(slot, descriptor);
            } else {
                self.tx.write_descriptor(head + index as u16, descriptor);
            }
        }
    }

    /// Makes any one descriptor available, however broken.
    pub fn send_raw(&mut self, address: u64, len: u32, flags: u16, next: u16) {
        let slot = self.tx_slot();
        let next = if next == SELF { slot * 2 } else { next };
        self.publish_tx(
            slot,
            Descriptor {
                address,
                len,
                flags,
                next,
            },
        );
    }

    /// Gives any one descriptor to the device to receive into, however broken.
    pub fn give_raw_rx_buffer(&mut self, address: u64, len: u32, flags: u16) {
        let index = self.held_rx.pop_front().unwrap();
        self.rx.write_descriptor(
            index,
            Descriptor {
                address,
                len,
                flags,
                next: 0,
            },
        );
        self.raw_rx.push(index);
        if self.rx.publish(index) {
            self.kick(RX);
        }
    }

    /// Gives the rest of the receive buffers, and goes on in good order.
    pub fn give_rx_buffers_behind_raw_ones(&mut self) {
        self.refill = true;
        self.give_rx_buffers();
    }

    /// Waits for the raw receive buffers to come back; returns how many did, all of them empty.
    pub fn skip_empty_buffers(&mut self) -> usize {
        let raw = std::mem::take(&mut self.raw_rx);
        let deadline = Instant::now() + PATIENCE;
        for expected in &raw {
            let (index, written) = loop {
                if let Some(used) = self.rx.take_used() {
                    break used;
                }
                self.rx.arm();
                if let Some(used) = self.rx.take_used() {
                    break used;
                }
                self.wait(RX, deadline);
            };
            assert_eq!((index, written), (*expected, 0));
            self.held_rx.push_back(index);
        }
        raw.len()
    }

    pub fn memory_len(&self) -> u64 {
        MEMORY_LEN as u64
    }

    pub fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    /// Writes a descriptor anywhere: an entry of an indirect table.
    pub fn write_descriptor_at(&self, at: u64, descriptor: (u64, u32, u16, u16)) {
        let (address, len, flags, next) = descriptor;
        let mut bytes = Vec::new();
        bytes.extend(address.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.write(at, &bytes);
    }

    /// A chain of more descriptors than a slot has, which needs the ring to itself.
    fn publish_long(&mut self, slot: u16, pieces: &[(u64, u32)]) {
        self.free_tx.push_back(slot);
        self.wait_for_tx();
        let last = pieces.len() - 1;
        for (index, (address, len)) in pieces.iter().enumerate() {
            let index = index as u16;
            self.tx.write_descriptor(
                index,
                Descriptor {
                    address: *address,
                    len: *len,
                    flags: if usize::from(index) < last { NEXT } else { 0 },
                    next: index + 1,
                },
            );
        }
        self.free_tx.retain(|free| *free != 0);
        if self.tx.publish(0) {
            self.kick(TX);
        }
        self.wait_for_tx();
    }

    fn write_table(&self, table: u64, pieces: &[(u64, u32)]) {
        for (index, (address, len)) in pieces.iter().enumerate() {
            let more = index + 1 < pieces.len();
            let mut bytes = Vec::new();
            bytes.extend(address.to_le_bytes());
            bytes.extend(len.to_le_bytes());
            bytes.extend((if more { NEXT } else { 0 }).to_le_bytes());
            bytes.extend((index as u16 + 1).to_le_bytes());
            self.memory
                .write_slice(&bytes, GuestAddress(table + 16 * index as u64))
                .unwrap();
        }
    }

    fn publish_tx(&mut self, slot: u16, descriptor: Descriptor) {
        let head = slot * 2;
        self.tx.write_descriptor(head, descriptor);
        if self.tx.publish(head) {
            self.kick(TX);
        }
    }

    fn tx_slot(&mut self) -> u16 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.reap_tx();
            if let Some(slot) = self.free_tx.pop_front() {
                return slot;
            }
            self.tx.arm();
            self.reap_tx();
            if self.free_tx.is_empty() {
                self.wait(TX, deadline);
            }
        }
    }

    fn reap_tx(&mut self) {
        while let Some((head, _)) = self.tx.take_used() {
            self.free_tx.push_back(head / 2);
        }
    }

    /// Waits until the device has taken every packet.
    pub fn wait_for_tx(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.reap_tx();
            if self.free_tx.len() == usize::from(QUEUE_SIZE / 2) {
                return;
            }
            self.tx.arm();
            self.reap_tx();
            if self.free_tx.len() < usize::from(QUEUE_SIZE / 2) {
                self.wait(TX, deadline);
            }
        }
    }

    /// Sleeps until the device interrupts for `queue`.
    fn wait(&self, queue: usize, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap();
        // SAFETY: the descriptor is open as long as `self` is borrowed.
        let call = unsafe {
            std::os::fd::BorrowedFd::borrow_raw(std::os::fd::AsRawFd::as_raw_fd(&self.calls[queue]))
        };
        let mut sources = [PollFd::from_borrowed_fd(call.as_fd(), PollFlags::IN)];
        let ready = poll(&mut sources, Some(&timeout)).unwrap();
        assert!(ready > 0, "no interrupt for queue {queue}");
        self.calls[queue].read().unwrap();
    }
}

fn rings(memory: &GuestMemoryMmap, event_idx: bool) -> (Ring, Ring, Ring) {
    let ring = |index: u64| Ring::new(memory, RINGS + index * 0x4000, QUEUE_SIZE, event_idx);
    (ring(0), ring(1), ring(2))
}

fn rx_buffer(index: u16) -> u64 {
    RX_BUFFERS + u64::from(index) * u64::from(RX_BUFFER_LEN)
}

fn shared_memory() -> GuestMemoryMmap {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("guest", flags).unwrap());
    file.set_len(MEMORY_LEN as u64).unwrap();
    fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    let range = (GuestAddress(0), MEMORY_LEN, Some(FileOffset::new(file, 0)));
    GuestMemoryMmap::from_ranges_with_files([range]).unwrap()
}
