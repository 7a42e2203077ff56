//! Any packets, ring contents, clients and resets before the vsock device.
#![no_main]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use microvm_virtio::{Device, Dispatcher, Event, QueueSet};
use microvm_vsock::{VsockConfig, VsockDevice};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const RAM: usize = 0x4_0000;
const QUEUE_SIZE: u16 = 16;
const GUEST_CID: u64 = 3;
const HOST_CID: u64 = 2;
const PAYLOADS: u64 = 0x1_0000;
const RX_BUFFERS: u64 = 0x2_0000;
const RX_BUFFER_LEN: u32 = 0x400;

#[derive(Debug, Arbitrary)]
enum Step {
    /// A packet in good form, so that the fuzzer need not find out how to make one.
    Packet {
        guest_port: u8,
        host_port: u8,
        op: u8,
        flags: u8,
        buf_alloc: u32,
        fwd_cnt: u32,
        payload: u16,
        /// How far `len` is from what is there.
        lie: i8,
    },
    /// A packet in any form.
    Header {
        bytes: [u8; 44],
        room: u16,
    },
    /// Anything anywhere, the rings included.
    Write {
        at: u16,
        bytes: Vec<u8>,
    },
    Kick(u8),
    HostEvent,
    /// One more receive buffer, maybe too small.
    RxBuffer {
        short: bool,
    },
    Dial {
        line: Vec<u8>,
        port: u8,
        proper: bool,
    },
    Send {
        client: u8,
        count: u16,
    },
    Receive {
        client: u8,
    },
    Leave {
        client: u8,
    },
    Accept,
    Reset,
}

struct Queues([Queue; 3]);

impl QueueSet for Queues {
    fn count(&self) -> usize {
        3
    }

    fn queue(&mut self, index: usize) -> Option<&mut Queue> {
        self.0.get_mut(index)
    }

    fn signal(&self, _index: usize) {}
}

/// The driver's side of one queue.
struct Ring {
    base: u64,
    avail: u16,
}

impl Ring {
    fn publish(&mut self, memory: &GuestMemoryMmap, address: u64, len: u32, flags: u16) {
        let slot = u64::from(self.avail % QUEUE_SIZE);
        let mut descriptor = Vec::new();
        descriptor.extend(address.to_le_bytes());
        descriptor.extend(len.to_le_bytes());
        descriptor.extend(flags.to_le_bytes());
        descriptor.extend([0; 2]);
        let write = |bytes: &[u8], at| memory.write_slice(bytes, GuestAddress(at)).expect("in RAM");
        write(&descriptor, self.base + 16 * slot);
        write(
            &u16::try_from(slot).expect("small").to_le_bytes(),
            self.base + 0x404 + 2 * slot,
        );
        self.avail = self.avail.wrapping_add(1);
        write(&self.avail.to_le_bytes(), self.base + 0x402);
    }
}

/// A folder, and a program of the host that listens for ports 1 of all devices in it.
fn world() -> &'static (PathBuf, UnixListener) {
    static WORLD: OnceLock<(PathBuf, UnixListener)> = OnceLock::new();
    WORLD.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("vsock-fuzz-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).expect("a folder");
        let listener = UnixListener::bind(folder.join("v_1")).expect("a listener");
        listener.set_nonblocking(true).expect("nonblocking");
        (folder, listener)
    })
}

fn queue(index: u64) -> Queue {
    let base = index * 0x1000;
    let mut queue = Queue::new(QUEUE_SIZE).expect("a queue");
    let _ = queue.try_set_desc_table_address(GuestAddress(base));
    let _ = queue.try_set_avail_ring_address(GuestAddress(base + 0x400));
    let _ = queue.try_set_used_ring_address(GuestAddress(base + 0x800));
    queue.set_event_idx(index == 0);
    queue.set_ready(true);
    queue
}

fn rings() -> [Ring; 2] {
    [0x1000, 0x2000].map(|base| Ring { base, avail: 0 })
}

