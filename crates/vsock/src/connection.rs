//! One connection between a guest port and a Unix socket.
//!
//! Towards the host, bytes go from guest memory to the socket; what it does not take waits in a
//! buffer that the credit bounds. Towards the guest nothing is buffered: bytes stay in the
//! socket until the guest has both room and credit for them.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use microvm_virtio::GuestBuffer;
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown, sendmsg, shutdown};
use vm_memory::bitmap::BitmapSlice;

use crate::credit::{OwnCredit, PeerCredit};
use crate::guest_socket;
use crate::packet::{
    HEADER_LEN, HOST_CID, Header, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM, op,
};
use crate::unix_socket::would_block;

/// The ports that name a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ports {
    pub(crate) host: u32,
    pub(crate) guest: u32,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The host's program asked; the guest has not answered.
    Requested,
    /// Bytes flow.
    Established,
    /// The guest is done with it; what it sent last still goes to the host's program.
    Draining,
}

/// What a connection wants to send to the guest next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// A packet without payload.
    Control(Header),
    /// At most this many bytes from the socket.
    Data(u32),
}

/// What has become of a connection after something happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Fate {
    /// It goes on.
    Lives,
    /// It is over, and the guest knows.
    Over,
    /// It is over, and the guest must be told by a reset.
    Reset,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    ports: Ports,
    guest_cid: u64,
    socket: OwnedFd,
    state: State,
    own: OwnCredit,
    peer: PeerCredit,
    /// Bytes from the guest that the socket has not taken yet.
    backlog: VecDeque<u8>,
    /// The socket may have bytes, or its end, to read.
    readable: bool,
    /// The host's program sends nothing more, and all it sent was read.
    host_finished: bool,
    /// The host's program reads nothing more.
    host_deaf: bool,
    /// Directions that the guest has shut down.
    guest_shutdown: u32,
    /// Directions whose end the guest has been told.
    told_shutdown: u32,
    /// An answer is due: RESPONSE or REQUEST.
    handshake_due: bool,
    credit_update_due: bool,
    /// The guest was asked for credit since it gave some last.
    credit_requested: bool,
    /// Chains to offer to the next read, by what the last one filled.
    pub(crate) batch: usize,
    /// Listed among those that have something for the guest.
    pub(crate) queued: bool,
    /// Watched for room to write.
    pub(crate) watched_for_room: bool,
    /// When the device stops waiting for the guest to confirm the end.
    pub(crate) deadline: Option<Instant>,
}

impl Connection {
    /// The host's program asks for a guest port.
    pub(crate) fn to_guest(ports: Ports, guest_cid: u64, socket: OwnedFd, buf_alloc: u32) -> Self {
        Self {
            ports,
            guest_cid,
            socket,
            state: State::Requested,
            own: OwnCredit::new(buf_alloc),
            peer: PeerCredit::default(),
            backlog: VecDeque::new(),
            readable: false,
            host_finished: false,
            host_deaf: false,
            guest_shutdown: 0,
            told_shutdown: 0,
            handshake_due: true,
            credit_update_due: false,
            credit_requested: false,
            batch: 1,
            queued: false,
            watched_for_room: false,
            deadline: None,
        }
    }

    /// The guest's `request` reached a listener on the host.
    pub(crate) fn from_guest(request: &Header, socket: OwnedFd, buf_alloc: u32) -> Self {
        let ports = Ports {
            host: request.dst_port,
            guest: request.src_port,
        };
        let mut connection = Self::to_guest(ports, request.src_cid, socket, buf_alloc);
        connection.state = State::Established;
        connection.take_credit(request);
        connection
    }

    /// Its name.
    pub(crate) fn ports(&self) -> Ports {
        self.ports
    }

    /// How far it is.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Size of the buffer that was set aside for it, in bytes.
    pub(crate) fn buf_alloc(&self) -> u32 {
        self.own.buf_alloc()
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether bytes wait for the socket to take them.
    pub(crate) fn wants_room(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Whether no guest has heard of it: the request is still to be sent.
    pub(crate) fn is_unheard(&self) -> bool {
        self.state == State::Requested && self.handshake_due
    }

    /// Whether the guest knows that both directions have ended, and has only to confirm it.
    pub(crate) fn is_told_all(&self) -> bool {
        self.told_shutdown == SHUTDOWN_BOTH
    }

    /// A header of this connection with its present credit.
    pub(crate) fn header(&self, op: u16) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: self.guest_cid,
            src_port: self.ports.host,
            dst_port: self.ports.guest,
            len: 0,
            socket_type: TYPE_STREAM,
            op,
            flags: 0,
            buf_alloc: self.own.buf_alloc(),
            fwd_cnt: self.own.forwarded(),
        }
    }

