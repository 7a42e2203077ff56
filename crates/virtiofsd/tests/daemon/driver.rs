//! A front end with a hand-made driver: 16 MiB of memory, rings, and whatever is to be written to them.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;

use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemory, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub const MEMORY: u64 = 16 << 20;
/// Where the next request's buffers are.
pub const INPUT: u64 = 1 << 20;
pub const OUTPUT: u64 = 8 << 20;
pub const SIZE: u16 = 64;
pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;
const EVENT_IDX: u64 = 1 << 29;
const INDIRECT_DESC: u64 = 1 << 28;
const VERSION_1: u64 = 1 << 32;
/// Milliseconds in which a daemon answers, or hangs.
pub const PATIENCE: i32 = 20_000;

/// A descriptor: address, length, flags, next.
pub type Descriptor = (u64, u32, u16, u16);

/// What became of a chain.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was given back with so many bytes.
    Used(u32),
    /// Its ring was taken out of service.
    Failed,
}

struct Ring {
    kick: EventFd,
    call: EventFd,
    error: EventFd,
    next: u16,
}

/// A connected front end.
pub struct Driver {
    pub frontend: Frontend,
    pub memory: GuestMemoryMmap,
    pub protocol: VhostUserProtocolFeatures,
    rings: Vec<Ring>,
    event_idx: bool,
}

