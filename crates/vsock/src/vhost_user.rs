//! The device as a vhost-user back end, for VMMs in other processes (QEMU among them).
//!
//! Three threads: one follows the front end's messages, one (the library's) works on the queues
//! and the device's own events, and one waits for the others and cleans up. The host serves one
//! front end and ends with it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use microvm_virtio::{Device, DeviceError, Dispatcher, Event, QueueSet};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use vhost::vhost_user::{
    Error as ProtocolError, Listener, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost_user_backend::{
    Error as DaemonError, ShutdownHandle, VhostUserBackend, VhostUserDaemon, VringMutex,
    VringState, VringT,
};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

use crate::unix_socket::private_listener;
use crate::{VsockDevice, VsockError};

const QUEUES: usize = 3;
/// Event of the device's own descriptor; the library keeps `0..=QUEUES` to itself.
const DEVICE_EVENT: u16 = 4;
/// Event that ends the queue thread.
const EXIT_EVENT: u16 = 5;
/// Event that stands for kicks of the queues whose work was left over.
const AGAIN_EVENT: u16 = 6;

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// How a host came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostEnd {
    /// [`VhostUserHost::stop`] was called.
    Stopped,
    /// The front end closed its connection.
    FrontEndGone,
    /// The front end broke the protocol, the guest's driver that of its queues, or a system call
    /// failed for good. The text says which.
    Failed(String),
}

/// A [`VsockDevice`] that serves one vhost-user front end. Dropping it stops it.
#[derive(Debug)]
pub struct VhostUserHost {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl VhostUserHost {
    /// Listens for a front end at `socket` (mode 0600, removed at the end) and serves the first
    /// that connects.
    ///
    /// # Errors
    ///
    /// Where the socket, a descriptor or a thread cannot be made.
    pub fn serve(device: VsockDevice, socket: &Path) -> Result<Self, VsockError> {
        let listen = |source| VsockError::Listen {
            path: socket.to_owned(),
            source,
        };
        let listener = private_listener(socket).map_err(listen)?;
        let file = SocketFile(Some(socket.to_owned()));
        Self::start(device, UnixListener::from(listener), file)
    }

    /// Serves the first front end that connects to `listener`, whose file is the caller's to
    /// remove.
    ///
    /// # Errors
    ///
    /// Where a descriptor or a thread cannot be made.
    pub fn serve_listener(device: VsockDevice, listener: UnixListener) -> Result<Self, VsockError> {
        Self::start(device, listener, SocketFile(None))
    }

    fn start(
        device: VsockDevice,
        listener: UnixListener,
        file: SocketFile,
    ) -> Result<Self, VsockError> {
        let create = |what| move |source| VsockError::Create { what, source };
        listener
            .set_nonblocking(false)
            .map_err(create("blocking listener"))?;
        let shared = Arc::new(Shared::new(device).map_err(create("event descriptor"))?);
        let daemon = QueueThread::start(&shared)?;
        let ending = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("vsock-host".to_owned())
            .spawn(move || {
                let end = follow_front_end(&ending, daemon, listener, file);
                ending.end.set(end);
            })
            .map_err(create("thread"))?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Blocks until the host has ended, and tells why.
    pub fn wait(&self) -> HostEnd {
        self.shared.end.wait()
    }

    /// Ends the host and waits until its threads, sockets and connections are gone. May be called
    /// again, from any thread.
    pub fn stop(&self) -> HostEnd {
        self.shared.ask_to_end(HostEnd::Stopped);
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            // Its panics were caught, and an end is set either way.
            let _ = thread.join();
        }
        self.wait()
    }
}

impl Drop for VhostUserHost {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Removes the listening socket's file.
#[derive(Debug)]
struct SocketFile(Option<PathBuf>);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // It may be gone already, with the folder that it was in.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Waits for the front end and for its end.
fn follow_front_end(
    shared: &Arc<Shared>,
    mut queues: QueueThread,
    listener: UnixListener,
    file: SocketFile,
) -> HostEnd {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        wait_for_client(&listener, &shared.stop)
            .map_err(|error| format!("Failed to wait for the front end: {error}"))?;
        if lock(&shared.wanted_end).is_some() {
            return Ok(());
        }
        queues
            .daemon
            .start(&mut Listener::from(listener))
            .map_err(|error| error.to_string())?;
        // Nobody else is served: later clients are refused instead of left waiting.
        drop(file);
        shared.follow(queues.daemon.shutdown_handle());
        match queues.daemon.wait() {
            Ok(())
            | Err(DaemonError::HandleRequest(
                ProtocolError::Disconnected | ProtocolError::PartialMessage,
            )) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }));
    drop(queues);
    // The device goes with its connections and sockets, before anybody hears of the end.
    shared.dispose();
    let wanted = lock(&shared.wanted_end).take();
    match (wanted, outcome) {
        (Some(end), _) => end,
        (None, Ok(Ok(()))) => HostEnd::FrontEndGone,
        (None, Ok(Err(reason))) => HostEnd::Failed(reason),
        (None, Err(_)) => HostEnd::Failed("The vhost-user library panicked".to_owned()),
    }
}

