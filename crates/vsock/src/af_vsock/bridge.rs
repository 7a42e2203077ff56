//! Two connected sockets whose bytes go over to one another, for programs that cannot use one of
//! them: Node takes no `AF_VSOCK` descriptors.
//!
//! Nothing is read that cannot be written on, so a slow reader slows the writer behind the other
//! socket, and what is kept is never more than one read. The end of one direction leaves the other
//! one open.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

/// Bytes of the buffer that all bridges share.
pub(super) const BUFFER: usize = 128 << 10;
/// Bytes that one turn may move before it is another bridge's.
const TURN: usize = 8 * BUFFER;

/// What is to be waited for: everything, told once for each change.
pub(super) const INTEREST: EventFlags = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing to do until something changes.
    Idle,
    /// There is more, after the others' turn.
    More,
    /// Both directions have ended.
    Over,
}

/// A pair of sockets that never block.
#[derive(Debug)]
pub(super) struct Bridge {
    ends: [End; 2],
    /// The flow at an index comes from the end there.
    flows: [Flow; 2],
}

/// A socket, and what is known of it.
#[derive(Debug)]
struct End {
    socket: OwnedFd,
    readable: bool,
    writable: bool,
}

#[derive(Debug, Default)]
struct Flow {
    /// What was read and not yet written, from `start` on.
    kept: Vec<u8>,
    start: usize,
    stage: Stage,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Open,
    /// The end has come; what is kept goes first.
    Ending,
    Over,
}

impl Bridge {
    pub(super) fn new(one: OwnedFd, other: OwnedFd) -> Self {
        let end = |socket| End {
            socket,
            readable: true,
            writable: true,
        };
        Self {
            ends: [end(one), end(other)],
            flows: [Flow::default(), Flow::default()],
        }
    }

    /// The sockets, in the order of [`Bridge::note`]'s sides.
    pub(super) fn sockets(&self) -> [BorrowedFd<'_>; 2] {
        self.ends.each_ref().map(|end| end.socket.as_fd())
    }

    /// Takes note of what was told of a socket.
    pub(super) fn note(&mut self, side: usize, events: EventFlags) {
        if let Some(end) = self.ends.get_mut(side) {
            let ended = EventFlags::HUP | EventFlags::ERR;
            end.readable |= events.intersects(EventFlags::IN | EventFlags::RDHUP | ended);
            end.writable |= events.intersects(EventFlags::OUT | ended);
        }
    }

    /// Moves what can be moved.
    pub(super) fn turn(&mut self, buffer: &mut [u8]) -> Turn {
        let [one, other] = &mut self.ends;
        let [there, back] = &mut self.flows;
        let more = there.turn(one, other, buffer) | back.turn(other, one, buffer);
        if there.stage == Stage::Over && back.stage == Stage::Over {
            Turn::Over
        } else if more {
            Turn::More
        } else {
            Turn::Idle
        }
    }
}

impl Flow {
    /// True where there is more to move.
    fn turn(&mut self, from: &mut End, to: &mut End, buffer: &mut [u8]) -> bool {
        let mut moved = 0;
        while moved < TURN {
            let kept = self.kept.get(self.start..).unwrap_or_default();
            if !kept.is_empty() {
                match to.send(kept) {
                    Sent::Bytes(count) => self.start += count,
                    Sent::Later => return false,
                    Sent::Never => self.abandon(from),
                }
                continue;
            }
            self.kept = Vec::new();
            self.start = 0;
            match self.stage {
                Stage::Over => return false,
                Stage::Ending => {
                    // It fails only where the connection is gone as a whole.
                    let _ = shutdown(&to.socket, Shutdown::Write);
                    self.stage = Stage::Over;
                    return false;
                }
                Stage::Open => {}
            }
            let read = match from.receive(buffer) {
                Received::Later => return false,
                Received::End => {
                    self.stage = Stage::Ending;
                    continue;
                }
                Received::Bytes(count) => buffer.get(..count).unwrap_or_default(),
            };
            moved += read.len();
            match to.send(read) {
                Sent::Bytes(count) if count == read.len() => {}
                Sent::Bytes(count) => self.kept = read.get(count..).unwrap_or_default().to_vec(),
                Sent::Later => self.kept = read.to_vec(),
                Sent::Never => self.abandon(from),
            }
        }
        true
    }

    /// Nobody takes the bytes any more, and whoever sends them is to know.
    fn abandon(&mut self, from: &End) {
        self.kept = Vec::new();
        self.start = 0;
        self.stage = Stage::Over;
        // As above.
        let _ = shutdown(&from.socket, Shutdown::Read);
    }
}

enum Received {
    Bytes(usize),
    Later,
    /// Also how a connection ends that broke.
    End,
}

enum Sent {
    Bytes(usize),
    Later,
    Never,
}

impl End {
    fn receive(&mut self, buffer: &mut [u8]) -> Received {
        if !self.readable {
            return Received::Later;
        }
        loop {
            return match recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => Received::End,
                Ok((count, _)) => Received::Bytes(count),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    self.readable = false;
                    Received::Later
                }
                Err(_) => Received::End,
            };
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Sent {
        if !self.writable {
            return Sent::Later;
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            return match send(&self.socket, bytes, flags) {
                Ok(count) => Sent::Bytes(count),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    self.writable = false;
                    Sent::Later
                }
                Err(_) => Sent::Never,
            };
        }
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use proptest::prelude::*;

    use super::*;

    struct Bench {
        bridge: Bridge,
        buffer: Vec<u8>,
        near: UnixStream,
        far: UnixStream,
    }

