//! The host's end against guests that are made up: Unix sockets whose names tell the context ID.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, acceptfrom_with, bind, connect, listen,
    socket_with,
};

use super::host::Host;
use super::sockets::Sockets;
use super::{AfVsockError, AfVsockGuest, GuestEnd, Listener};

/// Long enough for anything that happens at all.
const PATIENCE: Duration = Duration::from_secs(60);
const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// A network of its own.
#[derive(Debug, Clone, Copy)]
struct Network(u32);

impl Network {
    fn new() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }

    fn address(self, cid: u32, port: u32, serial: u32) -> SocketAddrUnix {
        let Self(network) = self;
        let process = std::process::id();
        let name = format!("af-vsock/{process}/{network}/{cid}/{port}/{serial}");
        SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap()
    }

    /// A guest connects to a port of the host.
    fn dial(self, cid: u32, port: u32) -> Result<UnixStream, Errno> {
        self.dial_as(cid, port, SocketFlags::CLOEXEC)
    }

    /// The same, where a queue without a place is an error.
    fn dial_now(self, cid: u32, port: u32) -> Result<UnixStream, Errno> {
        self.dial_as(cid, port, FLAGS)
    }

    fn dial_as(self, cid: u32, port: u32, flags: SocketFlags) -> Result<UnixStream, Errno> {
        static SERIAL: AtomicU32 = AtomicU32::new(1);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        bind(&socket, &self.address(cid, u32::MAX, serial))?;
        connect(&socket, &self.address(2, port, 0))?;
        let stream = UnixStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Ok(stream)
    }

    /// A guest listens.
    fn serve(self, cid: u32, port: u32) -> OwnedFd {
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        bind(&socket, &self.address(cid, port, 0)).unwrap();
        listen(&socket, 8).unwrap();
        socket
    }
}

impl Sockets for Network {
    fn listen(&self, port: u32, backlog: i32) -> Result<OwnedFd, Errno> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
        bind(&socket, &self.address(2, port, 0))?;
        listen(&socket, backlog)?;
        Ok(socket)
    }

    fn accept(&self, listener: BorrowedFd<'_>) -> Result<(OwnedFd, u32), Errno> {
        let (socket, peer) = acceptfrom_with(listener, FLAGS)?;
        let peer = SocketAddrUnix::try_from(peer.unwrap()).unwrap();
        let name = String::from_utf8(peer.abstract_name().unwrap().to_vec()).unwrap();
        let cid = name.split('/').nth(3).unwrap().parse().unwrap();
        Ok((socket, cid))
    }

    fn connect(&self, cid: u32, port: u32, _: Duration) -> Result<OwnedFd, Errno> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
        connect(&socket, &self.address(cid, port, 0))?;
        Ok(socket)
    }
}

/// Guests that answer when the test has read what their sockets hold.
#[derive(Debug, Clone, Default)]
struct Undecided(Arc<Mutex<Vec<UnixStream>>>);

impl Sockets for Undecided {
    fn listen(&self, _: u32, _: i32) -> Result<OwnedFd, Errno> {
        Err(Errno::OPNOTSUPP)
    }

    fn accept(&self, _: BorrowedFd<'_>) -> Result<(OwnedFd, u32), Errno> {
        Err(Errno::OPNOTSUPP)
    }

    fn connect(&self, _: u32, _: u32, _: Duration) -> Result<OwnedFd, Errno> {
        let (mut near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        // A socket that is not connected yet is not writable; nor is one that is full.
        while near.write(&[0; 4096]).is_ok() {}
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        self.0.lock().unwrap().push(far);
        Ok(near.into())
    }
}

struct Bench {
    network: Network,
    host: Arc<Host<Network>>,
}

fn bench() -> Bench {
    let network = Network::new();
    let host = Arc::new(Host::start(network).unwrap());
    Bench { network, host }
}

impl Bench {
    fn guest(&self, cid: u32) -> GuestEnd<Network> {
        let host = Arc::clone(&self.host);
        GuestEnd { host, cid }
    }
}

fn says_hello(listener: &Listener<Network>, mut guest: UnixStream, words: &str) {
    guest.write_all(words.as_bytes()).unwrap();
    guest.shutdown(std::net::Shutdown::Write).unwrap();
    let mut stream = listener.accept(PATIENCE).unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, words);
    stream.write_all(b"heard").unwrap();
    drop(stream);
    let mut answer = String::new();
    guest.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "heard");
}

