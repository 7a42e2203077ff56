//! The table of connections: who is in it, under which ports, and on which lists.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::epoll;

use super::{MAX_CONNECTIONS, Muxer};
use crate::connection::{Connection, Fate, Ports, State};
use crate::packet::op;

/// Buffer of a connection for bytes that the host's program has not read yet.
const LARGE_BUFFER: u32 = 256 * 1024;
/// The same once [`LARGE_BUFFERS`] bytes are spoken for: many connections share a bound of
/// 16 MiB + 1024 * 32 KiB, whatever the guest does.
const SMALL_BUFFER: u32 = 32 * 1024;
/// Bytes that large buffers may take together.
const LARGE_BUFFERS: u64 = 16 * 1024 * 1024;
/// First port that the host's end of a connection gets; it goes up from here, and around.
pub(super) const FIRST_HOST_PORT: u32 = 1 << 30;

impl Muxer {
    /// Draws the consequences of what happened to a connection.
    pub(super) fn settle(&mut self, id: u64, fate: Fate) {
        match fate {
            Fate::Over => self.remove(id),
            Fate::Reset => {
                if let Some(connection) = self.connections.get(&id) {
                    let mut header = connection.header(op::RST);
                    header.buf_alloc = 0;
                    header.fwd_cnt = 0;
                    self.push_reset(header);
                }
                self.remove(id);
            }
            Fate::Lives => self.refresh(id),
        }
    }

    /// Brings the lists that a connection is on up to date with its state.
    pub(crate) fn refresh(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.state() == State::Draining
            && self.by_ports.get(&connection.ports()) == Some(&id)
        {
            self.by_ports.remove(&connection.ports());
        }
        if connection.wants_room() != connection.watched_for_room {
            let flags = if connection.wants_room() {
                watch_flags() | epoll::EventFlags::OUT
            } else {
                watch_flags()
            };
            let data = epoll::EventData::new_u64(id);
            // The socket is in the set, so this can only fail for want of kernel memory; the next
            // change tries again.
            if epoll::modify(&self.epoll, connection.socket(), data, flags).is_ok() {
                connection.watched_for_room = connection.wants_room();
            }
        }
        if !connection.queued && connection.outgoing().is_some() {
            connection.queued = true;
            self.ready.push_back(id);
        }
    }

    pub(super) fn remove(&mut self, id: u64) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        if self.by_ports.get(&connection.ports()) == Some(&id) {
            self.by_ports.remove(&connection.ports());
        }
        if let Some(at) = connection.deadline {
            self.deadlines.cancel(at, id);
        }
        self.buffers = self
            .buffers
            .saturating_sub(u64::from(connection.buf_alloc()));
        if self.accepting {
            self.wake();
        }
    }

    pub(super) fn add(&mut self, id: u64, connection: Connection) -> io::Result<()> {
        self.watch(id, connection.socket())?;
        self.insert(id, connection);
        Ok(())
    }

    pub(super) fn insert(&mut self, id: u64, connection: Connection) {
        self.buffers += u64::from(connection.buf_alloc());
        self.by_ports.insert(connection.ports(), id);
        self.connections.insert(id, connection);
        self.refresh(id);
    }

    pub(super) fn watch(&self, id: u64, socket: BorrowedFd<'_>) -> io::Result<()> {
        let data = epoll::EventData::new_u64(id);
        Ok(epoll::add(&self.epoll, socket, data, watch_flags())?)
    }

    pub(super) fn is_full(&self) -> bool {
        self.connections.len() + self.clients.len() >= MAX_CONNECTIONS
    }

    pub(super) fn buffer_size(&self) -> u32 {
        if self.buffers + u64::from(LARGE_BUFFER) <= LARGE_BUFFERS {
            LARGE_BUFFER
        } else {
            SMALL_BUFFER
        }
    }

    pub(super) fn new_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// A host port that no connection to this guest port has. There are far more ports than
    /// connections.
    pub(super) fn free_port(&mut self, guest: u32) -> u32 {
        loop {
            let host = self.next_port;
            self.next_port = host
                .checked_add(1)
                .filter(|port| *port != u32::MAX)
                .unwrap_or(FIRST_HOST_PORT);
            if !self.by_ports.contains_key(&Ports { host, guest }) {
                return host;
            }
        }
    }
}

/// How every socket is watched.
pub(super) fn watch_flags() -> epoll::EventFlags {
    epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET
}
