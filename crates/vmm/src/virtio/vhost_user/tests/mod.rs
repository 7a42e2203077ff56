//! The front end against back ends that fail in all the ways they can.

mod fake_peer;
mod queues;

use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use microvm_virtio::DeviceMeter;
use tempfile::TempDir;
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use self::fake_peer::{Answer, Request, serve};
use super::VhostUserHost;
use crate::memory::{PageSize, Ram};
use crate::virtio::error::{PeerLoss, VirtioError};
use crate::virtio::plug::{DeviceEvent, DeviceEventKind, VhostUserDevice, VhostUserPeer};
use crate::virtio::state::QueueState;
use crate::virtio::test_line::Line;
use crate::virtio::transport::{Activation, DeviceHost, HostContext, Interrupt};

/// For back ends that are to be given up soon.
const SHORT: Duration = Duration::from_millis(100);
/// For those that are not.
const LONG: Duration = Duration::from_secs(60);

struct Bench {
    context: HostContext,
    line: Arc<Line>,
    events: Receiver<DeviceEvent>,
}

impl Bench {
    fn new() -> Self {
        let ram = Ram::new(1 << 20, PageSize::Base).unwrap();
        Self::with_memory(Arc::clone(ram.memory()))
    }

    fn with_memory(memory: Arc<GuestMemoryMmap>) -> Self {
        Self::with_queues(memory, 2)
    }

    fn with_queues(memory: Arc<GuestMemoryMmap>, queues: usize) -> Self {
        let event = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).unwrap();
        let line = Arc::new(Line {
            descriptor: event(),
            failures: Mutex::default(),
        });
        let (sender, events) = channel();
        let sender = Mutex::new(sender);
        Self {
            context: HostContext {
                memory,
                kicks: (0..queues).map(|_| event()).collect(),
                interrupt: Arc::clone(&line) as Arc<dyn Interrupt>,
                meter: Arc::new(DeviceMeter::new(0)),
                events: Arc::new(move |event| {
                    let _ = sender.lock().unwrap().send(event);
                }),
            },
            line,
            events,
        }
    }

    fn connect(
        &self,
        peer: impl Into<OwnedFd>,
        timeout: Duration,
    ) -> Result<VhostUserHost, VirtioError> {
        self.connect_to(VhostUserPeer::Fd(peer.into()), timeout)
    }

    fn connect_to(
        &self,
        peer: VhostUserPeer,
        timeout: Duration,
    ) -> Result<VhostUserHost, VirtioError> {
        let device = VhostUserDevice {
            peer,
            device_type: 19,
            queues: u16::try_from(self.context.kicks.len()).unwrap(),
            queue_size: 8,
            config: None,
        };
        VhostUserHost::connect_within(device, self.context.clone(), timeout)
    }

    fn wait_loss(&self) -> PeerLoss {
        let event = self.events.recv_timeout(LONG).unwrap();
        assert_eq!(event.device_type, 19);
        assert_eq!(*self.line.failures.lock().unwrap(), [true]);
        match event.kind {
            DeviceEventKind::PeerLost(loss) => loss,
            other @ DeviceEventKind::Failed(_) => panic!("{other:?}"),
        }
    }
}

fn queues() -> Vec<QueueState> {
    ready_queues(2)
}

fn ready_queues(count: u64) -> Vec<QueueState> {
    (0..count)
        .map(|index| QueueState {
            max_size: 8,
            size: 8,
            ready: true,
            descriptor_table: 0x1000 + index * 0x3000,
            avail_ring: 0x2000 + index * 0x3000,
            used_ring: 0x3000 + index * 0x3000,
            ..QueueState::default()
        })
        .collect()
}

fn activate(host: &mut VhostUserHost) -> Result<(), VirtioError> {
    host.activate(&Activation {
        features: 1 << 32 | 1 << 29,
        queues: &queues(),
    })
}

/// A script that answers all as usual but one request.
fn but(code: u32, mut answer: impl FnMut() -> Answer) -> impl FnMut(&Request) -> Answer {
    move |request| {
        if request.code == code {
            answer()
        } else {
            Answer::Usual
        }
    }
}