fn is_closed(mut stream: UnixStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn connect_to(guest: &GuestEnd<Network>, port: u32) -> Receiver<Result<UnixStream, AfVsockError>> {
    let (sender, result) = channel();
    let done = Box::new(move |result| sender.send(result).unwrap());
    let GuestEnd { host, cid } = guest;
    if let Err(error) = host.connect(*cid, port, PATIENCE, done) {
        let (sender, result) = channel();
        sender.send(Err(error)).unwrap();
        return result;
    }
    result
}

#[test]
fn guests_of_one_port_are_told_apart() {
    let bench = bench();
    let guests: Vec<_> = (10..15).map(|cid| bench.guest(cid)).collect();
    let listeners: Vec<_> = guests
        .iter()
        .map(|guest| guest.listen(1024, 1).unwrap())
        .collect();
    let dialled: Vec<_> = guests
        .iter()
        .rev()
        .map(|guest| bench.network.dial(guest.cid, 1024).unwrap())
        .collect();
    for ((listener, guest), stream) in listeners.iter().zip(&guests).zip(dialled.into_iter().rev())
    {
        says_hello(listener, stream, &format!("I am {}", guest.cid));
    }
}

#[test]
fn strangers_are_closed_and_disturb_nobody() {
    let bench = bench();
    let guest = bench.guest(10);
    let listener = guest.listen(1024, 1).unwrap();
    // Of another port it is a stranger too.
    let _elsewhere = bench.guest(11).listen(2048, 1).unwrap();
    for _ in 0..200 {
        for cid in [0, 1, 2, 9, 11, u32::MAX] {
            assert!(is_closed(bench.network.dial(cid, 1024).unwrap()), "{cid}");
        }
    }
    assert!(listener.inbox.take().is_none());
    says_hello(
        &listener,
        bench.network.dial(10, 1024).unwrap(),
        "still here",
    );
}

#[test]
fn a_port_is_open_from_its_first_listener_to_its_last() {
    let bench = bench();
    let refused = |port| bench.network.dial(10, port).unwrap_err() == Errno::CONNREFUSED;
    assert!(refused(1024));
    let (one, other) = (bench.guest(10), bench.guest(11));
    let first = one.listen(1024, 1).unwrap();
    let second = other.listen(1024, 1).unwrap();
    drop(first);
    assert!(
        is_closed(bench.network.dial(10, 1024).unwrap()),
        "a stranger by now"
    );
    says_hello(&second, bench.network.dial(11, 1024).unwrap(), "open");
    drop(second);
    assert!(refused(1024));
    let again = one.listen(1024, 1).unwrap();
    says_hello(&again, bench.network.dial(10, 1024).unwrap(), "again");
}

#[test]
fn a_port_that_is_taken_is_told() {
    let bench = bench();
    let guest = bench.guest(10);
    let _other_program = bench.network.listen(1024, 1).unwrap();
    let taken = |result: Result<_, AfVsockError>| match result {
        Err(AfVsockError::PortTaken(port)) => port,
        _ => 0,
    };
    assert_eq!(taken(guest.listen(1024, 1)), 1024);
    let listener = guest.listen(1025, 1).unwrap();
    assert_eq!(taken(guest.listen(1025, 1)), 1025, "by the same guest");
    // What failed left nothing that stands in the way.
    says_hello(&listener, bench.network.dial(10, 1025).unwrap(), "hello");
    drop(_other_program);
    assert!(guest.listen(1024, 1).is_ok());
}

#[test]
fn a_wait_for_nobody_ends_in_time_and_goes_on_after_a_signal() {
    extern "C" fn ignore(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = ignore;
    // SAFETY: the handler does nothing, so it is safe at any time.
    unsafe { libc::signal(libc::SIGUSR2, handler as libc::sighandler_t) };
    let bench = bench();
    let guest = bench.guest(10);
    let listener = guest.listen(1024, 1).unwrap();
    let ready = Barrier::new(2);
    std::thread::scope(|scope| {
        let (sender, id) = channel();
        let (ready, listener) = (&ready, &listener);
        let waiter = scope.spawn(move || {
            // SAFETY: it has no precondition.
            sender.send(unsafe { libc::pthread_self() }).unwrap();
            ready.wait();
            let limit = Duration::from_millis(200);
            let started = Instant::now();
            let result = listener.accept(limit);
            assert!(started.elapsed() >= limit);
            assert!(matches!(
                result,
                Err(AfVsockError::TimedOut {
                    milliseconds: 200,
                    ..
                })
            ));
        });
        let id = id.recv().unwrap();
        ready.wait();
        while !waiter.is_finished() {
            // SAFETY: the thread was not joined yet.
            unsafe { libc::pthread_kill(id, libc::SIGUSR2) };
            std::thread::yield_now();
        }
    });
    let dialled = bench.network.dial(10, 1024).unwrap();
    let stream = listener.accept(Duration::MAX).unwrap();
    assert_eq!(
        stream.read_timeout().unwrap(),
        Some(Duration::from_secs(30))
    );
    drop(dialled);
}

#[test]
fn of_an_agent_that_dials_again_the_newest_connection_counts() {
    let bench = bench();
    let guest = bench.guest(10);
    let listener = guest.listen(1024, 1).unwrap();
    let given_up = bench.network.dial(10, 1024).unwrap();
    let newest = bench.network.dial(10, 1024).unwrap();
    assert!(is_closed(given_up));
    says_hello(&listener, newest, "the newest");
}

#[test]
fn as_many_wait_in_the_kernel_as_the_listeners_of_a_port_ask_for() {
    let bench = bench();
    let (one, other) = (bench.guest(10), bench.guest(11));
    let agents = one.listen(1024, 1).unwrap();
    let programs = one.listen(6000, 128).unwrap();
    // The thread, held where it tells of a connection: nothing is accepted meanwhile.
    let _service = bench.network.serve(10, 7);
    let (held, going_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let done = {
        let (held, going_on) = (Arc::clone(&held), Arc::clone(&going_on));
        Box::new(move |_| {
            held.wait();
            going_on.wait();
        })
    };
    bench.host.connect(10, 7, PATIENCE, done).unwrap();
    held.wait();
    let dial_all = |cid, port, count| -> Vec<UnixStream> {
        let dials = std::iter::repeat_with(|| bench.network.dial_now(cid, port));
        dials.take(count).filter_map(Result::ok).collect()
    };
    // Linux takes one more than it was told.
    assert_eq!(dial_all(10, 1024, 50).len(), 2);
    let mut talks = dial_all(10, 6000, 50);
    assert_eq!(talks.len(), 50);
    // Another guest brings places of its own.
    let others = other.listen(6000, 16).unwrap();
    assert_eq!(dial_all(11, 6000, 200).len(), 128 + 16 + 1 - 50);
    drop(others);
    assert!(dial_all(11, 6000, 1).is_empty(), "and takes them along");
    going_on.wait();
    for (talk, word) in talks.iter_mut().zip(0u8..) {
        talk.write_all(&[word]).unwrap();
    }
    for word in 0..50 {
        let mut heard = [0];
        let mut stream = programs.accept(PATIENCE).unwrap();
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, [word]);
    }
    drop(agents);
}

#[test]
fn a_guest_is_reached_or_refuses() {
    let bench = bench();
    let guest = bench.guest(10);
    let refused = connect_to(&guest, 7).recv().unwrap();
    assert!(matches!(
        refused,
        Err(AfVsockError::Refused { cid: 10, port: 7 })
    ));

    let service = bench.network.serve(10, 7);
    let mut stream = connect_to(&guest, 7)
        .recv_timeout(PATIENCE)
        .unwrap()
        .unwrap();
    stream.set_nonblocking(false).unwrap();
    let mut served = UnixStream::from(rustix::net::accept(&service).unwrap());
    // More than all buffers hold, both ways at once.
    let bytes: Vec<u8> = (0..4u32 << 20)
        .map(|at| (at % 251).to_le_bytes()[0])
        .collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut echo = served.try_clone().unwrap();
            std::io::copy(&mut served, &mut echo).unwrap();
            echo.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let (mut writer, bytes) = (stream.try_clone().unwrap(), &bytes);
        scope.spawn(move || {
            writer.write_all(bytes).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut echoed = Vec::new();
        stream.read_to_end(&mut echoed).unwrap();
        assert!(echoed == *bytes);
    });
}

#[test]
fn an_attempt_that_is_cancelled_closes_its_socket_before_the_guest_answers() {
    let sockets = Undecided::default();
    let host = Arc::new(Host::start(sockets.clone()).unwrap());
    let guest = GuestEnd { host, cid: 10 };
    let connect = || {
        let (sender, result) = channel();
        let done = Box::new(move |result| sender.send(result).unwrap());
        let attempt = guest.connect(7, PATIENCE, done).unwrap();
        let far = sockets.0.lock().unwrap().pop().unwrap();
        (attempt, result, far)
    };
    let (given_up, its_result, mut its_far) = connect();
    let (kept, result, mut far) = connect();
    given_up.cancel();
    assert!(matches!(its_result.recv(), Ok(Err(AfVsockError::Closed))));
    let mut held = Vec::new();
    its_far.read_to_end(&mut held).unwrap();
    // Once is enough, and no other attempt has anything to do with it.
    given_up.cancel();
    assert_eq!(result.try_recv().err(), Some(TryRecvError::Empty));
    far.read_exact(&mut held).unwrap();
    let mut stream = result.recv_timeout(PATIENCE).unwrap().unwrap();
    // It is decided.
    kept.cancel();
    far.write_all(b"hello").unwrap();
    stream.set_nonblocking(false).unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
    drop(guest);
    given_up.cancel();
}

#[test]
fn a_guest_that_goes_takes_its_connections_and_no_others() {
    let bench = bench();
    let (going, staying) = (bench.guest(10), bench.guest(11));
    let from_going = going.listen(1024, 1).unwrap();
    let from_staying = staying.listen(1024, 1).unwrap();
    let dialled = [10, 11].map(|cid| bench.network.dial(cid, 1024).unwrap());
    let gone = from_going.accept(PATIENCE).unwrap();
    let mut stays = from_staying.accept(PATIENCE).unwrap();
    drop(going);
    let [ended, mut open] = dialled;
    assert!(is_closed(ended));
    assert!(is_closed(gone));
    open.write_all(b"x").unwrap();
    stays.read_exact(&mut [0]).unwrap();
}

#[test]
fn the_last_to_go_leaves_nothing() {
    let Bench { network, host } = bench();
    let weak = Arc::downgrade(&host);
    let guest = GuestEnd { host, cid: 10 };
    let listener = guest.listen(1024, 1).unwrap();
    let dialled = network.dial(10, 1024).unwrap();
    let stream = listener.accept(PATIENCE).unwrap();
    drop(guest);
    drop(listener);
    // With the last owner goes the thread, which is joined, and all that it watched.
    assert!(weak.upgrade().is_none());
    assert!(is_closed(dialled));
    assert!(is_closed(stream));
    assert_eq!(network.dial(10, 1024).unwrap_err(), Errno::CONNREFUSED);
}

#[test]
fn where_the_kernel_has_no_such_guest_it_says_so() {
    // A context ID that nobody has, and a port that nobody uses.
    let guest = AfVsockGuest::new(4_000_000_001).unwrap();
    assert_eq!(guest.cid(), 4_000_000_001);
    let (sender, result) = channel();
    let started = guest.connect(1, Duration::from_millis(100), move |result| {
        sender.send(result).unwrap();
    });
    let error = match started {
        Ok(_) => result.recv_timeout(PATIENCE).unwrap().unwrap_err(),
        Err(error) => error,
    };
    // Which it is depends on what the host is a guest of itself.
    assert!(
        matches!(
            error,
            AfVsockError::Connect { .. }
                | AfVsockError::TimedOut { .. }
                | AfVsockError::Refused { .. }
                | AfVsockError::Unavailable(_)
        ),
        "{error:?}"
    );
    match guest.listen(4_000_000_002, 1) {
        Ok(listener) => assert!(listener.take().is_none()),
        Err(error) => assert!(matches!(error, AfVsockError::Unavailable(_)), "{error:?}"),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Listen(usize, usize),
    Close(usize, usize),
    Dial(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let place = || (0usize..3, 0usize..4);
    prop_oneof![
        2 => place().prop_map(|(port, guest)| Step::Listen(port, guest)),
        1 => place().prop_map(|(port, guest)| Step::Close(port, guest)),
        4 => place().prop_map(|(port, guest)| Step::Dial(port, guest)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whoever dials is heard exactly where its guest is listened for at that port; else it is
    /// closed, or refused where nobody is listened for.
    #[test]
    fn connections_reach_their_own_listener_or_none(steps in prop::collection::vec(step(), 0..40)) {
        let bench = bench();
        let guests: Vec<_> = (10..14).map(|cid| bench.guest(cid)).collect();
        let ports = [1024, 1025, 5000];
        let mut listeners: [[Option<Listener<Network>>; 4]; 3] = Default::default();
        for step in steps {
            match step {
                Step::Listen(port, guest) => {
                    let result = guests[guest].listen(ports[port], 4);
                    let place = &mut listeners[port][guest];
                    prop_assert_eq!(result.is_ok(), place.is_none());
                    if let Ok(listener) = result {
                        *place = Some(listener);
                    }
                }
                Step::Close(port, guest) => listeners[port][guest] = None,
                Step::Dial(port, guest) => {
                    let dialled = bench.network.dial(guests[guest].cid, ports[port]);
                    if let Some(listener) = &listeners[port][guest] {
                        says_hello(listener, dialled.unwrap(), "hello");
                    } else if listeners[port].iter().any(Option::is_some) {
                        prop_assert!(is_closed(dialled.unwrap()));
                    } else {
                        prop_assert_eq!(dialled.unwrap_err(), Errno::CONNREFUSED);
                    }
                }
            }
        }
    }
}