/// Blocks until a client can be accepted, or `stop` is set.
fn wait_for_client(listener: &UnixListener, stop: &OwnedFd) -> io::Result<()> {
    let mut sources = [
        PollFd::new(listener, PollFlags::IN),
        PollFd::new(stop, PollFlags::IN),
    ];
    loop {
        match poll(&mut sources, None) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The library's daemon, whose queue thread has to be told to end before it is dropped.
struct QueueThread {
    daemon: VhostUserDaemon<Arc<Shared>>,
    shared: Arc<Shared>,
}

impl QueueThread {
    fn start(shared: &Arc<Shared>) -> Result<Self, VsockError> {
        let refused = |reason: String| VsockError::VhostUser { reason };
        let daemon = VhostUserDaemon::new(
            "vsock-front-end".to_owned(),
            Arc::clone(shared),
            shared.memory.clone(),
        )
        .map_err(|error| refused(error.to_string()))?;
        let thread = Self {
            daemon,
            shared: Arc::clone(shared),
        };
        let handlers = thread.daemon.get_epoll_handlers();
        let handler = handlers
            .first()
            .ok_or_else(|| refused("It has no queue thread".to_owned()))?;
        let register = |fd, event: u16| {
            handler
                .register_listener(fd, EventSet::IN, event.into())
                .map_err(|error| refused(error.to_string()))
        };
        register(shared.exit.as_raw_fd(), EXIT_EVENT)?;
        register(shared.again.as_raw_fd(), AGAIN_EVENT)?;
        if let Some(hosted) = lock(&shared.hosted).as_ref() {
            let source = Device::<GuestMemoryMmap>::event_source(&hosted.device);
            if let Some(source) = source {
                register(source.as_raw_fd(), DEVICE_EVENT)?;
            }
        }
        Ok(thread)
    }
}

impl Drop for QueueThread {
    fn drop(&mut self) {
        notify(&self.shared.exit);
    }
}

/// The device and what the host remembers of its queues.
#[derive(Debug)]
struct Hosted {
    device: VsockDevice,
    dispatcher: Dispatcher,
    /// Where each available ring was left. A front end that starts elsewhere serves a driver
    /// that began anew: vhost-user has no other word for a reset that QEMU would use.
    left_at: [Option<u16>; QUEUES],
}

/// What all threads of a host share.
#[derive(Debug)]
struct Shared {
    hosted: Mutex<Option<Hosted>>,
    memory: Memory,
    stop: OwnedFd,
    exit: OwnedFd,
    again: OwnedFd,
    wanted_end: Mutex<Option<HostEnd>>,
    front_end: Mutex<FrontEnd>,
    end: End,
}

/// The connection to the front end, to be cut from other threads.
#[derive(Default)]
struct FrontEnd(Option<ShutdownHandle>);

impl std::fmt::Debug for FrontEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FrontEnd").field(&self.0.is_some()).finish()
    }
}

impl Shared {
    fn new(device: VsockDevice) -> io::Result<Self> {
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let hosted = Hosted {
            device,
            dispatcher: Dispatcher::new(QUEUES),
            left_at: [None; QUEUES],
        };
        Ok(Self {
            hosted: Mutex::new(Some(hosted)),
            memory: Memory::new(GuestMemoryMmap::new()),
            stop: event()?,
            exit: event()?,
            again: event()?,
            wanted_end: Mutex::new(None),
            front_end: Mutex::new(FrontEnd::default()),
            end: End::default(),
        })
    }

    /// Has the host end. The first reason is the one that is told.
    fn ask_to_end(&self, end: HostEnd) {
        // Held until the connection is cut: `follow` either sees the wish or is seen here.
        let front_end = lock(&self.front_end);
        lock(&self.wanted_end).get_or_insert(end);
        notify(&self.stop);
        if let Some(handle) = &front_end.0 {
            handle.shutdown();
        }
    }

    /// The front end is connected.
    fn follow(&self, handle: Option<ShutdownHandle>) {
        let mut front_end = lock(&self.front_end);
        if lock(&self.wanted_end).is_some()
            && let Some(handle) = &handle
        {
            handle.shutdown();
        }
        front_end.0 = handle;
    }

    /// Drops the device and the guest's memory.
    fn dispose(&self) {
        lock(&self.front_end).0 = None;
        lock(&self.hosted).take();
        if let Ok(memory) = self.memory.lock() {
            memory.replace(GuestMemoryMmap::new());
        }
    }

