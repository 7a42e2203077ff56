//! All connections of one device, and what they wait for.
//!
//! One epoll descriptor watches the listener, the clients, the connections, the timer and a
//! wake-up event. Sockets are watched edge-triggered for reading, so that one whose guest gives no
//! credit costs nothing until it does, and for writing only while bytes wait.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use microvm_virtio::GuestBuffer;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;
use vm_memory::bitmap::BitmapSlice;

mod host_side;
mod table;

use crate::VsockError;
use crate::connection::{Connection, Fate, Outgoing, Ports, State};
use crate::deadlines::Deadlines;
use crate::packet::{HEADER_LEN, HOST_CID, Header, TYPE_STREAM, op};
use crate::unix_socket::{FirstLineReader, HostSocket, write_accepted};

/// Connections, and clients on their way to one, at a time.
pub(crate) const MAX_CONNECTIONS: usize = 1024;
/// Resets that wait for room in the guest's ring: one for each connection, and as many strays.
/// What a guest provokes beyond that is left unanswered.
const MAX_RESETS: usize = 2 * MAX_CONNECTIONS;
/// How long a guest may take to confirm the end of a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What an epoll event is about. Connections and clients count up from `FIRST_ID`.
const LISTENER: u64 = 0;
const WAKE: u64 = 1;
const TIMER: u64 = 2;
const FIRST_ID: u64 = 16;

/// A client that has not named a port yet.
#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    line: FirstLineReader,
    deadline: Instant,
}

/// The next thing to send to the guest.
#[derive(Debug)]
pub(crate) enum Work {
    /// A packet without payload.
    Packet(Header),
    /// At most `credit` bytes of a connection's socket.
    Data { id: u64, credit: u32 },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Muxer {
    guest_cid: u64,
    host: HostSocket,
    epoll: OwnedFd,
    wake: OwnedFd,
    deadlines: Deadlines,
    clients: HashMap<u64, Client>,
    connections: HashMap<u64, Connection>,
    by_ports: HashMap<Ports, u64>,
    /// Connections that have something for the guest, in turn.
    ready: VecDeque<u64>,
    resets: VecDeque<Header>,
    /// Bytes of buffer that the connections were promised.
    buffers: u64,
    next_id: u64,
    next_port: u32,
    /// Clients may be waiting: the listener is watched edge-triggered too.
    accepting: bool,
}

impl Muxer {
    /// Listens at `socket`.
    pub(crate) fn new(guest_cid: u64, socket: &Path) -> Result<Self, VsockError> {
        let create = |what| {
            move |source: rustix::io::Errno| VsockError::Create {
                what,
                source: source.into(),
            }
        };
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(create("epoll descriptor"))?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(create("wake-up event"))?;
        let deadlines = Deadlines::new().map_err(|source| VsockError::Create {
            what: "timer",
            source,
        })?;
        let host = HostSocket::listen(socket)?;
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        for (source, id, flags) in [
            (host.as_fd(), LISTENER, edge),
            (wake.as_fd(), WAKE, epoll::EventFlags::IN),
            (deadlines.as_fd(), TIMER, epoll::EventFlags::IN),
        ] {
            epoll::add(&epoll, source, epoll::EventData::new_u64(id), flags)
                .map_err(create("epoll entry"))?;
        }
        Ok(Self {
            guest_cid,
            host,
            epoll,
            wake,
            deadlines,
            clients: HashMap::new(),
            connections: HashMap::new(),
            by_ports: HashMap::new(),
            ready: VecDeque::new(),
            resets: VecDeque::new(),
            buffers: 0,
            next_id: FIRST_ID,
            next_port: table::FIRST_HOST_PORT,
            accepting: false,
        })
    }

