//! Descriptors whose readiness the runtime tells.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// A non-blocking descriptor that the runtime watches.
pub(crate) type Watched = AsyncFd<OwnedFd>;

/// Has it watched until it is dropped. Within the runtime only.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<Watched> {
    // SAFETY: an `OwnedFd` keeps its descriptor open, under the same number, for as long as it lives; here that is until
    // the `AsyncFd` has forgotten it, as nobody below takes it out or makes another of it.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