#[test]
fn a_silent_peer_is_given_up_at_the_deadline() {
    let bench = Bench::new();
    let (_theirs, ours) = UnixStream::pair().unwrap();
    let start = Instant::now();
    let refused = bench.connect(ours, SHORT).err();
    assert!(matches!(
        refused,
        Some(VirtioError::PeerLost(PeerLoss::TimedOut { .. }))
    ));
    assert!(start.elapsed() >= SHORT);
}

#[test]
fn a_peer_that_hangs_up_during_the_handshake_is_an_error() {
    for code in [
        fake_peer::GET_FEATURES,
        fake_peer::GET_PROTOCOL_FEATURES,
        fake_peer::GET_CONFIG,
    ] {
        let bench = Bench::new();
        let (peer, _requests, thread) = serve(but(code, || Answer::Close));
        let refused = bench.connect(peer, LONG).err();
        assert!(matches!(
            refused,
            Some(VirtioError::PeerLost(PeerLoss::Closed))
        ));
        thread.join().unwrap();
    }
}

#[test]
fn a_peer_that_talks_nonsense_is_dropped() {
    for code in [
        fake_peer::GET_FEATURES,
        fake_peer::GET_QUEUE_NUM,
        fake_peer::GET_CONFIG,
    ] {
        let bench = Bench::new();
        let (peer, _requests, thread) = serve(but(code, || Answer::Garbage));
        let refused = bench.connect(peer, LONG).err();
        assert!(matches!(
            refused,
            Some(VirtioError::PeerLost(PeerLoss::Protocol { .. }))
        ));
        // The front end hung up: a back end that goes on would get no further.
        thread.join().unwrap();
    }
}

#[test]
fn a_peer_without_version_1_is_refused() {
    let bench = Bench::new();
    let legacy = || Answer::Bytes((1_u64 << 30).to_le_bytes().to_vec());
    let (peer, _requests, _thread) = serve(but(fake_peer::GET_FEATURES, legacy));
    assert!(matches!(
        bench.connect(peer, LONG).err(),
        Some(VirtioError::LegacyPeer)
    ));
}

#[test]
fn a_peer_that_hangs_at_activation_is_given_up_at_the_deadline() {
    for code in [
        fake_peer::SET_FEATURES,
        fake_peer::SET_MEM_TABLE,
        fake_peer::SET_VRING_ENABLE,
    ] {
        let bench = Bench::new();
        let (peer, _requests, thread) = serve(but(code, || Answer::Hang));
        let mut host = bench.connect(peer, SHORT).unwrap();
        assert!(matches!(
            activate(&mut host),
            Err(VirtioError::PeerLost(PeerLoss::TimedOut { .. }))
        ));
        assert!(matches!(bench.wait_loss(), PeerLoss::TimedOut { .. }));
        // Nothing waits for it again.
        host.reset();
        assert!(matches!(
            activate(&mut host),
            Err(VirtioError::PeerLost(PeerLoss::TimedOut { .. }))
        ));
        host.stop();
        thread.join().unwrap();
    }
}

#[test]
fn a_reset_gives_a_peer_up_that_keeps_its_rings() {
    let bench = Bench::new();
    let (peer, _requests, _thread) = serve(but(fake_peer::GET_VRING_BASE, || Answer::Hang));
    let mut host = bench.connect(peer, SHORT).unwrap();
    activate(&mut host).unwrap();
    host.reset();
    let operation = "give a ring back";
    assert_eq!(bench.wait_loss(), PeerLoss::TimedOut { operation });
}

#[test]
fn stopping_does_not_wait_for_a_peer_that_hangs() {
    let bench = Bench::new();
    let (hangs, hung) = channel();
    let (peer, _requests, _thread) = serve(but(fake_peer::SET_MEM_TABLE, move || {
        hangs.send(()).unwrap();
        Answer::Hang
    }));
    let mut host = bench.connect(peer, LONG).unwrap();
    let cancel = host.canceller().unwrap();
    let start = Instant::now();
    std::thread::scope(|scope| {
        let activation = scope.spawn(|| activate(&mut host));
        hung.recv().unwrap();
        cancel();
        assert!(matches!(
            activation.join().unwrap(),
            Err(VirtioError::PeerLost(_))
        ));
    });
    host.stop();
    assert!(start.elapsed() < LONG);
    assert!(bench.events.try_recv().is_err(), "a stop is no loss");
}

