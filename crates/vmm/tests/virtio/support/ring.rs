use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;

/// The driver's side of a split queue (virtio 1.2, section 2.7).
pub struct Ring {
    memory: Arc<GuestMemoryMmap>,
    base: u64,
    pub size: u16,
    event_idx: bool,
    avail: u16,
    used: u16,
}

impl Ring {
    /// Lays a queue out from `base`, which is a page's start.
    pub fn new(memory: &Arc<GuestMemoryMmap>, base: u64, size: u16, event_idx: bool) -> Self {
        let ring = Self {
            memory: Arc::clone(memory),
            base,
            size,
            event_idx,
            avail: 0,
            used: 0,
        };
        memory
            .write_slice(
                &vec![0; ring.end() as usize - base as usize],
                GuestAddress(base),
            )
            .unwrap();
        ring
    }

    /// Addresses of the descriptor table, the available and the used ring.
    pub fn addresses(&self) -> [u64; 3] {
        let avail = self.base + 16 * u64::from(self.size);
        let used = (avail + 6 + 2 * u64::from(self.size)).next_multiple_of(4);
        [self.base, avail, used]
    }

    pub fn end(&self) -> u64 {
        self.addresses()[2] + 6 + 8 * u64::from(self.size)
    }

    pub fn describe(&self, index: u16, address: u64, length: u32, flags: u16, next: u16) {
        let at = GuestAddress(self.base + 16 * u64::from(index));
        self.memory.write_obj(address, at).unwrap();
        self.memory
            .write_obj(length, GuestAddress(at.0 + 8))
            .unwrap();
        self.memory
            .write_obj(flags, GuestAddress(at.0 + 12))
            .unwrap();
        self.memory
            .write_obj(next, GuestAddress(at.0 + 14))
            .unwrap();
    }

    /// Makes a chain available; returns whether the device asks for a kick.
    pub fn publish(&mut self, head: u16) -> bool {
        let [_, avail, used] = self.addresses();
        let slot = avail + 4 + 2 * u64::from(self.avail % self.size);
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        let old = self.avail;
        self.avail = self.avail.wrapping_add(1);
        self.set_avail_idx(self.avail);
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = used + 4 + 8 * u64::from(self.size);
            let event: u16 = self.load(event);
            self.avail.wrapping_sub(event).wrapping_sub(1) < self.avail.wrapping_sub(old)
        } else {
            self.load(used) & 1 == 0
        }
    }

    pub fn set_avail_idx(&mut self, index: u16) {
        let [_, avail, _] = self.addresses();
        self.memory
            .store(index, GuestAddress(avail + 2), Ordering::Release)
            .unwrap();
    }

    /// How many buffers the device has used, modulo 2^16.
    pub fn used_idx(&self) -> u16 {
        self.load(self.addresses()[2] + 2)
    }

    /// The next used buffer: the chain's head and the bytes that the device wrote. Where there is
    /// none, the device is asked to interrupt for the next.
    pub fn take_used(&mut self) -> Option<(u32, u32)> {
        let [_, avail, used] = self.addresses();
        if self.used_idx() == self.used {
            if self.event_idx {
                let event = avail + 4 + 2 * u64::from(self.size);
                self.memory
                    .store(self.used, GuestAddress(event), Ordering::SeqCst)
                    .unwrap();
                fence(Ordering::SeqCst);
            }
            if self.used_idx() == self.used {
                return None;
            }
        }
        let slot = used + 4 + 8 * u64::from(self.used % self.size);
        self.used = self.used.wrapping_add(1);
        let head = self.memory.read_obj(GuestAddress(slot)).unwrap();
        let length = self.memory.read_obj(GuestAddress(slot + 4)).unwrap();
        Some((head, length))
    }

    fn load(&self, address: u64) -> u16 {
        self.memory
            .load(GuestAddress(address), Ordering::Acquire)
            .unwrap()
    }
}