/// Connects and negotiates, without rings.
pub fn connect(socket: &Path, rings: u64, event_idx: bool) -> Driver {
    let mut frontend = Frontend::connect(socket, rings).unwrap();
    frontend.set_owner().unwrap();
    let offered = frontend.get_features().unwrap();
    let wanted = VERSION_1 | INDIRECT_DESC | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
    let wanted = wanted | if event_idx { EVENT_IDX } else { 0 };
    assert_eq!(offered & wanted, wanted);
    let protocol = frontend.get_protocol_features().unwrap();
    frontend.set_protocol_features(protocol).unwrap();
    if protocol.contains(VhostUserProtocolFeatures::REPLY_ACK) {
        frontend.set_hdr_flags(vhost::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY);
    }
    frontend.set_features(wanted).unwrap();

    // SAFETY: a literal name and a constant.
    let number = unsafe { libc::memfd_create(c"guest".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(number >= 0);
    // SAFETY: the kernel has just made it.
    let file = unsafe { File::from_raw_fd(number) };
    file.set_len(MEMORY).unwrap();
    let range = (
        GuestAddress(0),
        usize::try_from(MEMORY).unwrap(),
        Some(FileOffset::new(file, 0)),
    );
    let memory = GuestMemoryMmap::from_ranges_with_files([range]).unwrap();
    let driver = Driver {
        frontend,
        memory,
        protocol,
        rings: Vec::new(),
        event_idx,
    };
    driver.tell_memory();
    driver
}

fn event() -> EventFd {
    EventFd::new(EFD_NONBLOCK).unwrap()
}

impl Driver {
    /// Connects and starts two rings: high priority and requests.
    pub fn start(socket: &Path) -> Self {
        Self::start_with(socket, 2, false)
    }

    pub fn start_with(socket: &Path, rings: u16, event_idx: bool) -> Self {
        let mut driver = connect(socket, rings.into(), event_idx);
        driver.start_rings(rings);
        driver
    }

    /// Starts so many rings from their beginning.
    pub fn start_rings(&mut self, rings: u16) {
        self.rings.clear();
        for index in 0..rings.into() {
            let [_, available, used] = Self::parts(index);
            for part in [available, used] {
                self.write(part, &[0; 4]);
            }
            self.add_ring(index, SIZE);
        }
    }

    /// Stops all rings, as before a reset.
    pub fn stop_rings(&self) {
        for index in 0..self.rings.len() {
            self.frontend.get_vring_base(index).unwrap();
        }
    }

    /// Tells the daemon of the memory, once more if it knows it.
    pub fn tell_memory(&self) {
        let regions: Vec<_> = self
            .memory
            .iter()
            .map(|region| VhostUserMemoryRegionInfo::from_guest_region(region).unwrap())
            .collect();
        self.frontend.set_mem_table(&regions).unwrap();
    }

    /// Address of a ring's parts: descriptors, available, used.
    pub fn parts(index: usize) -> [u64; 3] {
        let base = index as u64 * 0x1_0000;
        [base, base + 0x4000, base + 0x8000]
    }

    pub fn addresses(&self, index: usize, size: u16) -> VringConfigData {
        let host = |address| self.memory.get_host_address(GuestAddress(address)).unwrap() as u64;
        let [descriptors, available, used] = Self::parts(index);
        VringConfigData {
            queue_max_size: size,
            queue_size: size,
            flags: 0,
            desc_table_addr: host(descriptors),
            used_ring_addr: host(used),
            avail_ring_addr: host(available),
            log_addr: None,
        }
    }

    pub fn add_ring(&mut self, index: usize, size: u16) {
        let ring = Ring {
            kick: event(),
            call: event(),
            error: event(),
            next: 0,
        };
        let addresses = self.addresses(index, size);
        let frontend = &mut self.frontend;
        frontend.set_vring_num(index, size).unwrap();
        frontend.set_vring_addr(index, &addresses).unwrap();
        frontend.set_vring_base(index, 0).unwrap();
        frontend.set_vring_call(index, &ring.call).unwrap();
        frontend.set_vring_err(index, &ring.error).unwrap();
        frontend.set_vring_kick(index, &ring.kick).unwrap();
        frontend.set_vring_enable(index, true).unwrap();
        self.rings.push(ring);
    }

    pub fn kick(&self, ring: usize) {
        self.rings[ring].kick.write(1).unwrap();
    }

    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(address))
            .unwrap();
    }

    pub fn read(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory
            .read_slice(&mut bytes, GuestAddress(address))
            .unwrap();
        bytes
    }

    pub fn put(&self, address: u64, (at, length, flags, next): Descriptor) {
        let mut bytes = at.to_le_bytes().to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.write(address, &bytes);
    }

    /// Makes the chain that begins at descriptor `head` available, without a kick.
    pub fn offer(&mut self, ring: usize, head: u16) {
        let [_, available, _] = Self::parts(ring);
        let next = self.rings[ring].next;
        let slot = available + 4 + 2 * u64::from(next % SIZE);
        self.write(slot, &head.to_le_bytes());
        self.rings[ring].next = next.wrapping_add(1);
        if self.event_idx {
            // used_event: interrupt for this one.
            self.write(available + 4 + 2 * u64::from(SIZE), &next.to_le_bytes());
        }
        self.write(available + 2, &self.rings[ring].next.to_le_bytes());
    }

    /// Offers a chain and waits for what becomes of it.
    pub fn submit(&mut self, ring: usize, chain: &[Descriptor]) -> Outcome {
        let [descriptors, ..] = Self::parts(ring);
        for (index, descriptor) in chain.iter().enumerate() {
            self.put(descriptors + 16 * index as u64, *descriptor);
        }
        self.offer(ring, 0);
        self.kick(ring);
        self.outcome(ring)
    }

    /// Waits until everything that was offered is back, or the ring out of service.
    pub fn outcome(&self, ring: usize) -> Outcome {
        let next = self.rings[ring].next;
        let [_, _, used] = Self::parts(ring);
        loop {
            let index = self.read(used + 2, 2);
            if index == next.to_le_bytes() {
                let last = u64::from(next.wrapping_sub(1) % SIZE);
                let length = self.read(used + 4 + 8 * last + 4, 4);
                return Outcome::Used(u32::from_le_bytes(length.try_into().unwrap()));
            }
            if !self.wait_for_news(ring) {
                return Outcome::Failed;
            }
        }
    }

    /// Waits until a ring that is in its first round has given back so many chains: their heads, in that order.
    pub fn given_back(&self, ring: usize, count: u16) -> Vec<u16> {
        let [_, _, used] = Self::parts(ring);
        let short = |address| u16::from_le_bytes(self.read(address, 2).try_into().unwrap());
        while short(used + 2) < count {
            assert!(self.wait_for_news(ring), "the ring is out of service");
        }
        (0..u64::from(count))
            .map(|slot| short(used + 4 + 8 * slot))
            .collect()
    }

    /// Waits for an interrupt; false where the ring is out of service.
    fn wait_for_news(&self, ring: usize) -> bool {
        let Ring { call, error, .. } = &self.rings[ring];
        let watch = |event: &EventFd| libc::pollfd {
            fd: event.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let mut polled = [watch(call), watch(error)];
        // SAFETY: two entries, as is said.
        let ready = unsafe { libc::poll(polled.as_mut_ptr(), 2, PATIENCE) };
        assert!(ready > 0, "the daemon hangs");
        if error.read().is_ok() {
            return false;
        }
        let _ = call.read();
        true
    }

    /// Waits until a ring is out of service, without a look at its memory.
    pub fn wait_for_failure(&self, ring: usize) {
        let mut polled = libc::pollfd {
            fd: self.rings[ring].error.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one entry, as is said.
        let ready = unsafe { libc::poll(&raw mut polled, 1, PATIENCE) };
        assert_eq!(ready, 1, "the daemon does not tell");
    }

    /// Sends one request on a ring, and hands back the answer.
    pub fn request(&mut self, ring: usize, input: &[u8], room: u32) -> Vec<u8> {
        self.write(INPUT, input);
        let length = u32::try_from(input.len()).unwrap();
        let outcome = self.submit(ring, &[(INPUT, length, NEXT, 1), (OUTPUT, room, WRITE, 0)]);
        match outcome {
            Outcome::Used(length) => self.read(OUTPUT, length as usize),
            Outcome::Failed => panic!("the ring is out of service"),
        }
    }
}
