//! A guest with a small vsock stack of its own, which checks the device's credit on the way.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use microvm_vsock::{VsockConfig, VsockDevice};
use tempfile::TempDir;

use super::{Carrier, Driver, GUEST_CID, HOST_CID, Header, PATIENCE, STREAM, op};

/// Buffer that the guest promises for each of its sockets.
pub const GUEST_BUFFER: u32 = 64 * 1024;
const MAX_PACKET: usize = 64 * 1024;

/// A guest's socket, by its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Socket {
    pub guest: u32,
    pub host: u32,
}

#[derive(Debug, Default)]
pub struct State {
    pub connected: bool,
    pub reset: bool,
    pub peer_shutdown: u32,
    pub inbox: VecDeque<u8>,
    /// Whether the program reads what comes, so that credit goes back.
    pub paused: bool,
    pub buf_alloc: u32,
    received: u32,
    consumed: u32,
    announced: u32,
    sent: u32,
    peer_buf_alloc: u32,
    peer_fwd_cnt: u32,
    pub credit_requests: usize,
}

pub struct Guest {
    pub driver: Driver,
    pub sockets: HashMap<Socket, State>,
    pub listening: HashSet<u32>,
    accepted: VecDeque<Socket>,
    /// Packets that belong to no socket.
    pub strays: Vec<Header>,
    next_port: u32,
    folder: TempDir,
}

