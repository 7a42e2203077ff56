//! The thread that accepts, connects and bridges for all guests of a process.
//!
//! It sleeps on one epoll descriptor; its sources never block. Others change what there is under a
//! lock that is held for no longer than one round of ready sources takes.

use std::collections::{HashMap, HashSet};
use std::mem::take;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;
use rustix::net::{AddressFamily, SocketFlags, SocketType, listen, socketpair};

use super::bridge::{BUFFER, Bridge, INTEREST, Turn};
use super::error::AfVsockError;
use super::inbox::Inbox;
use super::registry::Registry;
use super::sockets::Sockets;

/// How many events one look takes.
const EVENTS: usize = 64;
/// How many connections of a port are accepted before it is the others' turn.
const ACCEPTS: usize = 64;
/// The descriptor that ends the thread.
const STOP: u64 = 0;

/// What becomes of a connection that was asked for. Called once, from any thread; it must not
/// block.
pub(super) type Done = Box<dyn FnOnce(Result<UnixStream, AfVsockError>) + Send>;

/// The process's end of all its guests' connections. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Host<S: Sockets> {
    shared: Arc<Shared<S>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared<S> {
    sockets: S,
    epoll: OwnedFd,
    stop: OwnedFd,
    state: Mutex<State>,
}

impl<S> std::fmt::Debug for Shared<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    registry: Registry<Arc<Inbox>>,
    /// The source of each port that is listened at.
    listeners: HashMap<u32, u64>,
    sources: HashMap<u64, Source>,
    last_source: u64,
    /// Bridges whose turn it is.
    ready: HashSet<u64>,
    /// Ports where connections may wait to be accepted.
    called: HashSet<u32>,
    /// Ports where a connection waits for which there was no descriptor.
    short: HashSet<u32>,
    stopping: bool,
}

enum Source {
    Listener {
        port: u32,
        socket: OwnedFd,
    },
    /// A connection to a guest that is not decided.
    Attempt {
        cid: u32,
        port: u32,
        timeout: Duration,
        socket: OwnedFd,
        done: Done,
    },
    Bridge {
        cid: u32,
        bridge: Bridge,
    },
}

