//! Waiting for descriptors: `poll`, `select` and their like.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::int;
use crate::descriptors::Object;
use crate::frames::lock;
use crate::process::{Answer, Process, Stop};

const POLLIN: u16 = 1;
const POLLOUT: u16 = 4;
const POLLERR: u16 = 8;
const POLLHUP: u16 = 16;
const POLLNVAL: u16 = 32;
/// Highest descriptor of `select`, and one more.
const FD_SETSIZE: u64 = 1024;

/// A descriptor that is asked about.
#[derive(Clone, Copy)]
struct Asked {
    fd: u64,
    events: u16,
    found: u16,
    /// Which of the host's descriptors it is.
    outside: Option<usize>,
}

/// Descriptors of the host, each once, and what they are to be asked.
type Outside = Vec<(Arc<OwnedFd>, PollFlags)>;

impl Process<'_> {
    /// `poll`
    pub fn poll(&mut self, fds: u64, count: u64, milliseconds: u64) -> Answer {
        let milliseconds = int(milliseconds).cast_signed();
        let time = u64::try_from(milliseconds).ok().map(Duration::from_millis);
        self.poll_until(fds, count, time)
    }

    /// `ppoll`: signals come from the program itself, which waits.
    pub fn ppoll(&mut self, fds: u64, count: u64, time: u64) -> Answer {
        let time = if time == 0 {
            None
        } else {
            Some(self.duration(time)?)
        };
        self.poll_until(fds, count, time)
    }

    fn poll_until(&mut self, fds: u64, count: u64, time: Option<Duration>) -> Answer {
        if count > self.descriptors.limit() as u64 {
            return Err(Errno::INVAL.into());
        }
        let mut asked = Vec::new();
        for index in 0..count {
            let address = fds.checked_add(8 * index).ok_or(Errno::FAULT)?;
            let [a, b, c, d, e, f, _, _] = self.memory.read_array(address)?;
            asked.push(Asked {
                fd: u64::from(u32::from_le_bytes([a, b, c, d])),
                events: u16::from_le_bytes([e, f]),
                found: 0,
                outside: None,
            });
        }
        self.wait_for_any(&mut asked, time)?;
        let mut ready = 0;
        for (index, asked) in asked.iter().enumerate() {
            ready += u64::from(asked.found != 0);
            let address = fds.wrapping_add(8 * index as u64 + 6);
            self.memory.write(address, &asked.found.to_le_bytes())?;
        }
        Ok(ready)
    }

    /// Waits until something that was asked about is so.
    fn wait_for_any(&mut self, asked: &mut [Asked], time: Option<Duration>) -> Result<(), Stop> {
        // Beyond what the clock can count it is for ever.
        let until = time.and_then(|time| Instant::now().checked_add(time));
        loop {
            let mut outside = Outside::new();
            let mut any = false;
            for one in asked.iter_mut() {
                one.found = self.readiness(one, &mut outside);
                any |= one.found != 0;
            }
            let over = until.is_some_and(|until| Instant::now() >= until);
            let mut fds: Vec<PollFd<'_>> = outside
                .iter()
                .map(|(fd, flags)| PollFd::new(fd, *flags))
                .collect();
            let wait_until = if any || over {
                Some(Instant::now())
            } else {
                until
            };
            self.wait(&mut fds, wait_until)?;
            for one in asked.iter_mut() {
                if let Some(fd) = one.outside.and_then(|index| fds.get(index)) {
                    one.found |= fd.revents().bits() & (one.events | POLLERR | POLLHUP);
                    any |= one.found != 0;
                }
            }
            if any || over {
                return Ok(());
            }
        }
    }

    /// What is so without asking the host; what it has to be asked is added.
    fn readiness(&self, asked: &mut Asked, outside: &mut Outside) -> u16 {
        asked.outside = None;
        // A negative number: not asked about.
        if asked.fd > u64::from(u32::MAX >> 1) {
            return 0;
        }
        let Ok(description) = self.descriptors.get(asked.fd) else {
            return POLLNVAL;
        };
        let description = lock(&description);
        let found = match &description.object {
            Object::Stdin => match self.streams.input() {
                Some(fd) => ask(asked, outside, fd, PollFlags::IN),
                None => POLLIN,
            },
            Object::Output(which) => match self.streams.output(*which) {
                Some(fd) => ask(asked, outside, fd, PollFlags::OUT),
                None => POLLOUT,
            },
            Object::Reader(reader) => match reader.ready() {
                (0, true) => 0,
                (0, false) => POLLHUP,
                (_, true) => POLLIN,
                (_, false) => POLLIN | POLLHUP,
            },
            Object::Writer(writer) => match writer.ready() {
                Err(_) => POLLOUT | POLLERR,
                Ok(0) => 0,
                Ok(_) => POLLOUT,
            },
            Object::Lower(_) | Object::Upper(_) | Object::Folder(_) => POLLIN | POLLOUT,
            Object::Path(_) => POLLNVAL,
        };
        found & (asked.events | POLLERR | POLLHUP | POLLNVAL)
    }

    /// `select`, and with `precise` `pselect6`
    pub fn select(&mut self, args: [u64; 6], precise: bool) -> Answer {
        let [count, readers, writers, exceptions, time, _] = args;
        // A negative number is an error, one that is too large is not.
        let count = match int(count) {
            count if count > i32::MAX.unsigned_abs() => return Err(Errno::INVAL.into()),
            count => u64::from(count).min(FD_SETSIZE),
        };
        let time = match (time, precise) {
            (0, _) => None,
            (time, true) => Some(self.duration(time)?),
            (time, false) => Some(self.duration_of_timeval(time)?),
        };
        let mut sets = [[0; 16]; 3];
        let words = count.div_ceil(64);
        for (set, address) in sets.iter_mut().zip([readers, writers, exceptions]) {
            for (word, index) in set.iter_mut().zip(0..words) {
                if address != 0 {
                    *word = self.memory.read_u64(address.wrapping_add(8 * index))?;
                }
            }
        }
        let [read, write, except] = sets;
        let mut asked = Vec::new();
        for fd in 0..count {
            let within = |set: &[u64; 16]| {
                let word = usize::try_from(fd / 64)
                    .ok()
                    .and_then(|index| set.get(index));
                word.is_some_and(|word| word >> (fd % 64) & 1 == 1)
            };
            let mut events = 0;
            events |= if within(&read) { POLLIN } else { 0 };
            events |= if within(&write) { POLLOUT } else { 0 };
            if events != 0 || within(&except) {
                self.descriptors.get(fd)?;
                asked.push(Asked {
                    fd,
                    events,
                    found: 0,
                    outside: None,
                });
            }
        }
        self.wait_for_any(&mut asked, time)?;
        let mut results = [[0u64; 16]; 3];
        let mut ready = 0;
        for one in &asked {
            let hits = [
                one.events & POLLIN != 0 && one.found & (POLLIN | POLLHUP | POLLERR) != 0,
                one.events & POLLOUT != 0 && one.found & (POLLOUT | POLLERR) != 0,
                false,
            ];
            for (set, hit) in results.iter_mut().zip(hits) {
                let index = usize::try_from(one.fd / 64).unwrap_or(0);
                if hit && let Some(word) = set.get_mut(index) {
                    *word |= 1 << (one.fd % 64);
                    ready += 1;
                }
            }
        }
        for (set, address) in results.iter().zip([readers, writers, exceptions]) {
            for (word, index) in set.iter().zip(0..words) {
                if address != 0 {
                    let address = address.wrapping_add(8 * index);
                    self.memory.write(address, &word.to_le_bytes())?;
                }
            }
        }
        Ok(ready)
    }

    /// `pause`: nobody sends a signal to a program that waits.
    pub fn pause(&mut self) -> Answer {
        self.wait_forever()?;
        Ok(0)
    }
}

/// Has the host asked about one of the streams, errors of which are always of interest.
fn ask(asked: &mut Asked, outside: &mut Outside, fd: Arc<OwnedFd>, flags: PollFlags) -> u16 {
    let flags = flags & PollFlags::from_bits_retain(asked.events);
    let known = outside
        .iter_mut()
        .position(|(other, _)| Arc::ptr_eq(other, &fd));
    match known.and_then(|index| outside.get_mut(index)) {
        Some((_, wanted)) => *wanted |= flags,
        None => outside.push((fd, flags)),
    }
    asked.outside = known.or(outside.len().checked_sub(1));
    0
}