#[test]
fn a_peer_that_declines_is_an_error_and_stays_connected() {
    let bench = Bench::new();
    let mut declined = false;
    let (peer, _requests, _thread) = serve(but(fake_peer::SET_MEM_TABLE, move || {
        if std::mem::replace(&mut declined, true) {
            Answer::Usual
        } else {
            Answer::Bytes(1_u64.to_le_bytes().to_vec())
        }
    }));
    let mut host = bench.connect(peer, LONG).unwrap();
    assert!(matches!(
        activate(&mut host),
        Err(VirtioError::Declined {
            operation: "map guest memory"
        })
    ));
    host.reset();
    activate(&mut host).unwrap();
    assert!(bench.events.try_recv().is_err());
}

#[test]
fn an_error_that_a_peer_reports_for_a_ring_is_a_loss() {
    let bench = Bench::new();
    let (peer, requests, _thread) = serve(|_: &Request| Answer::Usual);
    let mut host = bench.connect(peer, LONG).unwrap();
    activate(&mut host).unwrap();
    let descriptor = requests
        .iter()
        .find(|request| request.code == fake_peer::SET_VRING_ERR)
        .and_then(|request| request.descriptor)
        .unwrap();
    std::io::Write::write_all(&mut &descriptor, &1_u64.to_le_bytes()).unwrap();
    assert_eq!(bench.wait_loss(), PeerLoss::Ring);
}

#[test]
fn a_peer_that_declines_a_pause_or_a_resume_halfway_is_a_loss() {
    // The enabling of two rings, their disabling, their enabling again: the last of each declined.
    for (declined, pauses) in [(4, false), (6, true)] {
        let bench = Bench::new();
        let mut seen = 0;
        let (peer, _requests, _thread) = serve(but(fake_peer::SET_VRING_ENABLE, move || {
            seen += 1;
            if seen == declined {
                Answer::Bytes(1_u64.to_le_bytes().to_vec())
            } else {
                Answer::Usual
            }
        }));
        let mut host = bench.connect(peer, LONG).unwrap();
        activate(&mut host).unwrap();
        let paused = host.pause();
        assert_eq!(paused.is_ok(), pauses);
        if pauses {
            assert!(matches!(host.resume(), Err(VirtioError::PeerLost(_))));
        }
        assert!(matches!(bench.wait_loss(), PeerLoss::Protocol { .. }));
    }
}

#[test]
fn an_impossible_ring_position_is_a_loss() {
    let bench = Bench::new();
    let beyond = || Answer::Bytes((1_u64 << 48).to_le_bytes().to_vec());
    let (peer, _requests, _thread) = serve(but(fake_peer::GET_VRING_BASE, beyond));
    let mut host = bench.connect(peer, LONG).unwrap();
    activate(&mut host).unwrap();
    assert!(matches!(host.pause(), Err(VirtioError::PeerLost(_))));
    assert!(matches!(bench.wait_loss(), PeerLoss::Protocol { .. }));
}

#[test]
fn pause_and_resume_hand_the_rings_back_where_they_were() {
    let bench = Bench::new();
    let (peer, requests, _thread) = serve(|_: &Request| Answer::Usual);
    let mut host = bench.connect(peer, LONG).unwrap();
    activate(&mut host).unwrap();
    let positions = host.pause().unwrap();
    assert!(positions.iter().all(|position| position.next_avail == 3));
    assert_eq!(host.pause().unwrap(), positions);
    host.resume().unwrap();
    host.resume().unwrap();
    host.stop();
    let bases: Vec<u64> = requests
        .iter()
        .filter(|request| request.code == 10)
        .map(|request| request.number())
        .collect();
    assert_eq!(bases, [0, 1, 3 << 32, 1 | 3 << 32]);
}

