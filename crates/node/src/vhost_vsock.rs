//! A guest's context ID on the host's own vsock, and the host's end of its connections.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use microvm_vsock::{AfVsockAttempt, AfVsockError, AfVsockGuest, AfVsockListener, VhostVsock};
use napi::Env;
use napi::bindgen_prelude::PromiseRaw;
use napi::tokio::sync::oneshot;
use napi_derive::napi;

use crate::cleanup::{Stop, stop_at_end_of_env};
use crate::error::BindingError;
use crate::promise;

/// A context ID that was taken, with the host's end of the guest that gets it.
#[derive(Debug)]
#[napi]
pub struct BindingVhostVsock {
    owned: Arc<Owned>,
    cid: u32,
}

/// What the environment's clean-up closes.
#[derive(Debug)]
struct Owned(Mutex<Option<Open>>);

#[derive(Debug)]
struct Open {
    /// Until whoever runs the guest has a copy.
    device: Option<VhostVsock>,
    guest: AfVsockGuest,
    listeners: HashMap<u32, AfVsockListener>,
}

impl Owned {
    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&mut Open) -> Result<T, BindingError>,
    ) -> Result<T, BindingError> {
        work(self.lock().as_mut().ok_or_else(BindingError::ended)?)
    }
}

impl Stop for Owned {
    fn stop(&self) {
        self.lock().take();
    }
}

/// Opens a vhost-vsock device and takes a context ID: the one that is given, or a free one.
#[napi(catch_unwind)]
pub fn take_vhost_vsock(
    env: Env,
    device: String,
    cid: Option<u32>,
) -> napi::Result<BindingVhostVsock> {
    let open = open(&device, cid).map_err(|error| error.into_js(&env))?;
    let cid = open.guest.cid();
    let owned = Arc::new(Owned(Mutex::new(Some(open))));
    stop_at_end_of_env(&env, &owned)?;
    Ok(BindingVhostVsock { owned, cid })
}

fn open(device: &str, cid: Option<u32>) -> Result<Open, BindingError> {
    let device = VhostVsock::open(Path::new(device), cid)?;
    Ok(Open {
        guest: AfVsockGuest::new(device.cid())?,
        device: Some(device),
        listeners: HashMap::new(),
    })
}

#[napi]
impl BindingVhostVsock {
    /// The guest's context ID.
    #[napi(getter, catch_unwind)]
    pub fn cid(&self) -> u32 {
        self.cid
    }

    /// The device's descriptor, for a copy of it; it stays this object's.
    #[napi(catch_unwind)]
    pub fn device(&self, env: Env) -> napi::Result<RawFd> {
        let descriptor = self.owned.with(|open| {
            let device = open.device.as_ref().ok_or_else(BindingError::ended)?;
            Ok(device.as_fd().as_raw_fd())
        });
        descriptor.map_err(|error| error.into_js(&env))
    }

    /// Closes the device here: from now on it is open as long as the copy is.
    #[napi(catch_unwind)]
    pub fn release_device(&self) {
        if let Some(open) = self.owned.lock().as_mut() {
            open.device = None;
        }
    }

    /// Listens for the guest at a port of the host, where at most `waiting` connections wait.
    /// Gives a socket that gets a byte for each arrival and belongs to the caller.
    #[napi(catch_unwind)]
    pub fn listen(&self, env: Env, port: u32, waiting: u32) -> napi::Result<RawFd> {
        let arrivals = self.owned.with(|open| {
            let waiting = usize::try_from(waiting).unwrap_or(usize::MAX);
            let listener = open.guest.listen(port, waiting)?;
            let arrivals = listener.arrivals()?;
            open.listeners.insert(port, listener);
            Ok(arrivals.into_raw_fd())
        });
        arrivals.map_err(|error| error.into_js(&env))
    }

    /// A connection to that port, as a socket that belongs to the caller; `null` when none waits.
    #[napi(catch_unwind)]
    pub fn take_connection(&self, port: u32) -> Option<RawFd> {
        let owned = self.owned.lock();
        let listener = owned.as_ref()?.listeners.get(&port)?;
        Some(listener.take()?.into_raw_fd())
    }

    /// Stops listening there.
    #[napi(catch_unwind)]
    pub fn stop_listening(&self, port: u32) {
        if let Some(open) = self.owned.lock().as_mut() {
            open.listeners.remove(&port);
        }
    }

    /// Begins to connect to a port of the guest: an attempt that can be cancelled.
    #[napi(catch_unwind)]
    pub fn dial(&self, env: Env, port: u32, timeout_ms: u32) -> napi::Result<BindingVhostAttempt> {
        let (sender, answer) = oneshot::channel();
        let done = move |result| {
            // Nobody is told where the environment ended first.
            let _ = sender.send(result);
        };
        let timeout = Duration::from_millis(timeout_ms.into());
        let attempt = self
            .owned
            .with(|open| Ok(open.guest.connect(port, timeout, done)?))
            .map_err(|error| error.into_js(&env))?;
        Ok(BindingVhostAttempt {
            attempt,
            answer: Some(answer),
        })
    }

    /// Ends the guest's connections and listeners, and gives the context ID back unless whoever
    /// runs the guest still has the device. Idempotent.
    #[napi(catch_unwind)]
    pub fn close(&self) {
        self.owned.stop();
    }
}

/// What a guest says to an attempt to connect.
type GuestAnswer = oneshot::Receiver<Result<UnixStream, AfVsockError>>;

/// An attempt to connect to a port of the guest.
#[derive(Debug)]
#[napi]
pub struct BindingVhostAttempt {
    attempt: AfVsockAttempt,
    answer: Option<GuestAnswer>,
}

#[napi]
impl BindingVhostAttempt {
    /// Resolves with a socket that belongs to the caller. To be asked once.
    #[napi(catch_unwind)]
    pub fn socket<'env>(&mut self, env: &'env Env) -> napi::Result<PromiseRaw<'env, RawFd>> {
        let answer = self.answer.take();
        let connected = async move {
            let answer = answer.ok_or_else(BindingError::ended)?;
            let stream = answer.await.unwrap_or(Err(AfVsockError::Closed))?;
            Ok(OwnedFd::from(stream))
        };
        promise::settle_then(env, connected, |_, socket| Ok(socket.into_raw_fd()))
    }

    /// Gives it up where it is not decided: its socket is closed then, and the promise rejects.
    #[napi(catch_unwind)]
    pub fn cancel(&self) {
        self.attempt.cancel();
    }
}
