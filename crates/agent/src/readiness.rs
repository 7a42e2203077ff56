//! One `poll` over all that the agent may wait for.
//!
//! nix has a `poll` too, but its entries tell nothing at all as soon as POLLRDHUP, which it does not know, has occurred.

use std::os::fd::{AsRawFd, BorrowedFd};

/// What may happen to a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Events(libc::c_short);

impl Events {
    /// Nothing.
    pub(crate) const NONE: Self = Self(0);
    /// There is something to read, an end included.
    pub(crate) const READABLE: Self = Self(libc::POLLIN);
    /// It can be written, or a connection attempt is decided.
    pub(crate) const WRITABLE: Self = Self(libc::POLLOUT);
    /// The other side has gone, or has said that it will send no more.
    pub(crate) const GONE: Self = Self(libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR);

    /// True when anything has happened.
    pub(crate) fn any(self) -> bool {
        self != Self::NONE
    }

    /// True when one of `others` has happened.
    pub(crate) fn has(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }
}

/// Waits until something happens to one of the descriptors, and tells for each what it was.
///
/// A signal that interrupts it is a wake-up at which nothing has happened.
pub(crate) fn wait<const COUNT: usize>(
    watched: [Option<(BorrowedFd<'_>, Events)>; COUNT],
) -> [Events; COUNT] {
    // The kernel skips entries with a negative descriptor.
    let mut entries = watched.map(|entry| {
        let (fd, events) =
            entry.map_or((-1, Events::NONE), |(fd, events)| (fd.as_raw_fd(), events));
        libc::pollfd {
            fd,
            events: events.0,
            revents: 0,
        }
    });
    // SAFETY: the array has as many entries as told and lives through the call; the descriptors are borrowed.
    unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, -1) };
    entries.map(|entry| Events(entry.revents))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn events_are_told_for_each_descriptor_and_absent_ones_are_skipped() {
        let (quiet, _other) = UnixStream::pair().unwrap();
        let (loud, mut writer) = UnixStream::pair().unwrap();
        writer.write_all(b"x").unwrap();
        let [absent, quiet, loud] = wait([
            None,
            Some((quiet.as_fd(), Events::READABLE)),
            Some((loud.as_fd(), Events::READABLE)),
        ]);
        assert_eq!(
            (absent, quiet, loud),
            (Events::NONE, Events::NONE, Events::READABLE)
        );
    }

    #[test]
    fn a_peer_that_is_gone_is_seen_behind_unread_bytes() {
        let (stream, mut peer) = UnixStream::pair().unwrap();
        peer.write_all(b"unread").unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        let [events] = wait([Some((stream.as_fd(), Events::GONE))]);
        assert!(events.has(Events::GONE));
        assert!(!events.has(Events::READABLE));
    }
}