    /// Notes the guest's credit, which every packet carries.
    pub(crate) fn take_credit(&mut self, header: &Header) {
        self.peer.update(header.buf_alloc, header.fwd_cnt);
        // Asking again before there is any would only go back and forth: the guest tells by
        // itself when its program has read.
        if self.peer.available() > 0 {
            self.credit_requested = false;
        }
    }

    /// The guest accepted.
    pub(crate) fn accepted(&mut self) {
        self.state = State::Established;
    }

    /// The guest wants to know its credit.
    pub(crate) fn credit_asked(&mut self) {
        self.credit_update_due = true;
    }

    /// The guest sent bytes: the part of `packet` behind its header.
    pub(crate) fn data<B: BitmapSlice>(&mut self, packet: &GuestBuffer<'_, B>, len: u32) -> Fate {
        let done_sending = self.guest_shutdown & SHUTDOWN_SEND != 0;
        if self.state != State::Established || done_sending || !self.own.receive(len) {
            return Fate::Reset;
        }
        let total = len as usize;
        let mut sent = 0;
        if self.backlog.is_empty() && !self.host_deaf && total > 0 {
            match guest_socket::send(self.socket.as_fd(), packet, HEADER_LEN, total) {
                Ok(count) => sent = count,
                Err(error) if would_block(&error) => {}
                Err(_) => self.host_left_reading(),
            }
        }
        if self.host_deaf {
            // The guest learns it by a shutdown; until then its bytes go nowhere.
            sent = total;
        }
        if sent < total {
            let start = self.backlog.len();
            self.backlog.resize(start + (total - sent), 0);
            let (front, back) = self.backlog.as_mut_slices();
            // The new bytes may straddle the end of the ring.
            let skipped = start.min(front.len());
            let front = front.get_mut(skipped..).unwrap_or_default();
            let back = back.get_mut(start - skipped..).unwrap_or_default();
            let copied = packet.read(HEADER_LEN + sent, front);
            packet.read(HEADER_LEN + sent + copied, back);
        }
        self.forwarded(sent);
        Fate::Lives
    }

    /// The guest shut directions down.
    pub(crate) fn guest_shut_down(&mut self, flags: u32) -> Fate {
        self.guest_shutdown |= flags & SHUTDOWN_BOTH;
        if self.guest_shutdown & SHUTDOWN_RECEIVE != 0 {
            // The host's program gets EPIPE from now on. What it had sent before is not wanted.
            let _ = shutdown(&self.socket, Shutdown::Read);
            self.readable = false;
        }
        self.end_of_guest_data()
    }

    /// The guest reset the connection; what it had sent in good order is still delivered.
    pub(crate) fn guest_reset(&mut self) -> Fate {
        let orderly = self.guest_shutdown & SHUTDOWN_SEND != 0;
        if orderly && self.wants_room() {
            self.state = State::Draining;
            return Fate::Lives;
        }
        Fate::Over
    }

    /// The guest is gone altogether; what it had sent is still delivered.
    pub(crate) fn guest_vanished(&mut self) -> Fate {
        if self.state == State::Established && self.wants_room() {
            self.guest_shutdown |= SHUTDOWN_BOTH;
        } else if self.state != State::Draining {
            return Fate::Over;
        }
        self.state = State::Draining;
        Fate::Lives
    }

    /// The socket has bytes, or its end, to read.
    pub(crate) fn host_readable(&mut self) {
        self.readable = self.guest_shutdown & SHUTDOWN_RECEIVE == 0;
    }

    /// The host's program closed its end.
    pub(crate) fn host_closed(&mut self) -> Fate {
        self.host_left_reading();
        match self.state {
            State::Requested if self.handshake_due => Fate::Over,
            State::Requested => Fate::Reset,
            State::Established => self.end_of_guest_data(),
            State::Draining => Fate::Over,
        }
    }

