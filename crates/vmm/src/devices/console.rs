//! The host's end of the serial console: a thread between the UART and a stream socket.

use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::serial::Serial;

/// Bytes that pass between socket and UART in one step.
const STEP: usize = 4096;
/// Input that is read ahead of the UART's FIFO, in bytes.
const INPUT: usize = 64;

const TOKEN_WAKE: u64 = 0;
const TOKEN_STREAM: u64 = 1;

/// Why the console cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The descriptor is no stream socket.
    #[error("Console descriptor {fd} is not a stream socket")]
    NotAStream {
        /// Its number.
        fd: i32,
    },
    /// A system call failed.
    #[error("Console: {operation} failed")]
    System {
        /// What was being done.
        operation: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// The console's thread. Dropping it ends the thread.
#[derive(Debug)]
pub struct Console {
    serial: Arc<Serial>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Console {
    /// Passes bytes between `serial` and `stream` until [`Console::stop`].
    ///
    /// # Errors
    ///
    /// [`ConsoleError`] when `stream` is no stream socket, or the thread cannot be made.
    pub fn start(serial: Arc<Serial>, stream: OwnedFd) -> Result<Self, ConsoleError> {
        let system = |operation| move |source| ConsoleError::System { operation, source };
        check_stream(&stream)?;
        let stream = UnixStream::from(stream);
        stream
            .set_nonblocking(true)
            .map_err(system("fcntl(O_NONBLOCK)"))?;
        let epoll = Epoll::new().map_err(system("epoll_create1"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut pump = Pump {
            serial: Arc::clone(&serial),
            stop: Arc::clone(&stop),
            stream,
            epoll,
            interest: EventSet::empty(),
            input: Vec::with_capacity(INPUT),
            input_ended: false,
            output_blocked: false,
        };
        pump.register().map_err(system("epoll_ctl"))?;
        let clock = Arc::clone(serial.counters().thread());
        let thread = std::thread::Builder::new()
            .name("microvm-console".into())
            .spawn(move || {
                let _counted = clock.count();
                pump.run();
            })
            .map_err(system("clone"))?;
        Ok(Self {
            serial,
            stop,
            thread: Some(thread),
        })
    }

    /// Hands the reader what it takes at once, then ends the thread and closes the stream.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Only fails when the counter is full: then it is readable anyway.
        let _ = self.serial.wake().write(1);
        if let Some(thread) = self.thread.take() {
            // A panic of that thread is no reason for another one here.
            let _ = thread.join();
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.stop();
    }
}

fn check_stream(fd: &OwnedFd) -> Result<(), ConsoleError> {
    let mut kind: libc::c_int = 0;
    let mut length = libc::socklen_t::try_from(size_of_val(&kind)).unwrap_or(4);
    // SAFETY: the kernel writes at most `length` bytes to `kind`; both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TYPE,
            (&raw mut kind).cast(),
            &raw mut length,
        )
    };
    if result != 0 || kind != libc::SOCK_STREAM {
        return Err(ConsoleError::NotAStream { fd: fd.as_raw_fd() });
    }
    Ok(())
}

/// What the thread works on.
struct Pump {
    serial: Arc<Serial>,
    stop: Arc<AtomicBool>,
    stream: UnixStream,
    epoll: Epoll,
    /// What epoll watches the stream for; nothing when the peer is gone.
    interest: EventSet,
    /// Read from the stream, not yet in the UART.
    input: Vec<u8>,
    input_ended: bool,
    /// The stream takes nothing more for now.
    output_blocked: bool,
}

impl Pump {
    fn register(&mut self) -> io::Result<()> {
        let wake = EpollEvent::new(EventSet::IN, TOKEN_WAKE);
        self.epoll
            .ctl(ControlOperation::Add, self.serial.wake().as_raw_fd(), wake)?;
        self.watch(EventSet::IN)
    }

    fn run(mut self) {
        while !self.stop.load(Ordering::SeqCst) && self.step().is_ok() {}
        // The reader may be behind, and the last words matter most: with its buffer doubled the
        // socket takes all that can wait here, and keeps it for the reader after it is closed.
        raise_send_buffer(&self.stream);
        let _ = self.pass_output();
        self.serial.drop_reader();
    }

    /// Waits for something to do and does it.
    fn step(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::default(); 2];
        let count = match self.epoll.wait(-1, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut hung_up = false;
        for event in events.iter().take(count) {
            if event.data() == TOKEN_WAKE {
                // Only fails when there is nothing to clear.
                let _ = self.serial.wake().read();
                continue;
            }
            let set = event.event_set();
            if set.contains(EventSet::OUT) {
                self.output_blocked = false;
            }
            hung_up |= set.intersects(EventSet::HANG_UP | EventSet::ERROR);
        }
        self.pass_input();
        let broken = self.pass_output().is_err();
        if hung_up || broken {
            self.serial.drop_reader();
            // What the host sent before is still passed on: it is all there, nothing to wait for.
            return self.watch(EventSet::empty());
        }
        let mut interest = EventSet::empty();
        interest.set(EventSet::IN, !self.input_ended && self.input.is_empty());
        interest.set(EventSet::OUT, self.output_blocked);
        self.watch(interest)
    }

    /// Changes what epoll watches the stream for. An empty set takes it out: a peer that hung up
    /// would be reported without end otherwise.
    fn watch(&mut self, interest: EventSet) -> io::Result<()> {
        if interest == self.interest {
            return Ok(());
        }
        let operation = match (self.interest.is_empty(), interest.is_empty()) {
            (true, _) => ControlOperation::Add,
            (_, true) => ControlOperation::Delete,
            _ => ControlOperation::Modify,
        };
        let event = EpollEvent::new(interest, TOKEN_STREAM);
        self.epoll.ctl(operation, self.stream.as_raw_fd(), event)?;
        self.interest = interest;
        Ok(())
    }

    /// From the stream to the guest, as far as the UART has room.
    fn pass_input(&mut self) {
        loop {
            if !self.input.is_empty() {
                let taken = self.serial.push_input(&self.input);
                self.input.drain(..taken);
                if !self.input.is_empty() {
                    return;
                }
            }
            if self.input_ended {
                return;
            }
            let mut buffer = [0; INPUT];
            match self.stream.read(&mut buffer) {
                Ok(0) => self.input_ended = true,
                Ok(count) => self.input.extend(buffer.iter().take(count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.input_ended = true,
            }
        }
    }

    /// From the guest to the stream, as far as the stream takes it. An error means that the
    /// reader is gone.
    fn pass_output(&mut self) -> io::Result<()> {
        let mut buffer = [0; STEP];
        loop {
            let count = self.serial.peek_output(&mut buffer);
            if count == 0 {
                return Ok(());
            }
            match send(&self.stream, buffer.get(..count).unwrap_or_default()) {
                Ok(sent) => self.serial.consume_output(sent),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.output_blocked = true;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Lets the socket hold twice what it holds by default, or more where the host allows it.
fn raise_send_buffer(stream: &UnixStream) {
    let wanted: libc::c_int = 1 << 20;
    let length = libc::socklen_t::try_from(size_of_val(&wanted)).unwrap_or(4);
    // SAFETY: the kernel reads `length` bytes of `wanted`, which outlives the call. A refusal
    // leaves the buffer as it was.
    unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            (&raw const wanted).cast(),
            length,
        )
    };
}

/// As `write`, but a reader that is gone is an error and no signal.
fn send(stream: &UnixStream, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the kernel reads `bytes.len()` bytes, which outlive the call.
    let sent = unsafe {
        libc::send(
            stream.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
#[path = "console_tests.rs"]
mod tests;
