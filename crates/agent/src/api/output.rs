//! The response of a process: both outputs in one body, the exit status in its trailers.
//!
//! A frame is a byte (1 for standard output, 2 for standard error), three zero bytes, a u32 length (big-endian) and that
//! many bytes, as Docker has it. The body is polled only when the host has room, so pipes are read no faster than that.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::HeaderMap;
use hyper::body::{Body, Bytes, Frame};
use hyper::http::HeaderValue;
use tokio::sync::oneshot;

use super::PIECE_BYTES;
use super::process::Process;
use super::watched::{Watched, watch};
use crate::children::Exit;

/// What a pipe holds whose command writes much, which the kernel takes from its own memory as it fills: four times the usual.
const PIPE_BYTES: libc::c_int = 256 * 1024;
/// What is taken from a terminal when its process has ended: others may go on writing there.
const LAST_BYTES: usize = 1024 * 1024;

/// The head of a frame.
const HEAD_BYTES: usize = 8;
/// So long a frame is handed on as it was read; a shorter one is copied, for it would keep room for a long one.
const LONG_BYTES: usize = PIECE_BYTES / 2;

thread_local! {
    /// Where all is read into, until a long frame takes it along.
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The reading end of a pipe, or the master side of a terminal.
#[derive(Debug)]
pub(crate) struct Output {
    number: u8,
    file: Watched,
    is_terminal: bool,
    /// A pipe that holds more than the usual.
    is_wide: bool,
    /// Bytes that may still be taken, once the process has ended.
    left: Option<usize>,
}

/// The body.
#[derive(Debug)]
pub(crate) struct ProcessOutput {
    process: Rc<Process>,
    exit: Ending,
    outputs: Vec<Output>,
    /// Which output is asked first: none may crowd the other out.
    turn: bool,
    told: bool,
}

#[derive(Debug)]
enum Ending {
    Awaited(oneshot::Receiver<Exit>),
    Known(Exit),
}

impl Output {
    /// `number` is its kind in frames.
    pub(crate) fn new(number: u8, file: OwnedFd, is_terminal: bool) -> io::Result<Self> {
        Ok(Self {
            number,
            file: watch(file)?,
            is_terminal,
            is_wide: false,
            left: None,
        })
    }

    /// Makes fewer turns between the command and this process; it is as right without, and terminals cannot.
    fn widen(&mut self) {
        self.is_wide = true;
        // SAFETY: the call takes numbers only.
        unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES) };
    }

    /// From now on it is read as far as it has been written, and no further.
    fn limit(&mut self) {
        self.left = Some(if self.is_terminal {
            LAST_BYTES
        } else {
            bytes_in_pipe(self.file.get_ref())
        });
    }

    /// The next piece as a frame; `None` at the end.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(left) = self.left {
            // What is there is there: nobody waits for more.
            let frame = read_frame(self.number, self.file.get_ref(), left).unwrap_or(None);
            let count = frame.as_ref().map_or(0, |frame| frame.len() - HEAD_BYTES);
            self.left = Some(left.saturating_sub(count));
            return Poll::Ready(frame);
        }
        loop {
            let Ok(mut ready) = std::task::ready!(self.file.poll_read_ready(context)) else {
                return Poll::Ready(None);
            };
            match ready.try_io(|file| read_frame(self.number, file.get_ref(), PIECE_BYTES)) {
                Ok(Ok(Some(frame))) => {
                    if frame.len() > LONG_BYTES && !self.is_wide {
                        self.widen();
                    }
                    return Poll::Ready(Some(frame));
                }
                // A terminal that all have closed gives EIO.
                Ok(Ok(None) | Err(_)) => return Poll::Ready(None),
                Err(_would_block) => {}
            }
        }
    }
}

