//! A driver's FUSE requests, one at a time (linux/fuse.h, protocol 7.38).

use vm_memory::{Bytes, GuestAddress};

use crate::support::{Driver, NEXT, Ring, WRITE};

const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const INIT: u32 = 26;

const ROOT: u64 = 1;
const REQUEST: u64 = 0x20_0000;
const REPLY: u64 = 0x21_0000;
const REPLY_SIZE: u32 = 4096;
const REQUEST_QUEUE: u32 = 1;

pub struct Fuse<'a> {
    driver: &'a Driver,
    ring: Ring,
    requests: u16,
}

impl<'a> Fuse<'a> {
    /// Sets the device's two queues up, with all features that it offers.
    pub fn start(driver: &'a Driver) -> Self {
        let features = driver.offered_features();
        let event_idx = features & Driver::EVENT_IDX != 0;
        let urgent = Ring::new(&driver.memory, 0x1_0000, 128, event_idx);
        let ring = Ring::new(&driver.memory, 0x2_0000, 128, event_idx);
        driver.start(features, &[&urgent, &ring]);
        Self {
            driver,
            ring,
            requests: 0,
        }
    }

    /// How many requests were sent.
    pub fn requests(&self) -> u16 {
        self.requests
    }

    pub fn init(&mut self) -> (u32, u32) {
        let mut body = [0; 64];
        body[0..4].copy_from_slice(&7_u32.to_le_bytes());
        body[4..8].copy_from_slice(&38_u32.to_le_bytes());
        body[8..12].copy_from_slice(&0x2_0000_u32.to_le_bytes());
        self.send(INIT, 0, &body);
        let reply = self.receive().unwrap();
        (u32_at(&reply, 0), u32_at(&reply, 4))
    }

    /// The node of a name in the root folder.
    pub fn lookup(&mut self, name: &str) -> Result<u64, i32> {
        self.send(LOOKUP, ROOT, format!("{name}\0").as_bytes());
        self.receive().map(|reply| u64_at(&reply, 0))
    }

    pub fn file_size(&mut self, node: u64) -> u64 {
        self.send_file_size(node);
        self.receive_file_size()
    }

    pub fn send_file_size(&mut self, node: u64) {
        self.send(GETATTR, node, &[0; 16]);
    }

    pub fn receive_file_size(&mut self) -> u64 {
        u64_at(&self.receive().unwrap(), 24)
    }

    fn send(&mut self, opcode: u32, node: u64, body: &[u8]) {
        self.requests += 1;
        let length = 40 + body.len() as u32;
        let mut request = Vec::new();
        request.extend(length.to_le_bytes());
        request.extend(opcode.to_le_bytes());
        request.extend(u64::from(self.requests).to_le_bytes());
        request.extend(node.to_le_bytes());
        request.extend([0; 16]);
        request.extend(body);
        let memory = &self.driver.memory;
        memory.write_slice(&request, GuestAddress(REQUEST)).unwrap();
        self.ring.describe(0, REQUEST, length, NEXT, 1);
        self.ring.describe(1, REPLY, REPLY_SIZE, WRITE, 0);
        if self.ring.publish(0) {
            self.driver.kick(REQUEST_QUEUE);
        }
    }

    /// The reply's body, or its error.
    fn receive(&mut self) -> Result<Vec<u8>, i32> {
        let (head, length) = self.driver.wait_used(&mut self.ring);
        assert_eq!(head, 0);
        let mut reply = vec![0; length as usize];
        self.driver
            .memory
            .read_slice(&mut reply, GuestAddress(REPLY))
            .unwrap();
        assert_eq!(u32_at(&reply, 0), length);
        assert_eq!(u64_at(&reply, 8), u64::from(self.requests));
        match u32_at(&reply, 4).cast_signed() {
            0 => Ok(reply.split_off(16)),
            error => Err(error),
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
