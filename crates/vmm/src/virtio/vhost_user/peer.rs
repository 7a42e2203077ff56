//! The connection to a back end, and a thread that watches over it.
//!
//! A back end may die, hang, or answer nonsense at any time, and requests are made on vCPU
//! threads. The protocol code of crate `vhost` blocks on its socket and, by its own loops,
//! outlasts a socket timeout. So the thread has the last word: when the back end hangs up, or a
//! deadline passes, it shuts the socket down, at which every blocked call returns.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use microvm_virtio::ThreadClock;
use vhost::vhost_user::{Error as ProtocolError, Frontend};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;

use crate::virtio::error::{PeerLoss, VirtioError};

const STOP: u64 = 0;
const HANG_UP: u64 = 1;
const DEADLINE: u64 = 2;
const RING_ERROR: u64 = 3;

/// What to do once when the back end is lost; runs on the watching thread.
pub(super) type OnLoss = Box<dyn Fn(&PeerLoss) + Send>;

/// A connected back end.
pub(super) struct Peer {
    frontend: Mutex<Frontend>,
    watch: Arc<Watch>,
    thread: Option<JoinHandle<()>>,
    timeout: Duration,
}

/// What the watching thread shares with those who make requests.
pub(super) struct Watch {
    socket: UnixStream,
    timer: Mutex<Timer>,
    stop: EventFd,
    ring_error: EventFd,
    loss: OnceLock<PeerLoss>,
    stopping: AtomicBool,
}

struct Timer {
    descriptor: TimerFd,
    deadline: Option<Instant>,
    /// The request under way.
    operation: &'static str,
}

/// A series of requests under one deadline.
pub(super) struct Exchange<'a> {
    frontend: MutexGuard<'a, Frontend>,
    watch: &'a Watch,
}

impl Peer {
    /// Takes over a connected socket. `name` and `clock` are the watching thread's, `timeout` bounds each
    /// [`Exchange`].
    pub(super) fn new(
        socket: UnixStream,
        queues: u16,
        name: String,
        timeout: Duration,
        on_loss: OnLoss,
        clock: Arc<ThreadClock>,
    ) -> Result<Self, VirtioError> {
        let descriptor = |what| move |source| VirtioError::Descriptor { what, source };
        let event = |what| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(descriptor(what));
        let timer = TimerFd::new().map_err(|errno| VirtioError::Descriptor {
            what: "the deadline timer",
            source: std::io::Error::from_raw_os_error(errno.errno()),
        })?;
        let watch = Arc::new(Watch {
            socket: socket
                .try_clone()
                .map_err(descriptor("a copy of the back end's socket"))?,
            timer: Mutex::new(Timer {
                descriptor: timer,
                deadline: None,
                operation: "connect",
            }),
            stop: event("the stop descriptor")?,
            ring_error: event("the ring error descriptor")?,
            loss: OnceLock::new(),
            stopping: AtomicBool::new(false),
        });
        let epoll = watch
            .epoll()
            .map_err(descriptor("the watch of a back end"))?;
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn({
                let watch = Arc::clone(&watch);
                move || {
                    let _counted = clock.count();
                    watch.run(&epoll, &on_loss);
                }
            })
            .map_err(|source| VirtioError::Thread { name, source })?;
        Ok(Self {
            frontend: Mutex::new(Frontend::from_stream(socket, queues.into())),
            watch,
            thread: Some(thread),
            timeout,
        })
    }

