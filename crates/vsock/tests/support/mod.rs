//! A driver for the device under test, and the two hosts that carry it.

// Each test file uses its own part.
#![allow(dead_code, unused_imports)]

mod driver;
mod guest;
mod hosts;
mod rings;

pub use driver::{Driver, Layout, SELF};
pub use guest::{Guest, Socket, read_all, read_line};
pub use hosts::{Carrier, DirectHost, VhostUserCarrier};
pub use rings::{Descriptor, INDIRECT, NEXT, Ring, WRITE};

use std::time::Duration;

/// How long anything may take before a test calls it lost. Only failures wait this long.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const GUEST_CID: u64 = 42;
pub const HOST_CID: u64 = 2;
pub const STREAM: u16 = 1;

pub mod op {
    pub const REQUEST: u16 = 1;
    pub const RESPONSE: u16 = 2;
    pub const RST: u16 = 3;
    pub const SHUTDOWN: u16 = 4;
    pub const RW: u16 = 5;
    pub const CREDIT_UPDATE: u16 = 6;
    pub const CREDIT_REQUEST: u16 = 7;
}

/// A packet header, written down a second time so that the tests do not believe the device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub src_cid: u64,
    pub dst_cid: u64,
    pub src_port: u32,
    pub dst_port: u32,
    pub len: u32,
    pub kind: u16,
    pub op: u16,
    pub flags: u32,
    pub buf_alloc: u32,
    pub fwd_cnt: u32,
}

impl Header {
    /// A packet from `guest_port` to `host_port`.
    pub fn to_host(guest_port: u32, host_port: u32, op: u16) -> Self {
        Self {
            src_cid: GUEST_CID,
            dst_cid: HOST_CID,
            src_port: guest_port,
            dst_port: host_port,
            len: 0,
            kind: STREAM,
            op,
            flags: 0,
            buf_alloc: 64 * 1024,
            fwd_cnt: 0,
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(44);
        bytes.extend(self.src_cid.to_le_bytes());
        bytes.extend(self.dst_cid.to_le_bytes());
        bytes.extend(self.src_port.to_le_bytes());
        bytes.extend(self.dst_port.to_le_bytes());
        bytes.extend(self.len.to_le_bytes());
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(self.op.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.buf_alloc.to_le_bytes());
        bytes.extend(self.fwd_cnt.to_le_bytes());
        bytes
    }

    pub fn parse(bytes: &[u8]) -> Self {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let u16_at = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
        Self {
            src_cid: u64_at(0),
            dst_cid: u64_at(8),
            src_port: u32_at(16),
            dst_port: u32_at(20),
            len: u32_at(24),
            kind: u16_at(28),
            op: u16_at(30),
            flags: u32_at(32),
            buf_alloc: u32_at(36),
            fwd_cnt: u32_at(40),
        }
    }
}

/// Runs each test against the device in both hosts.
#[macro_export]
macro_rules! in_both_hosts {
    ($($name:ident),* $(,)?) => {
        mod in_a_thread_of_the_vmm {
            $(#[test] fn $name() { super::$name(&|| $crate::support::Guest::new::<$crate::support::DirectHost>()); })*
        }
        mod behind_vhost_user {
            $(#[test] fn $name() { super::$name(&|| $crate::support::Guest::new::<$crate::support::VhostUserCarrier>()); })*
        }
    };
}
