//! Connections of a guest that nobody has taken yet.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

/// A bounded queue with a descriptor that tells of arrivals: one byte each, as long as there is
/// room for bytes. Arrivals and bytes need not be equal in number; whoever was told looks until the
/// queue is empty.
#[derive(Debug)]
pub(super) struct Inbox {
    waiting: Mutex<VecDeque<UnixStream>>,
    /// How many may wait.
    limit: usize,
    told: OwnedFd,
    tells: OwnedFd,
}

impl Inbox {
    pub(super) fn new(limit: usize) -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (told, tells) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        Ok(Self {
            waiting: Mutex::default(),
            limit: limit.max(1),
            told,
            tells,
        })
    }

    /// How many may wait, at least one.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Puts a connection in. Of an inbox with one place a newer one takes the place of the oldest,
    /// which its agent has given up when it dials again; where many wait, each for an answer of
    /// its own, one too many is closed.
    pub(super) fn put(&self, connection: UnixStream) {
        let mut waiting = self.waiting();
        if waiting.len() >= self.limit {
            if self.limit > 1 {
                return;
            }
            waiting.pop_front();
        }
        waiting.push_back(connection);
        drop(waiting);
        // Where there is no room, there are bytes that tell the same.
        let _ = send(&self.tells, &[0], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// The connection that waits longest.
    pub(super) fn take(&self) -> Option<UnixStream> {
        self.waiting().pop_front()
    }

    /// Takes note of the arrivals that were told so far.
    pub(super) fn hear(&self) {
        let mut bytes = [0; 64];
        while recv(&self.told, &mut bytes, RecvFlags::DONTWAIT).is_ok_and(|(count, _)| count > 0) {}
    }

    /// Readable when something may have come.
    pub(super) fn told(&self) -> BorrowedFd<'_> {
        self.told.as_fd()
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<UnixStream>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn numbered(number: u8) -> (UnixStream, UnixStream) {
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(&[number]).unwrap();
        (near, far)
    }

    fn kept_and_closed_of_five(limit: usize) -> (Vec<u8>, Vec<u8>) {
        let inbox = Inbox::new(limit).unwrap();
        let mut guests = Vec::new();
        for number in 0..5 {
            let (near, far) = numbered(number);
            inbox.put(far);
            guests.push((number, near));
        }
        let closed = guests.iter_mut().filter_map(|(number, near)| {
            let kind = near.write(b"x").err()?.kind();
            assert_eq!(kind, std::io::ErrorKind::BrokenPipe);
            Some(*number)
        });
        let closed = closed.collect();
        let mut kept = Vec::new();
        while let Some(mut connection) = inbox.take() {
            let mut number = [0];
            connection.read_exact(&mut number).unwrap();
            kept.extend(number);
        }
        (kept, closed)
    }

    #[test]
    fn in_a_single_place_the_newest_waits_and_in_many_those_that_came_first() {
        assert_eq!(kept_and_closed_of_five(1), (vec![4], vec![0, 1, 2, 3]));
        assert_eq!(kept_and_closed_of_five(2), (vec![0, 1], vec![2, 3, 4]));
    }

    #[test]
    fn a_flood_that_nobody_hears_is_kept_short() {
        let inbox = Inbox::new(1).unwrap();
        for number in 0..2000u16 {
            inbox.put(numbered(number.to_le_bytes()[0]).1);
        }
        inbox.hear();
        assert!(inbox.take().is_some());
        assert!(inbox.take().is_none());
    }
}