    /// The descriptor that says when [`Self::host_event`] has work.
    pub(crate) fn event_source(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Makes the event source readable, so that work which was put off goes on.
    pub(crate) fn wake(&self) {
        // A full counter is readable already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Takes a packet from the guest; `packet` holds header and payload.
    pub(crate) fn guest_packet<B: BitmapSlice>(
        &mut self,
        header: &Header,
        packet: &GuestBuffer<'_, B>,
    ) {
        // Nobody can be told: the address that an answer would go to is made up.
        if header.src_cid != self.guest_cid {
            return;
        }
        let ports = Ports {
            host: header.dst_port,
            guest: header.src_port,
        };
        let id = self.by_ports.get(&ports).copied();
        let payload = packet.len().saturating_sub(HEADER_LEN);
        let well_formed = header.socket_type == TYPE_STREAM
            && header.dst_cid == HOST_CID
            && (header.op != op::RW || header.len as usize <= payload);
        if !well_formed {
            return self.refuse(header, id.filter(|_| header.dst_cid == HOST_CID));
        }
        if header.op == op::REQUEST {
            return self.guest_request(header, id);
        }
        let connection = id.and_then(|id| Some((id, self.connections.get_mut(&id)?)));
        let Some((id, connection)) = connection else {
            return self.refuse(header, None);
        };
        connection.take_credit(header);
        let fate = match (header.op, connection.state()) {
            (op::RST, _) => connection.guest_reset(),
            (op::RESPONSE, State::Requested) if !connection.is_unheard() => {
                match write_accepted(connection.socket(), connection.ports().host) {
                    Ok(()) => {
                        connection.accepted();
                        Fate::Lives
                    }
                    Err(_) => Fate::Reset,
                }
            }
            (op::RW, _) => connection.data(packet, header.len),
            (op::SHUTDOWN, State::Established) => connection.guest_shut_down(header.flags),
            (op::CREDIT_UPDATE, _) => Fate::Lives,
            (op::CREDIT_REQUEST, State::Established) => {
                connection.credit_asked();
                Fate::Lives
            }
            _ => Fate::Reset,
        };
        self.settle(id, fate);
    }

    /// The next thing to send to the guest. Follow it by [`Self::packet_sent`] or
    /// [`Self::data_done`] unless there was no room for it.
    pub(crate) fn next_work(&mut self) -> Option<Work> {
        if let Some(reset) = self.resets.front() {
            return Some(Work::Packet(*reset));
        }
        while let Some(id) = self.ready.front().copied() {
            if let Some(connection) = self.connections.get_mut(&id) {
                match connection.outgoing() {
                    Some(Outgoing::Control(header)) => return Some(Work::Packet(header)),
                    Some(Outgoing::Data(credit)) => return Some(Work::Data { id, credit }),
                    None => connection.queued = false,
                }
            }
            self.ready.pop_front();
        }
        None
    }

    /// The packet of [`Self::next_work`] is in the guest's ring.
    pub(crate) fn packet_sent(&mut self, header: &Header) {
        if self.resets.pop_front().is_some() {
            return;
        }
        let Some(id) = self.ready.front().copied() else {
            return;
        };
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.sent(header);
            if connection.is_told_all() && connection.deadline.is_none() {
                connection.deadline = Some(self.deadlines.add(id, CLOSE_TIMEOUT));
            }
        }
        self.next_turn();
    }

    /// The connection of [`Self::next_work`] had its turn.
    pub(crate) fn data_done(&mut self) {
        self.next_turn();
    }

    /// A connection, to move its bytes.
    pub(crate) fn connection(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.get_mut(&id)
    }

    /// The guest's driver is gone. What it sent is still delivered; clients that it never heard
    /// of wait for the next one.
    pub(crate) fn reset(&mut self) {
        self.resets.clear();
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            let Some(connection) = self.connections.get_mut(&id) else {
                continue;
            };
            if connection.is_unheard() {
                continue;
            }
            let fate = connection.guest_vanished();
            let ports = connection.ports();
            if self.by_ports.get(&ports) == Some(&id) {
                self.by_ports.remove(&ports);
            }
            self.settle(id, fate);
        }
    }

    /// Puts the connection whose turn it was at the end of the line.
    fn next_turn(&mut self) {
        if let Some(id) = self.ready.pop_front() {
            self.ready.push_back(id);
        }
    }

    /// Answers a packet that has no place, and ends the connection that it names.
    fn refuse(&mut self, header: &Header, id: Option<u64>) {
        if let Some(id) = id {
            self.remove(id);
        }
        // A reset is never answered: two sides could go on for ever.
        if header.op != op::RST {
            self.push_reset(header.reset());
        }
    }

    fn push_reset(&mut self, header: Header) {
        if self.resets.len() < MAX_RESETS {
            self.resets.push_back(header);
        }
    }

    /// The guest wants to reach a port of the host.
    ///
    /// It is refused only where nobody can be reached there. For a reason that may pass it gets no
    /// answer: its `connect` times out (after two seconds on Linux), which tells it to try again.
    fn guest_request(&mut self, header: &Header, existing: Option<u64>) {
        if let Some(id) = existing {
            let ending = self
                .connections
                .get(&id)
                .is_none_or(Connection::is_told_all);
            if !ending {
                return self.refuse(header, Some(id));
            }
            // The guest forgot the old connection, which is why it uses the port again.
            self.remove(id);
        }
        if self.is_full() {
            return;
        }
        let socket = match self.host.connect(header.dst_port) {
            Ok(socket) => socket,
            Err(error) if may_pass(error) => return,
            Err(_) => return self.refuse(header, None),
        };
        let connection = Connection::from_guest(header, socket, self.buffer_size());
        let id = self.new_id();
        // It fails for want of kernel memory, which may pass.
        let _ = self.add(id, connection);
    }
}

/// Whether a listener that cannot be reached now may be there all the same: its backlog is full, or
/// this process or its system is short of something.
fn may_pass(error: Errno) -> bool {
    [
        Errno::AGAIN,
        Errno::INTR,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
    ]
    .contains(&error)
}