/// Reads what there is, up to `most` bytes, as a frame; `None` at the end.
fn read_frame(number: u8, file: &OwnedFd, most: usize) -> io::Result<Option<Bytes>> {
    ROOM.with_borrow_mut(|frame| {
        frame.clear();
        frame.reserve_exact(HEAD_BYTES + PIECE_BYTES);
        frame.extend_from_slice(&[number, 0, 0, 0, 0, 0, 0, 0]);
        let count = read_behind(file, frame, most.min(PIECE_BYTES))?;
        if count == 0 {
            return Ok(None);
        }
        if let Some(length) = frame.get_mut(4..HEAD_BYTES) {
            length.copy_from_slice(&u32::try_from(count).unwrap_or(0).to_be_bytes());
        }
        Ok(Some(if count < LONG_BYTES {
            Bytes::copy_from_slice(frame)
        } else {
            std::mem::take(frame).into()
        }))
    })
}

/// Reads behind what is in a buffer already, as far as it has room.
fn read_behind(file: &OwnedFd, buffer: &mut Vec<u8>, most: usize) -> io::Result<usize> {
    let room = buffer.spare_capacity_mut();
    let most = room.len().min(most);
    // SAFETY: the kernel writes at most so many bytes, into room that the buffer owns.
    let count = unsafe { libc::read(file.as_raw_fd(), room.as_mut_ptr().cast(), most) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the bytes behind the buffer's length were written just now, no more than it has room for.
    unsafe { buffer.set_len(buffer.len() + count) };
    Ok(count)
}

fn bytes_in_pipe(pipe: &OwnedFd) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD stores one int, which lives through the call.
    unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    usize::try_from(count).unwrap_or(0)
}

impl ProcessOutput {
    pub(crate) fn new(
        process: Rc<Process>,
        exit: oneshot::Receiver<Exit>,
        outputs: Vec<Output>,
    ) -> Self {
        Self {
            process,
            exit: Ending::Awaited(exit),
            outputs,
            turn: false,
            told: false,
        }
    }

    fn look_for_end(&mut self, context: &mut Context<'_>) {
        let Ending::Awaited(exit) = &mut self.exit else {
            return;
        };
        // The sender is kept until the status is taken, so there is no other way for this to be over.
        if let Poll::Ready(Ok(exit)) = Pin::new(exit).poll(context) {
            self.exit = Ending::Known(exit);
            self.process.stop_input();
            for output in &mut self.outputs {
                output.limit();
            }
        }
    }

    fn poll_outputs(&mut self, context: &mut Context<'_>) -> Option<Bytes> {
        self.turn = !self.turn;
        if self.turn {
            self.outputs.reverse();
        }
        let mut index = 0;
        while let Some(output) = self.outputs.get_mut(index) {
            match output.poll_piece(context) {
                Poll::Ready(Some(frame)) => return Some(frame),
                Poll::Ready(None) => {
                    self.outputs.remove(index);
                }
                Poll::Pending => index = index.saturating_add(1),
            }
        }
        None
    }
}

impl Body for ProcessOutput {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let body = self.get_mut();
        if body.told {
            return Poll::Ready(None);
        }
        body.look_for_end(context);
        if let Some(frame) = body.poll_outputs(context) {
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        match body.exit {
            Ending::Known(exit) if body.outputs.is_empty() => {
                body.told = true;
                let kills = body.process.out_of_memory_kills();
                body.process.finish();
                Poll::Ready(Some(Ok(Frame::trailers(trailers(exit, kills)))))
            }
            _ => Poll::Pending,
        }
    }
}

impl Drop for ProcessOutput {
    fn drop(&mut self) {
        if self.told || !self.process.is_detached() {
            return;
        }
        // Nobody reads any more, but a detached process may go on writing.
        for output in self.outputs.drain(..) {
            tokio::task::spawn_local(drain(output));
        }
    }
}

async fn drain(mut output: Output) {
    output.left = None;
    while std::future::poll_fn(|context| output.poll_piece(context))
        .await
        .is_some()
    {}
}

fn trailers(exit: Exit, out_of_memory_kills: u64) -> HeaderMap {
    let (name, value) = match exit {
        Exit::Code(code) => ("exit-code", code),
        Exit::Signal(signal) => ("exit-signal", signal),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert(name, HeaderValue::from(u16::from(value)));
    if out_of_memory_kills > 0 {
        trailers.insert("oom-kills", HeaderValue::from(out_of_memory_kills));
    }
    trailers
}