    /// Lets the device work on an event.
    fn work(
        &self,
        event: u16,
        vrings: [MutexGuard<'_, VringState<Memory>>; QUEUES],
    ) -> Result<(), DeviceError> {
        let mut hosted = lock(&self.hosted);
        let Some(hosted) = hosted.as_mut() else {
            return Ok(());
        };
        let mut vrings = Vrings(vrings);
        let restarted = (0..QUEUES).any(|index| {
            let now = vrings.queue(index).map(|queue| queue.next_avail());
            let then = hosted.left_at.get(index).copied().flatten();
            matches!((now, then), (Some(now), Some(then)) if now != then)
        });
        if restarted {
            Device::<GuestMemoryMmap>::reset(&mut hosted.device);
            hosted.dispatcher = Dispatcher::new(QUEUES);
            hosted.left_at = [None; QUEUES];
        }
        let kicks: Vec<Event> = match event {
            DEVICE_EVENT => vec![Event::Host],
            AGAIN_EVENT => {
                let _ = rustix::io::read(&self.again, &mut [0; 8]);
                hosted.dispatcher.take_pending().map(Event::Kick).collect()
            }
            queue => vec![Event::Kick(usize::from(queue))],
        };
        let memory = self.memory.memory();
        let mut result = Ok(());
        for kick in kicks {
            let Hosted {
                device, dispatcher, ..
            } = hosted;
            match dispatcher.handle(kick, device, &*memory, &mut vrings) {
                Ok(false) => {}
                Ok(true) => notify(&self.again),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        for (index, left_at) in hosted.left_at.iter_mut().enumerate() {
            if let Some(queue) = vrings.queue(index) {
                *left_at = Some(queue.next_avail());
            }
        }
        result
    }
}

impl VhostUserBackend for Shared {
    type Bitmap = ();
    type Vring = VringMutex<Memory>;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        let hosted = lock(&self.hosted);
        let sizes = hosted
            .as_ref()
            .map(|hosted| Device::<GuestMemoryMmap>::queue_sizes(&hosted.device));
        let largest = sizes.and_then(|sizes| sizes.iter().max().copied());
        usize::from(largest.unwrap_or(1))
    }

    fn features(&self) -> u64 {
        let hosted = lock(&self.hosted);
        let device = hosted.as_ref().map_or(0, |hosted| {
            Device::<GuestMemoryMmap>::features(&hosted.device)
        });
        device | 1 << VIRTIO_F_VERSION_1 | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn acked_features(&self, features: u64) {
        if let Some(hosted) = lock(&self.hosted).as_mut() {
            Device::<GuestMemoryMmap>::set_acked_features(&mut hosted.device, features);
        }
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::MQ
    }

    // The library tells its queues itself.
    fn set_event_idx(&self, _enabled: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let mut config = vec![0; size as usize];
        if let Some(hosted) = lock(&self.hosted).as_ref() {
            Device::<GuestMemoryMmap>::read_config(&hosted.device, offset, &mut config);
        }
        config
    }

    // The memory is the one that was handed to the library.
    fn update_memory(&self, _memory: Memory) -> io::Result<()> {
        Ok(())
    }

    fn stop_vring(&self, _index: u32) -> io::Result<()> {
        // Whoever holds the lock may be at work on the queue.
        drop(lock(&self.hosted));
        Ok(())
    }

    fn handle_event(
        &self,
        event: u16,
        _flags: EventSet,
        vrings: &[VringMutex<Memory>],
        _thread: usize,
    ) -> io::Result<()> {
        if event == EXIT_EVENT {
            return Err(io::Error::other("The host ends"));
        }
        let [rx, tx, events] = vrings else {
            return Ok(());
        };
        let vrings = [rx.get_mut(), tx.get_mut(), events.get_mut()];
        let reason = match catch_unwind(AssertUnwindSafe(|| self.work(event, vrings))) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => describe(&error),
            Err(_) => "The device panicked".to_owned(),
        };
        self.ask_to_end(HostEnd::Failed(reason.clone()));
        Err(io::Error::other(reason))
    }
}

/// The vrings of a host, while the device works on them.
struct Vrings<'a>([MutexGuard<'a, VringState<Memory>>; QUEUES]);

impl QueueSet for Vrings<'_> {
    fn count(&self) -> usize {
        QUEUES
    }

    fn queue(&mut self, index: usize) -> Option<&mut Queue> {
        let vring = self.0.get_mut(index)?;
        let usable = vring.is_enabled() && vring.get_queue().ready();
        usable.then(|| vring.get_queue_mut())
    }

    fn signal(&self, index: usize) {
        if let Some(vring) = self.0.get(index) {
            // The front end's descriptor: where it is full, the interrupt is pending already.
            let _ = vring.signal_used_queue();
        }
    }
}

/// Where the reason of a host's end is kept.
#[derive(Debug, Default)]
struct End {
    value: Mutex<Option<HostEnd>>,
    changed: Condvar,
}

impl End {
    fn set(&self, end: HostEnd) {
        lock(&self.value).get_or_insert(end);
        self.changed.notify_all();
    }

    fn wait(&self) -> HostEnd {
        let mut value = lock(&self.value);
        loop {
            if let Some(end) = value.as_ref() {
                return end.clone();
            }
            value = self
                .changed
                .wait(value)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// An error with all its causes, in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Sets an event.
fn notify(event: &OwnedFd) {
    // A full counter is set already.
    let _ = rustix::io::write(event.as_fd(), &1u64.to_ne_bytes());
}

/// Locks; a thread that panicked with the lock leaves data that is as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
