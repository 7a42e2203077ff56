//! A back end that does as a test tells it, on the bytes of the protocol.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use vmm_sys_util::sock_ctrl_msg::ScmSocket;

pub const GET_FEATURES: u32 = 1;
pub const SET_FEATURES: u32 = 2;
pub const SET_MEM_TABLE: u32 = 5;
pub const GET_VRING_BASE: u32 = 11;
pub const SET_VRING_ERR: u32 = 14;
pub const GET_PROTOCOL_FEATURES: u32 = 15;
pub const GET_QUEUE_NUM: u32 = 17;
pub const SET_VRING_ENABLE: u32 = 18;
pub const GET_CONFIG: u32 = 24;
pub const SET_CONFIG: u32 = 25;

/// `VERSION_1`, protocol features, `EVENT_IDX`, logging.
pub const FEATURES: u64 = 1 << 32 | 1 << 30 | 1 << 29 | 1 << 26;
/// Queue count, acknowledgements, configuration space.
const PROTOCOL_FEATURES: u64 = 1 << 0 | 1 << 3 | 1 << 9;

const NEED_REPLY: u32 = 8;

/// A request as it came.
pub struct Request {
    pub code: u32,
    pub body: Vec<u8>,
    pub descriptor: Option<File>,
}

impl Request {
    pub fn number(&self) -> u64 {
        u64::from_le_bytes(self.body[..8].try_into().unwrap())
    }
}

/// What the back end does with a request.
pub enum Answer {
    /// What a sound back end would.
    Usual,
    /// A reply with these bytes.
    Bytes(Vec<u8>),
    /// Nothing, ever again.
    Hang,
    /// Bytes that are no reply.
    Garbage,
    Close,
}

/// Serves one end of a socket pair on a thread; the requests come out of the receiver.
pub fn serve(
    mut script: impl FnMut(&Request) -> Answer + Send + 'static,
) -> (UnixStream, Receiver<Request>, JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (sender, requests) = channel();
    let thread = std::thread::spawn(move || run(ours, &mut script, &sender));
    (theirs, requests, thread)
}

fn run(
    mut socket: UnixStream,
    script: &mut dyn FnMut(&Request) -> Answer,
    requests: &Sender<Request>,
) {
    while let Some((request, flags)) = receive(&mut socket) {
        let bytes = match script(&request) {
            Answer::Usual => usual(&request, flags),
            Answer::Bytes(bytes) => Some(bytes),
            Answer::Hang => {
                // Until the other end hangs up.
                while receive(&mut socket).is_some() {}
                return;
            }
            Answer::Garbage => {
                let _ = socket.write_all(&[0xee; 64]);
                None
            }
            Answer::Close => return,
        };
        let code = request.code;
        let _ = requests.send(request);
        if let Some(bytes) = bytes {
            let mut reply = Vec::new();
            reply.extend(code.to_le_bytes());
            reply.extend(5_u32.to_le_bytes());
            reply.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
            reply.extend(bytes);
            let _ = socket.write_all(&reply);
        }
    }
}

fn receive(socket: &mut UnixStream) -> Option<(Request, u32)> {
    let mut header = [0; 12];
    let (count, descriptor) = socket.recv_with_fd(&mut header).ok()?;
    if count == 0 {
        return None;
    }
    socket.read_exact(&mut header[count..]).ok()?;
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
    let mut body = vec![0; word(8) as usize];
    socket.read_exact(&mut body).ok()?;
    let request = Request {
        code: word(0),
        body,
        descriptor,
    };
    Some((request, word(4)))
}

fn usual(request: &Request, flags: u32) -> Option<Vec<u8>> {
    let number = |number: u64| Some(number.to_le_bytes().to_vec());
    match request.code {
        GET_FEATURES => number(FEATURES),
        GET_PROTOCOL_FEATURES => number(PROTOCOL_FEATURES),
        GET_QUEUE_NUM => number(2),
        // The ring's index, and how far it got.
        GET_VRING_BASE => number(request.number() & 0xffff_ffff | 3 << 32),
        GET_CONFIG => {
            let mut body = request.body.clone();
            body[12..].fill(0x77);
            Some(body)
        }
        _ if flags & NEED_REPLY != 0 => number(0),
        _ => None,
    }
}