impl Guest {
    pub fn new<C: Carrier + 'static>() -> Self {
        Self::with_event_idx::<C>(true)
    }

    pub fn with_event_idx<C: Carrier + 'static>(event_idx: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let device = VsockDevice::new(VsockConfig {
            guest_cid: GUEST_CID,
            socket: folder.path().join("vsock"),
        })
        .unwrap();
        let carrier = Box::new(C::new(device, folder.path()));
        Self {
            driver: Driver::new(carrier, event_idx),
            sockets: HashMap::new(),
            listening: HashSet::new(),
            accepted: VecDeque::new(),
            strays: Vec::new(),
            next_port: 5000,
            folder,
        }
    }

    // The host's programs.

    pub fn socket_path(&self) -> PathBuf {
        self.folder.path().join("vsock")
    }

    /// Listens for the guest's connections to `port`.
    pub fn host_listens(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.folder.path().join(format!("vsock_{port}"))).unwrap()
    }

    /// Connects to the device's socket and asks for `port`.
    pub fn host_dials(&self, port: u32) -> UnixStream {
        let mut stream = self.host_connects();
        writeln!(stream, "CONNECT {port}").unwrap();
        stream
    }

    pub fn host_connects(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket_path()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Both ends of a connection that the host's program asked for.
    pub fn pair_from_host(&mut self) -> (Socket, UnixStream) {
        self.listening.insert(1000);
        let stream = self.host_dials(1000);
        let socket = self.accept();
        assert_eq!(read_line(&stream), format!("OK {}\n", socket.host));
        (socket, stream)
    }

    /// Both ends of a connection that the guest asked for.
    pub fn pair_from_guest(&mut self) -> (Socket, UnixStream) {
        let port = self.next_port;
        let listener = self.host_listens(port);
        let socket = self.connect(port).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        (socket, stream)
    }

    // The guest's programs.

    /// Connects to a host port; the header of the reset where it was refused.
    pub fn connect(&mut self, host: u32) -> Result<Socket, Header> {
        let socket = self.start_connecting(host);
        while !self.sockets[&socket].connected {
            self.pump();
            if self.sockets[&socket].reset {
                self.sockets.remove(&socket);
                return Err(Header::to_host(socket.guest, host, op::RST));
            }
        }
        Ok(socket)
    }

    pub fn start_connecting(&mut self, host: u32) -> Socket {
        let guest = self.next_port;
        self.next_port += 1;
        let socket = Socket { guest, host };
        self.sockets.insert(socket, State::with_buffer());
        self.send_control(socket, op::REQUEST, 0);
        socket
    }

    pub fn accept(&mut self) -> Socket {
        loop {
            if let Some(socket) = self.accepted.pop_front() {
                return socket;
            }
            self.pump();
        }
    }

    /// Sends all of `data`, waiting for credit where it takes that.
    pub fn send(&mut self, socket: Socket, data: &[u8]) {
        let mut rest = data;
        while !rest.is_empty() {
            let count = self.send_some(socket, rest);
            rest = &rest[count..];
            if count == 0 {
                self.pump();
            }
        }
    }

    /// Sends what there is credit for; returns how much.
    pub fn send_some(&mut self, socket: Socket, data: &[u8]) -> usize {
        let credit = self.credit(socket);
        let count = data.len().min(credit).min(MAX_PACKET);
        if count > 0 {
            self.send_packet(socket, &data[..count]);
        }
        count
    }

    /// Bytes that the device lets the guest send now.
    pub fn credit(&self, socket: Socket) -> usize {
        let state = &self.sockets[&socket];
        let in_flight = state.sent.wrapping_sub(state.peer_fwd_cnt);
        state.peer_buf_alloc.saturating_sub(in_flight) as usize
    }

    /// Sends one packet, whatever the credit says.
    pub fn send_packet(&mut self, socket: Socket, data: &[u8]) {
        let mut header = self.header(socket, op::RW);
        header.len = data.len() as u32;
        let state = self.sockets.get_mut(&socket).unwrap();
        state.sent = state.sent.wrapping_add(header.len);
        self.driver.send(header, data);
    }

    /// Receives exactly `count` bytes.
    pub fn receive(&mut self, socket: Socket, count: usize) -> Vec<u8> {
        while self.sockets[&socket].inbox.len() < count {
            assert!(!self.sockets[&socket].reset, "reset while receiving");
            self.pump();
        }
        let state = self.sockets.get_mut(&socket).unwrap();
        state.inbox.drain(..count).collect()
    }

    /// Receives until the host's program has ended its side.
    pub fn receive_to_end(&mut self, socket: Socket) -> Vec<u8> {
        while self.sockets[&socket].peer_shutdown & 2 == 0 && !self.sockets[&socket].reset {
            self.pump();
        }
        let state = self.sockets.get_mut(&socket).unwrap();
        state.inbox.drain(..).collect()
    }

    pub fn shut_down(&mut self, socket: Socket, flags: u32) {
        self.send_control(socket, op::SHUTDOWN, flags);
    }

    /// Waits for the device to reset the connection.
    pub fn wait_for_reset(&mut self, socket: Socket) {
        while !self.sockets[&socket].reset {
            self.pump();
        }
    }

    pub fn send_control(&mut self, socket: Socket, op: u16, flags: u32) {
        let mut header = self.header(socket, op);
        header.flags = flags;
        self.driver.send(header, &[]);
    }

    /// The program reads again: what was held back counts as read.
    pub fn resume(&mut self, socket: Socket) {
        let state = self.sockets.get_mut(&socket).unwrap();
        state.paused = false;
        state.consumed = state.received;
        self.send_control(socket, op::CREDIT_UPDATE, 0);
    }

    /// Handles the next packet from the device.
    pub fn pump(&mut self) {
        let (header, payload) = self.driver.receive();
        self.take(header, payload);
    }

    /// Handles all packets that are there, and waits for none.
    pub fn pump_what_is_there(&mut self) {
        while let Some((header, payload)) = self.driver.try_receive() {
            self.take(header, payload);
        }
    }

    fn take(&mut self, header: Header, payload: Vec<u8>) {
        assert_eq!(
            (header.src_cid, header.dst_cid, header.kind),
            (HOST_CID, GUEST_CID, STREAM)
        );
        let socket = Socket {
            guest: header.dst_port,
            host: header.src_port,
        };
        if header.op == op::REQUEST {
            return self.take_request(socket, &header);
        }
        let Some(state) = self.sockets.get_mut(&socket) else {
            self.strays.push(header);
            return;
        };
        if header.op != op::RST {
            state.peer_buf_alloc = header.buf_alloc;
            state.peer_fwd_cnt = header.fwd_cnt;
        }
        match header.op {
            op::RESPONSE => state.connected = true,
            op::RST => state.reset = true,
            op::CREDIT_UPDATE => {}
            op::CREDIT_REQUEST => {
                state.credit_requests += 1;
                self.send_control(socket, op::CREDIT_UPDATE, 0);
            }
            op::RW => self.take_data(socket, payload),
            op::SHUTDOWN => {
                state.peer_shutdown |= header.flags;
                if state.peer_shutdown == 3 {
                    state.reset = true;
                    self.send_control(socket, op::RST, 0);
                }
            }
            other => panic!("operation {other} from the device"),
        }
    }

    fn take_request(&mut self, socket: Socket, header: &Header) {
        if !self.listening.contains(&socket.guest) {
            let reset = Header::to_host(socket.guest, socket.host, op::RST);
            return self.driver.send(reset, &[]);
        }
        let mut state = State::with_buffer();
        state.connected = true;
        state.peer_buf_alloc = header.buf_alloc;
        state.peer_fwd_cnt = header.fwd_cnt;
        assert!(
            self.sockets
                .insert(socket, state)
                .is_none_or(|old| old.reset)
        );
        self.accepted.push_back(socket);
        self.send_control(socket, op::RESPONSE, 0);
    }

    fn take_data(&mut self, socket: Socket, payload: Vec<u8>) {
        let state = self.sockets.get_mut(&socket).unwrap();
        assert!(!payload.is_empty(), "a data packet without data");
        assert_eq!(state.peer_shutdown & 2, 0, "data after the end");
        state.received = state.received.wrapping_add(payload.len() as u32);
        let in_flight = state.received.wrapping_sub(state.announced);
        assert!(
            in_flight <= state.buf_alloc,
            "{in_flight} bytes in a buffer of {}",
            state.buf_alloc
        );
        state.inbox.extend(payload);
        if !state.paused {
            state.consumed = state.received;
            if state.consumed.wrapping_sub(state.announced) > state.buf_alloc / 2 {
                self.send_control(socket, op::CREDIT_UPDATE, 0);
            }
        }
    }

    fn header(&mut self, socket: Socket, op: u16) -> Header {
        let mut header = Header::to_host(socket.guest, socket.host, op);
        let state = self.sockets.get_mut(&socket).unwrap();
        header.buf_alloc = state.buf_alloc;
        header.fwd_cnt = state.consumed;
        state.announced = state.consumed;
        header
    }
}

impl State {
    fn with_buffer() -> Self {
        Self {
            buf_alloc: GUEST_BUFFER,
            ..Self::default()
        }
    }
}

/// Reads a line and not more, by single bytes.
pub fn read_line(stream: &UnixStream) -> String {
    let mut line = String::new();
    BufReader::with_capacity(1, stream)
        .read_line(&mut line)
        .unwrap();
    line
}

/// Reads until the end of the stream.
pub fn read_all(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}
