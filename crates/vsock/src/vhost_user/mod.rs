//! The device as a vhost-user back end, for VMMs in other processes (QEMU among them).
//!
//! Three threads: one follows the front end's messages, one (the library's) works on the queues
//! and the device's own events, and one waits for the others and cleans up. The host serves one
//! front end and ends with it.

mod backend;
mod end;
mod queue_thread;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use microvm_virtio::QueueMetrics;
use rustix::event::{PollFd, PollFlags, poll};
use vhost::vhost_user::{Error as ProtocolError, Listener};
use vhost_user_backend::Error as DaemonError;

use self::backend::Shared;
pub use self::end::HostEnd;
use self::queue_thread::QueueThread;
use crate::unix_socket::private_listener;
use crate::{VsockDevice, VsockError};

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

    /// What the queues (receive, transmit, event) did so far. Kicks that came before the device
    /// looked at a queue count as one.
    #[must_use]
    pub fn queues(&self) -> Vec<QueueMetrics> {
        self.shared.meter.queues()
    }

    /// Processor time of the thread that works on the queues.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.shared.meter.time()
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

/// Sets an event.
fn notify(event: &OwnedFd) {
    // A full counter is set already.
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

/// Locks; a thread that panicked with the lock leaves data that is as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
