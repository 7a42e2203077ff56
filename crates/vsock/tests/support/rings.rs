//! The driver's side of a split virtqueue, by the specification and free to break it.

use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

pub const WRITE: u16 = 2;
pub const NEXT: u16 = 1;
pub const INDIRECT: u16 = 4;

/// One descriptor, as it stands in the table.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    pub address: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

/// One queue in guest memory.
pub struct Ring {
    memory: GuestMemoryMmap,
    pub size: u16,
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
    pub avail_idx: u16,
    pub last_used: u16,
    event_idx: bool,
}

impl Ring {
    /// Lays the rings out from `base` on, which takes 0x3000 bytes.
    pub fn new(memory: &GuestMemoryMmap, base: u64, size: u16, event_idx: bool) -> Self {
        let ring = Self {
            memory: memory.clone(),
            size,
            desc: base,
            avail: base + 0x1000,
            used: base + 0x2000,
            avail_idx: 0,
            last_used: 0,
            event_idx,
        };
        memory
            .write_slice(&[0; 0x3000], GuestAddress(base))
            .unwrap();
        ring
    }

    pub fn write_descriptor(&self, index: u16, descriptor: Descriptor) {
        let at = GuestAddress(self.desc + u64::from(index) * 16);
        let mut bytes = Vec::with_capacity(16);
        bytes.extend(descriptor.address.to_le_bytes());
        bytes.extend(descriptor.len.to_le_bytes());
        bytes.extend(descriptor.flags.to_le_bytes());
        bytes.extend(descriptor.next.to_le_bytes());
        self.memory.write_slice(&bytes, at).unwrap();
    }

    /// Makes the chain at `head` available. Returns whether the device wants a kick for it.
    pub fn publish(&mut self, head: u16) -> bool {
        let slot = u64::from(self.avail_idx % self.size);
        self.memory
            .write_obj(head, GuestAddress(self.avail + 4 + 2 * slot))
            .unwrap();
        let old = self.avail_idx;
        self.avail_idx = old.wrapping_add(1);
        self.memory
            .store(
                self.avail_idx,
                GuestAddress(self.avail + 2),
                Ordering::Release,
            )
            .unwrap();
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.event_idx {
            let event = self.load(self.used + 4 + 8 * u64::from(self.size));
            self.avail_idx.wrapping_sub(event).wrapping_sub(1) < self.avail_idx.wrapping_sub(old)
        } else {
            self.load(self.used) & 1 == 0
        }
    }

    /// Says that the available ring holds what it does not.
    pub fn forge_avail_idx(&mut self, idx: u16) {
        self.avail_idx = idx;
        self.memory
            .store(idx, GuestAddress(self.avail + 2), Ordering::Release)
            .unwrap();
    }

    /// The next chain that the device has used: its head, and how many bytes were written.
    pub fn take_used(&mut self) -> Option<(u16, u32)> {
        if self.load(self.used + 2) == self.last_used {
            return None;
        }
        std::sync::atomic::fence(Ordering::SeqCst);
        let slot = u64::from(self.last_used % self.size);
        let at = self.used + 4 + 8 * slot;
        let head: u32 = self.memory.read_obj(GuestAddress(at)).unwrap();
        let len: u32 = self.memory.read_obj(GuestAddress(at + 4)).unwrap();
        self.last_used = self.last_used.wrapping_add(1);
        Some((u16::try_from(head).unwrap(), len))
    }

    /// Asks for an interrupt with the next used chain, and only then.
    pub fn arm(&mut self) {
        if self.event_idx {
            let at = self.avail + 4 + 2 * u64::from(self.size);
            self.memory
                .store(self.last_used, GuestAddress(at), Ordering::SeqCst)
                .unwrap();
            std::sync::atomic::fence(Ordering::SeqCst);
        }
    }

    fn load(&self, at: u64) -> u16 {
        self.memory
            .load(GuestAddress(at), Ordering::Acquire)
            .unwrap()
    }
}