    /// Begins a series of requests, all of which together take no longer than the timeout.
    pub(super) fn begin(&self) -> Result<Exchange<'_>, VirtioError> {
        let frontend = self.frontend.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loss) = self.watch.loss.get() {
            return Err(VirtioError::PeerLost(loss.clone()));
        }
        self.watch.arm(self.timeout)?;
        Ok(Exchange {
            frontend,
            watch: &self.watch,
        })
    }

    /// The descriptor by which the back end reports errors of rings.
    pub(super) fn ring_error(&self) -> &EventFd {
        &self.watch.ring_error
    }

    pub(super) fn is_lost(&self) -> bool {
        self.watch.loss.get().is_some()
    }

    /// Makes blocked requests of other threads return, and everything after fail.
    pub(super) fn canceller(&self) -> impl Fn() + Send + Sync + 'static {
        let watch = Arc::clone(&self.watch);
        move || watch.cancel()
    }

    /// Counts the back end as lost for what it answered.
    pub(super) fn distrust(&self, operation: &'static str, reason: &str) -> VirtioError {
        self.watch.distrust(operation, reason.to_owned())
    }

    /// Hangs up and ends the thread. Idempotent.
    pub(super) fn stop(&mut self) {
        self.watch.cancel();
        if let Some(thread) = self.thread.take() {
            // It does nothing that panics, short of the owner's `on_loss`.
            let _ = thread.join();
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Exchange<'_> {
    /// Makes one request. `operation` completes "the back end declined to …".
    pub(super) fn call<T>(
        &mut self,
        operation: &'static str,
        request: impl FnOnce(&mut Frontend) -> vhost::Result<T>,
    ) -> Result<T, VirtioError> {
        self.watch.timer().operation = operation;
        request(&mut self.frontend).map_err(|error| match error {
            // A clean answer: the connection goes on.
            vhost::Error::VhostUserProtocol(ProtocolError::BackendInternalError) => {
                VirtioError::Declined { operation }
            }
            vhost::Error::VhostUserProtocol(
                ProtocolError::Disconnected
                | ProtocolError::PartialMessage
                | ProtocolError::SocketBroken(_),
            ) => self.watch.lost(PeerLoss::Closed),
            error => self.watch.distrust(operation, error.to_string()),
        })
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.watch.disarm();
    }
}

impl Watch {
    fn timer(&self) -> MutexGuard<'_, Timer> {
        self.timer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arm(&self, timeout: Duration) -> Result<(), VirtioError> {
        let mut timer = self.timer();
        timer.deadline = Instant::now().checked_add(timeout);
        timer
            .descriptor
            .reset(timeout, None)
            .map_err(|errno| VirtioError::Descriptor {
                what: "a deadline",
                source: std::io::Error::from_raw_os_error(errno.errno()),
            })
    }

    fn disarm(&self) {
        let mut timer = self.timer();
        timer.deadline = None;
        // Setting the time of a timer that exists cannot fail.
        let _ = timer.descriptor.clear();
    }

    /// The request that still runs though its deadline has passed.
    fn overdue(&self) -> Option<PeerLoss> {
        let timer = self.timer();
        let deadline = timer.deadline?;
        let operation = timer.operation;
        (Instant::now() >= deadline).then_some(PeerLoss::TimedOut { operation })
    }

    /// Counts the back end as lost. The first reason stays, and is what the error names.
    fn lost(&self, loss: PeerLoss) -> VirtioError {
        let loss = self.loss.get_or_init(|| loss).clone();
        // It fails only where the socket is shut down already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        VirtioError::PeerLost(loss)
    }

    fn distrust(&self, operation: &'static str, reason: String) -> VirtioError {
        self.lost(PeerLoss::Protocol { operation, reason })
    }

    fn cancel(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.lost(PeerLoss::Closed);
        let _ = self.stop.write(1);
    }

    fn epoll(&self) -> std::io::Result<Epoll> {
        let epoll = Epoll::new()?;
        let timer = self.timer().descriptor.as_raw_fd();
        let hang_up = EventSet::READ_HANG_UP | EventSet::HANG_UP;
        for (descriptor, events, token) in [
            (self.stop.as_raw_fd(), EventSet::IN, STOP),
            (self.socket.as_raw_fd(), hang_up, HANG_UP),
            (timer, EventSet::IN, DEADLINE),
            (self.ring_error.as_raw_fd(), EventSet::IN, RING_ERROR),
        ] {
            epoll.ctl(
                ControlOperation::Add,
                descriptor,
                EpollEvent::new(events, token),
            )?;
        }
        Ok(epoll)
    }

    /// The watching thread: it ends with the connection.
    fn run(&self, epoll: &Epoll, on_loss: &OnLoss) {
        let loss = loop {
            let mut event = [EpollEvent::default()];
            match epoll.wait(-1, &mut event) {
                Ok(0) => continue,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    break PeerLoss::Unwatched {
                        reason: error.to_string(),
                    };
                }
                Ok(_) => {}
            }
            match event.map(|event| event.data()) {
                [STOP | HANG_UP] => break PeerLoss::Closed,
                [RING_ERROR] => break PeerLoss::Ring,
                // A timer that was disarmed meanwhile is no longer readable.
                [DEADLINE] => {
                    if let Some(loss) = self.overdue() {
                        break loss;
                    }
                }
                _ => {}
            }
        };
        // Where somebody found out before, that reason counts.
        self.lost(loss);
        if let Some(loss) = self.loss.get()
            && !self.stopping.load(Ordering::SeqCst)
        {
            on_loss(loss);
        }
    }
}
