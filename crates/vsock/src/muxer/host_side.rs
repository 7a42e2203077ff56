//! What comes from the host's side: clients, sockets and deadlines.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

use super::table::watch_flags;
use super::{Client, LISTENER, Muxer, TIMER, WAKE};
use crate::connection::{Connection, Fate, Ports};
use crate::unix_socket::{FirstLine, FirstLineReader, would_block};

/// How long a client may take for its first line.
const FIRST_LINE_TIMEOUT: Duration = Duration::from_secs(5);
/// Events that one call takes; the rest makes the next call come at once.
const EVENTS: usize = 64;
/// Clients that one call accepts.
const ACCEPTS: usize = 64;

impl Muxer {
    /// Takes what happened on the host's side.
    pub(crate) fn host_event(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&now),
        ) {
            Ok(_) => {}
            // The descriptor stays readable, so the call comes again.
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        for event in events {
            let flags = event.flags;
            match event.data.u64() {
                LISTENER => self.accepting = true,
                WAKE => {
                    let _ = rustix::io::read(&self.wake, &mut [0; 8]);
                }
                TIMER => self.give_up_on_the_late(),
                id if self.clients.contains_key(&id) => self.client_event(id),
                id => self.connection_event(id, flags),
            }
        }
        self.accept();
        Ok(())
    }

    /// Accepts clients. What is left for later keeps `accepting` set.
    fn accept(&mut self) {
        for _ in 0..ACCEPTS {
            if !self.accepting {
                return;
            }
            match self.host.accept() {
                // One client too many learns it by the end of its stream.
                Ok(socket) if !self.is_full() => self.add_client(socket),
                Ok(_) => {}
                // There was nobody, or the process has no descriptor left. The next client, or
                // the next connection that ends, brings it back here.
                Err(error) => {
                    self.accepting = !would_block(&error);
                    return;
                }
            }
        }
        self.wake();
    }

    fn add_client(&mut self, socket: OwnedFd) {
        let id = self.new_id();
        if self.watch(id, socket.as_fd()).is_err() {
            return;
        }
        let deadline = self.deadlines.add(id, FIRST_LINE_TIMEOUT);
        let line = FirstLineReader::default();
        let client = Client {
            socket,
            line,
            deadline,
        };
        self.clients.insert(id, client);
    }

    /// Reads a client's first line, and asks the guest once it is whole.
    fn client_event(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let line = client.line.read(client.socket.as_fd());
        if line == FirstLine::Incomplete {
            return;
        }
        let Some(client) = self.clients.remove(&id) else {
            return;
        };
        self.deadlines.cancel(client.deadline, id);
        if let FirstLine::Connect(guest) = line {
            let ports = Ports {
                host: self.free_port(guest),
                guest,
            };
            let buffer = self.buffer_size();
            let connection = Connection::to_guest(ports, self.guest_cid, client.socket, buffer);
            // What came with the line, or right behind it, was announced already; watching the
            // socket anew has it announced again.
            let data = epoll::EventData::new_u64(id);
            if epoll::modify(&self.epoll, connection.socket(), data, watch_flags()).is_ok() {
                self.insert(id, connection);
            }
        }
    }

    /// Something happened to a connection's socket.
    fn connection_event(&mut self, id: u64, flags: epoll::EventFlags) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let mut fate = Fate::Lives;
        if flags.contains(epoll::EventFlags::OUT) {
            fate = connection.host_writable();
        }
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP) {
            connection.host_readable();
        }
        if fate == Fate::Lives && flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR)
        {
            fate = connection.host_closed();
        }
        self.settle(id, fate);
    }

    /// Removes whoever let its deadline pass.
    fn give_up_on_the_late(&mut self) {
        for id in self.deadlines.expired() {
            if self.clients.remove(&id).is_none() {
                self.settle(id, Fate::Reset);
            }
        }
    }
}