impl<S: Sockets> Host<S> {
    pub(super) fn start(sockets: S) -> Result<Self, AfVsockError> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)
            .map_err(AfVsockError::create("an epoll descriptor"))?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(AfVsockError::create("an event descriptor"))?;
        epoll::add(&epoll, &stop, EventData::new_u64(STOP), EventFlags::IN)
            .map_err(AfVsockError::create("the watch of an event descriptor"))?;
        let shared = Arc::new(Shared {
            sockets,
            epoll,
            stop,
            state: Mutex::default(),
        });
        let thread = std::thread::Builder::new()
            .name("af-vsock".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run()
            })
            .map_err(|source| AfVsockError::Create {
                what: "the thread of the host's vsock",
                source,
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Listens for a guest's connections to a port of the host. The first guest of a port makes
    /// its socket.
    pub(super) fn listen(
        &self,
        port: u32,
        cid: u32,
        inbox: Arc<Inbox>,
    ) -> Result<(), AfVsockError> {
        let mut state = self.shared.state();
        if !state.registry.add(port, cid, inbox) {
            return Err(AfVsockError::PortTaken(port));
        }
        self.shared
            .open_or_widen(&mut state, port)
            .map_err(|errno| {
                state.registry.remove(port, cid);
                AfVsockError::of_listening(port, errno)
            })
    }

    /// Ends that; the last guest of a port closes its socket.
    pub(super) fn stop_listening(&self, port: u32, cid: u32) {
        let mut state = self.shared.state();
        state.registry.remove(port, cid);
        let left = state.backlog(port);
        if left == 0 {
            state.called.remove(&port);
            state.short.remove(&port);
            if let Some(source) = state.listeners.remove(&port) {
                state.sources.remove(&source);
            }
        } else if let Some(Source::Listener { socket, .. }) = state.listener(port) {
            // It cannot fail on a socket that listens, and a longer queue would do no harm.
            let _ = listen(socket, left);
        }
    }

    /// Connects to a port of a guest; `done` hears of it, within `timeout`. The number is for
    /// [`Self::cancel`], and is not used again.
    pub(super) fn connect(
        &self,
        cid: u32,
        port: u32,
        timeout: Duration,
        done: Done,
    ) -> Result<u64, AfVsockError> {
        let failed = |errno| AfVsockError::of_connecting(cid, port, timeout.as_millis(), errno);
        let socket = self
            .shared
            .sockets
            .connect(cid, port, timeout)
            .map_err(failed)?;
        let mut state = self.shared.state();
        let id = state.next_source();
        let events = EventFlags::OUT | EventFlags::ONESHOT;
        epoll::add(
            &self.shared.epoll,
            &socket,
            EventData::new_u64(key(id, 0)),
            events,
        )
        .map_err(failed)?;
        let attempt = Source::Attempt {
            cid,
            port,
            timeout,
            socket,
            done,
        };
        state.sources.insert(id, attempt);
        Ok(id)
    }

    /// Gives an attempt to connect up: its socket is closed when this returns. Does nothing where
    /// it is decided.
    pub(super) fn cancel(&self, id: u64) {
        let mut state = self.shared.state();
        if !matches!(state.sources.get(&id), Some(Source::Attempt { .. })) {
            return;
        }
        let attempt = state.sources.remove(&id);
        drop(state);
        if let Some(Source::Attempt { socket, done, .. }) = attempt {
            drop(socket);
            done(Err(AfVsockError::Closed));
        }
    }

    /// Ends a guest's connections, those too that are being made.
    pub(super) fn forget(&self, cid: u32) {
        let mut state = self.shared.state();
        let gone = state.sources.extract_if(|_, source| source.is_of(cid));
        let gone: Vec<Source> = gone.map(|(_, source)| source).collect();
        drop(state);
        for source in gone {
            if let Source::Attempt { done, .. } = source {
                done(Err(AfVsockError::Closed));
            }
        }
    }
}

impl<S: Sockets> Drop for Host<S> {
    fn drop(&mut self) {
        self.shared.state().stopping = true;
        // It fails only where the counter is full, and then it is set.
        let _ = rustix::io::write(&self.shared.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // Its panics would show as connections that ended.
            let _ = thread.join();
        }
    }
}

/// What epoll tells of a source's descriptor.
fn key(source: u64, side: u64) -> u64 {
    source << 1 | side
}

impl State {
    /// The first is 1, so no key is [`STOP`].
    fn next_source(&mut self) -> u64 {
        self.last_source += 1;
        self.last_source
    }

    /// The places in the kernel's queue of a port: what all guests' inboxes hold, so that no guest's
    /// burst takes places that are meant for others. 0 where nobody is listened for.
    fn backlog(&self, port: u32) -> i32 {
        let places = self.registry.at(port).map(|inbox| inbox.limit());
        i32::try_from(places.fold(0, usize::saturating_add)).unwrap_or(i32::MAX)
    }

    fn listener(&self, port: u32) -> Option<&Source> {
        self.sources.get(self.listeners.get(&port)?)
    }
}

impl Source {
    fn is_of(&self, guest: u32) -> bool {
        match self {
            Self::Listener { .. } => false,
            Self::Attempt { cid, .. } | Self::Bridge { cid, .. } => *cid == guest,
        }
    }
}

impl<S: Sockets> Shared<S> {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in between leaves sources that are as good as before.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_or_widen(&self, state: &mut State, port: u32) -> Result<(), Errno> {
        let backlog = state.backlog(port);
        if let Some(Source::Listener { socket, .. }) = state.listener(port) {
            return listen(socket, backlog);
        }
        let socket = self.sockets.listen(port, backlog)?;
        let id = state.next_source();
        // Told once for each change: a connection that cannot be taken would be told for ever.
        let events = EventFlags::IN | EventFlags::ET;
        epoll::add(&self.epoll, &socket, EventData::new_u64(key(id, 0)), events)?;
        state.listeners.insert(port, id);
        state.sources.insert(id, Source::Listener { port, socket });
        Ok(())
    }

    fn run(&self) {
        let mut events = Vec::with_capacity(EVENTS);
        let mut buffer = vec![0; BUFFER];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut has_more = false;
        loop {
            let timeout = has_more.then_some(&now);
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout) {
                Ok(_) | Err(Errno::INTR) => {}
                // It cannot happen with descriptors of our own.
                Err(_) => return,
            }
            let mut state = self.state();
            if state.stopping {
                return;
            }
            let mut decided = Vec::new();
            for Event { data, flags } in events.drain(..) {
                self.note(&mut state, data.u64(), flags, &mut decided);
            }
            self.take_turns(&mut state, &mut buffer);
            has_more = !(state.ready.is_empty() && state.called.is_empty());
            drop(state);
            for (done, result) in decided {
                done(result);
            }
        }
    }

    fn note(
        &self,
        state: &mut State,
        data: u64,
        flags: EventFlags,
        decided: &mut Vec<(Done, Result<UnixStream, AfVsockError>)>,
    ) {
        let (id, side) = (data >> 1, usize::from(data & 1 == 1));
        match state.sources.get_mut(&id) {
            Some(Source::Bridge { bridge, .. }) => {
                bridge.note(side, flags);
                state.ready.insert(id);
            }
            Some(Source::Listener { port, .. }) => {
                state.called.insert(*port);
            }
            Some(Source::Attempt { .. }) => {
                if let Some(Source::Attempt {
                    cid,
                    port,
                    timeout,
                    socket,
                    done,
                }) = state.sources.remove(&id)
                {
                    let result = self.finish(state, cid, socket).map_err(|errno| {
                        AfVsockError::of_connecting(cid, port, timeout.as_millis(), errno)
                    });
                    decided.push((done, result));
                }
            }
            // It was closed after it was told of.
            None => {}
        }
    }

    /// A connection to a guest is decided.
    fn finish(&self, state: &mut State, cid: u32, socket: OwnedFd) -> Result<UnixStream, Errno> {
        socket_error(&socket)??;
        epoll::delete(&self.epoll, &socket)?;
        self.bridge(state, cid, socket)
    }

    /// Takes waiting connections of a port: guests' to their inboxes, strangers' not at all.
    fn accept_some(&self, state: &mut State, port: u32) {
        for _ in 0..ACCEPTS {
            let Some(Source::Listener { socket, .. }) = state.listener(port) else {
                return;
            };
            let (connection, cid) = match self.sockets.accept(socket.as_fd()) {
                Ok(accepted) => accepted,
                // The guest gave it up already.
                Err(Errno::CONNABORTED) => continue,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    state.short.insert(port);
                    return;
                }
                Err(_) => return,
            };
            let Some(inbox) = state.registry.get(port, cid).map(Arc::clone) else {
                // Closed here and now.
                drop(connection);
                continue;
            };
            // Without a descriptor for it the guest sees it closed, and dials again.
            if let Ok(stream) = self.bridge(state, cid, connection) {
                inbox.put(stream);
            }
        }
        state.called.insert(port);
    }

    /// Joins a guest's connection to one end of a socket pair, and gives the other.
    fn bridge(
        &self,
        state: &mut State,
        cid: u32,
        connection: OwnedFd,
    ) -> Result<UnixStream, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (near, far) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let bridge = Bridge::new(connection, far);
        let id = state.next_source();
        for (side, socket) in (0..).zip(bridge.sockets()) {
            let data = EventData::new_u64(key(id, side));
            epoll::add(&self.epoll, socket, data, INTEREST)?;
        }
        state.sources.insert(id, Source::Bridge { cid, bridge });
        Ok(UnixStream::from(near))
    }

    fn take_turns(&self, state: &mut State, buffer: &mut [u8]) {
        for port in take(&mut state.called) {
            self.accept_some(state, port);
        }
        for id in take(&mut state.ready) {
            let Some(Source::Bridge { bridge, .. }) = state.sources.get_mut(&id) else {
                continue;
            };
            match bridge.turn(buffer) {
                Turn::Idle => {}
                Turn::More => {
                    state.ready.insert(id);
                }
                Turn::Over => {
                    state.sources.remove(&id);
                    // Descriptors are free again.
                    let short = take(&mut state.short);
                    state.called.extend(short);
                }
            }
        }
    }
}