fuzz_target!(|steps: Vec<Step>| {
    let (folder, listener) = world();
    let socket = folder.join("v");
    let mut device = VsockDevice::new(VsockConfig {
        guest_cid: GUEST_CID,
        socket: socket.clone(),
    })
    .expect("a device");
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), RAM)]).expect("memory");
    let mut queues = Queues([queue(1), queue(2), queue(3)]);
    let [mut rx, mut tx] = rings();
    let mut dispatcher = Dispatcher::new(3);
    let mut streams: Vec<UnixStream> = Vec::new();
    for step in steps {
        let event = match step {
            Step::Packet {
                guest_port,
                host_port,
                op,
                flags,
                buf_alloc,
                fwd_cnt,
                payload,
                lie,
            } => {
                let room = u32::from(payload);
                let mut bytes = Vec::new();
                bytes.extend(GUEST_CID.to_le_bytes());
                bytes.extend(HOST_CID.to_le_bytes());
                bytes.extend(u32::from(guest_port % 4).to_le_bytes());
                // Ports that the host listens on, refuses, or made up for its clients.
                let host_port = match host_port % 8 {
                    port @ 0..4 => u32::from(port),
                    port => (1 << 30) + u32::from(port) - 4,
                };
                bytes.extend(host_port.to_le_bytes());
                bytes.extend(room.wrapping_add_signed(lie.into()).to_le_bytes());
                bytes.extend(1u16.to_le_bytes());
                bytes.extend(u16::from(op % 9).to_le_bytes());
                bytes.extend(u32::from(flags).to_le_bytes());
                bytes.extend(buf_alloc.to_le_bytes());
                bytes.extend(fwd_cnt.to_le_bytes());
                let _ = memory.write(&bytes, GuestAddress(PAYLOADS));
                tx.publish(&memory, PAYLOADS, 44 + room, 0);
                Event::Kick(1)
            }
            Step::Header { bytes, room } => {
                let _ = memory.write(&bytes, GuestAddress(PAYLOADS));
                tx.publish(&memory, PAYLOADS, 44 + u32::from(room), 0);
                Event::Kick(1)
            }
            Step::Write { at, bytes } => {
                let _ = memory.write(&bytes, GuestAddress(at.into()));
                continue;
            }
            Step::Kick(index) => Event::Kick(usize::from(index % 4)),
            Step::HostEvent => Event::Host,
            Step::RxBuffer { short } => {
                let slot = u64::from(rx.avail % QUEUE_SIZE);
                let len = if short { 43 } else { RX_BUFFER_LEN };
                let address = RX_BUFFERS + slot * u64::from(RX_BUFFER_LEN);
                rx.publish(&memory, address, len, 2);
                Event::Kick(0)
            }
            Step::Dial { line, port, proper } => {
                if let Ok(mut stream) = UnixStream::connect(&socket) {
                    let _ = stream.set_nonblocking(true);
                    let _ = if proper {
                        writeln!(stream, "CONNECT {}", port % 4)
                    } else {
                        stream.write_all(&line)
                    };
                    streams.push(stream);
                }
                Event::Host
            }
            Step::Send { client, count } => {
                let index = usize::from(client).checked_rem(streams.len());
                if let Some(stream) = index.and_then(|index| streams.get_mut(index)) {
                    let _ = stream.write(&vec![7; count.into()]);
                }
                Event::Host
            }
            Step::Receive { client } => {
                let index = usize::from(client).checked_rem(streams.len());
                if let Some(stream) = index.and_then(|index| streams.get_mut(index)) {
                    let _ = stream.read(&mut [0; 0x1_0000]);
                }
                Event::Host
            }
            Step::Leave { client } => {
                if let Some(index) = usize::from(client).checked_rem(streams.len()) {
                    streams.swap_remove(index);
                }
                Event::Host
            }
            Step::Accept => {
                if let Ok((stream, _)) = listener.accept() {
                    let _ = stream.set_nonblocking(true);
                    streams.push(stream);
                }
                continue;
            }
            Step::Reset => {
                Device::<GuestMemoryMmap>::reset(&mut device);
                queues = Queues([queue(1), queue(2), queue(3)]);
                let _ = memory.write_slice(&[0; 0x4000], GuestAddress(0));
                [rx, tx] = rings();
                dispatcher = Dispatcher::new(3);
                continue;
            }
        };
        let device: &mut dyn Device<GuestMemoryMmap> = &mut device;
        // The first error ends the device, as its host would.
        if dispatcher
            .handle(event, device, &memory, &mut queues)
            .is_err()
        {
            break;
        }
    }
    // Those that nobody accepted must not fill the backlog for the next input.
    while listener.accept().is_ok() {}
});