    fn bench() -> Bench {
        let pair = || {
            let (outer, inner) = UnixStream::pair().unwrap();
            inner.set_nonblocking(true).unwrap();
            outer.set_nonblocking(true).unwrap();
            (outer, OwnedFd::from(inner))
        };
        let ((near, one), (far, other)) = (pair(), pair());
        Bench {
            bridge: Bridge::new(one, other),
            buffer: vec![0; BUFFER],
            near,
            far,
        }
    }

    impl Bench {
        /// A turn after everything changed.
        fn turn(&mut self) -> Turn {
            for side in [0, 1] {
                self.bridge.note(side, EventFlags::IN | EventFlags::OUT);
            }
            self.bridge.turn(&mut self.buffer)
        }
    }

    fn read_all(stream: &mut UnixStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        match stream.read_to_end(&mut bytes) {
            Ok(_) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => bytes,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn an_end_of_one_direction_leaves_the_other_open() {
        let mut bench = bench();
        bench.near.write_all(b"question").unwrap();
        bench.near.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(bench.turn(), Turn::Idle);
        let mut question = String::new();
        bench.far.read_to_string(&mut question).unwrap();
        assert_eq!(question, "question");

        bench.far.write_all(b"answer").unwrap();
        assert_eq!(bench.turn(), Turn::Idle);
        assert_eq!(read_all(&mut bench.near), b"answer");
        drop(bench.far);
        bench.bridge.note(1, EventFlags::HUP);
        assert_eq!(bench.bridge.turn(&mut bench.buffer), Turn::Over);
    }

    #[test]
    fn a_reader_that_does_not_read_stops_its_writer() {
        let mut bench = bench();
        let mut written = 0;
        let chunk = [7; 4096];
        loop {
            match bench.near.write(&chunk) {
                Ok(count) => written += count,
                Err(_) if bench.turn() == Turn::Idle && bench.near.write(&chunk).is_err() => break,
                Err(_) => {}
            }
        }
        // The sockets' own buffers, and one of ours: the rest waits in the writer.
        assert!(written < 2 << 20, "{written} bytes were taken");
        assert!(bench.bridge.flows[0].kept.len() <= BUFFER);
        let mut got = 0;
        drop(std::mem::replace(
            &mut bench.near,
            UnixStream::pair().unwrap().0,
        ));
        while got < written {
            got += read_all(&mut bench.far).len();
            bench.turn();
        }
        assert!(bench.bridge.flows[0].kept.is_empty());
    }

    #[test]
    fn a_reader_that_is_gone_is_told_to_the_writer() {
        let mut bench = bench();
        drop(bench.far);
        bench.near.write_all(b"lost").unwrap();
        for side in [0, 1] {
            bench
                .bridge
                .note(side, EventFlags::IN | EventFlags::OUT | EventFlags::HUP);
        }
        assert_eq!(bench.bridge.turn(&mut bench.buffer), Turn::Over);
        let error = bench.near.write(b"more").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn nothing_is_done_without_a_sign() {
        let mut bench = bench();
        assert_eq!(bench.turn(), Turn::Idle);
        bench.near.write_all(b"x").unwrap();
        assert_eq!(bench.bridge.turn(&mut bench.buffer), Turn::Idle);
        assert!(read_all(&mut bench.far).is_empty());
        bench.bridge.note(0, EventFlags::IN);
        assert_eq!(bench.bridge.turn(&mut bench.buffer), Turn::Idle);
        assert_eq!(read_all(&mut bench.far), b"x");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write(usize, usize),
        Read(usize),
        End(usize),
        Turn,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (0usize..2, 0usize..400_000).prop_map(|(side, count)| Step::Write(side, count)),
            3 => (0usize..2).prop_map(Step::Read),
            1 => (0usize..2).prop_map(Step::End),
            3 => Just(Step::Turn),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever the order of writes, reads and ends: every byte that was taken comes out at the
        /// other side once and in order, then the end, and then the bridge is over.
        #[test]
        fn bytes_come_out_as_they_went_in(steps in prop::collection::vec(step(), 0..24)) {
            let Bench { mut bridge, mut buffer, near, far } = bench();
            let mut outer = [near, far];
            let mut sent = [Vec::new(), Vec::new()];
            let mut got = [Vec::new(), Vec::new()];
            let mut ended = [false; 2];
            let mut turn = |bridge: &mut Bridge| {
                for side in [0, 1] {
                    bridge.note(side, EventFlags::IN | EventFlags::OUT);
                }
                bridge.turn(&mut buffer)
            };
            for step in steps {
                match step {
                    Step::Write(side, count) if !ended[side] => {
                        let first = sent[side].len();
                        let bytes: Vec<u8> = (first..first + count).map(|at| (at % 251) as u8).collect();
                        if let Ok(count) = outer[side].write(&bytes) {
                            sent[side].extend_from_slice(&bytes[..count]);
                        }
                    }
                    Step::Read(side) => got[side].extend(read_all(&mut outer[side])),
                    Step::End(side) => {
                        outer[side].shutdown(std::net::Shutdown::Write).unwrap();
                        ended[side] = true;
                    }
                    Step::Write(..) => {}
                    Step::Turn => {
                        turn(&mut bridge);
                    }
                }
            }
            for outer in &outer {
                outer.shutdown(std::net::Shutdown::Write).unwrap();
            }
            while turn(&mut bridge) != Turn::Over {
                for (outer, got) in outer.iter_mut().zip(&mut got) {
                    got.extend(read_all(outer));
                }
            }
            for (outer, got) in outer.iter_mut().zip(&mut got) {
                got.extend(read_all(outer));
            }
            // Not compared by a macro, which would print them all.
            prop_assert!(got[0] == sent[1]);
            prop_assert!(got[1] == sent[0]);
        }
    }
}