    /// The socket has room again.
    pub(crate) fn host_writable(&mut self) -> Fate {
        while self.wants_room() {
            let (front, back) = self.backlog.as_slices();
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let parts = [IoSlice::new(front), IoSlice::new(back)];
            let sent = sendmsg(
                &self.socket,
                &parts,
                &mut SendAncillaryBuffer::default(),
                flags,
            );
            match sent.map_err(io::Error::from) {
                Ok(count) => {
                    self.backlog.drain(..count);
                    self.forwarded(count);
                }
                Err(error) if would_block(&error) => return Fate::Lives,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.host_left_reading(),
            }
        }
        // A full buffer is rare; its memory should not outlive the need.
        self.backlog = VecDeque::new();
        self.end_of_guest_data()
    }

    /// What to send to the guest next.
    pub(crate) fn outgoing(&mut self) -> Option<Outgoing> {
        let handshake = match self.state {
            State::Requested => op::REQUEST,
            State::Established => op::RESPONSE,
            State::Draining => return None,
        };
        if self.handshake_due {
            return Some(Outgoing::Control(self.header(handshake)));
        }
        if self.state == State::Requested {
            return None;
        }
        if self.readable && !self.host_finished {
            let credit = self.peer.available();
            if credit > 0 {
                return Some(Outgoing::Data(credit));
            }
            if !self.credit_requested {
                return Some(Outgoing::Control(self.header(op::CREDIT_REQUEST)));
            }
        }
        let shutdown = self.due_shutdown();
        if shutdown & !self.told_shutdown != 0 {
            let mut header = self.header(op::SHUTDOWN);
            header.flags = shutdown;
            return Some(Outgoing::Control(header));
        }
        self.credit_update_due
            .then(|| Outgoing::Control(self.header(op::CREDIT_UPDATE)))
    }

    /// A packet of [`Self::outgoing`] reached the guest's ring.
    pub(crate) fn sent(&mut self, header: &Header) {
        match header.op {
            op::REQUEST | op::RESPONSE => self.handshake_due = false,
            op::SHUTDOWN => self.told_shutdown |= header.flags,
            op::CREDIT_REQUEST => self.credit_requested = true,
            op::RW => self.peer.spend(header.len),
            _ => {}
        }
        // Every header carries the credit.
        self.credit_update_due = false;
        self.own.announce();
    }

    /// The socket has nothing more for now.
    pub(crate) fn host_drained(&mut self) {
        self.readable = false;
    }

    /// The socket has nothing more for ever.
    pub(crate) fn host_ended(&mut self) {
        self.readable = false;
        self.host_finished = true;
    }

    /// The directions that have ended on the host's side.
    fn due_shutdown(&self) -> u32 {
        // What a guest that does not read would not get needs no reading to its end.
        let unwanted = self.host_deaf && self.guest_shutdown & SHUTDOWN_RECEIVE != 0;
        let send = if self.host_finished || unwanted {
            SHUTDOWN_SEND
        } else {
            0
        };
        let receive = if self.host_deaf { SHUTDOWN_RECEIVE } else { 0 };
        send | receive
    }

    /// Counts bytes that left the buffer, and lets the guest know when it is worth a packet.
    fn forwarded(&mut self, count: usize) {
        // What the buffer holds is bounded by its size, a u32.
        self.own.forward(u32::try_from(count).unwrap_or(u32::MAX));
        self.credit_update_due |= self.own.update_due();
    }

    /// The host's program reads no more, so what waits for it has nowhere to go.
    fn host_left_reading(&mut self) {
        self.host_deaf = true;
        let lost = self.backlog.len();
        self.backlog = VecDeque::new();
        self.forwarded(lost);
    }

    /// Passes the end of the guest's bytes on, once they are all delivered.
    fn end_of_guest_data(&mut self) -> Fate {
        if self.wants_room() {
            return Fate::Lives;
        }
        if self.state == State::Draining {
            return Fate::Over;
        }
        if self.guest_shutdown == SHUTDOWN_BOTH {
            // The reset is how the guest's shutdown is confirmed.
            return Fate::Reset;
        }
        if self.guest_shutdown & SHUTDOWN_SEND != 0 {
            let _ = shutdown(&self.socket, Shutdown::Write);
        }
        Fate::Lives
    }
}