#[test]
fn the_driver_s_features_reach_the_peer_with_the_protocol_s() {
    let bench = Bench::new();
    let (peer, requests, _thread) = serve(|_: &Request| Answer::Usual);
    let mut host = bench.connect(peer, LONG).unwrap();
    assert_eq!(host.features(), fake_peer::FEATURES);
    activate(&mut host).unwrap();
    let taken = requests
        .iter()
        .find(|request| request.code == fake_peer::SET_FEATURES)
        .unwrap();
    assert_eq!(taken.number(), 1 << 32 | 1 << 30 | 1 << 29);
}

#[test]
fn writes_to_the_configuration_space_reach_the_peer() {
    let bench = Bench::new();
    let (peer, requests, _thread) = serve(|_: &Request| Answer::Usual);
    let mut host = bench.connect(peer, LONG).unwrap();
    let read = |host: &VhostUserHost| {
        let mut data = [0xaa; 10];
        host.read_config(0, &mut data);
        data
    };
    assert_eq!(
        read(&host)[..],
        [0x77; 8].into_iter().chain([0; 2]).collect::<Vec<_>>()
    );
    host.write_config(2, &[1, 2]);
    // Beyond its end there is nothing to write to.
    host.write_config(7, &[1, 2]);
    host.write_config(u32::MAX, &[1]);
    assert_eq!(read(&host)[..5], [0x77, 0x77, 1, 2, 0x77]);
    host.stop();
    let writes: Vec<_> = requests
        .iter()
        .filter(|request| request.code == fake_peer::SET_CONFIG)
        .collect();
    assert_eq!(writes.len(), 1);
    // Offset, size, and the flags of a driver's write rather than of a live migration.
    assert_eq!(writes[0].body[..12], [2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_peer_may_have_no_configuration_space() {
    let bench = Bench::new();
    // The protocol's way to decline: a size of 0, with nothing to follow.
    let none = || Answer::Bytes(vec![0; 12 + 8]);
    let (peer, _requests, _thread) = serve(but(fake_peer::GET_CONFIG, none));
    let refused = bench.connect(peer, LONG).err();
    // Crate vhost takes the size of 0 for a malformed message before it looks at its meaning.
    assert!(matches!(
        refused,
        Some(VirtioError::PeerLost(PeerLoss::Protocol { .. }))
    ));
}

#[test]
fn descriptors_that_are_no_connected_unix_streams_are_refused() {
    let bench = Bench::new();
    let folder = TempDir::new().unwrap();
    let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
    let (datagram, _other) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let peers: [OwnedFd; 4] = [
        listener.into(),
        datagram.into(),
        file.into(),
        UdpSocket::bind("127.0.0.1:0").unwrap().into(),
    ];
    for peer in peers {
        assert!(matches!(
            bench.connect(peer, LONG).err(),
            Some(VirtioError::NotAPeer { .. })
        ));
    }
}

#[test]
fn sockets_where_nobody_listens_or_accepts_are_refused() {
    let bench = Bench::new();
    let folder = TempDir::new().unwrap();
    let missing = VhostUserPeer::Socket(folder.path().join("missing"));
    assert!(matches!(
        bench.connect_to(missing, LONG).err(),
        Some(VirtioError::Connect { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound
    ));

    let path = folder.path().join("full");
    let listener = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _first = UnixStream::connect(&path).unwrap();
    assert!(matches!(
        bench.connect_to(VhostUserPeer::Socket(path), SHORT).err(),
        Some(VirtioError::Connect { source, .. })
            if source.kind() == std::io::ErrorKind::TimedOut
    ));
}

#[test]
fn memory_that_another_process_cannot_see_is_refused() {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let bench = Bench::with_memory(Arc::new(memory));
    let (peer, _requests, _thread) = serve(|_: &Request| Answer::Usual);
    assert!(matches!(
        bench.connect(peer, LONG).err(),
        Some(VirtioError::PrivateMemory { address: 0 })
    ));
}
