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

/// What is taken from a terminal when its process has ended: others may go on writing there.
const LAST_BYTES: usize = 1024 * 1024;

thread_local! {
    /// One buffer for all that is read: what is handed on is as long as what there was.
    static CHUNK: RefCell<Vec<u8>> = RefCell::new(vec![0; PIECE_BYTES]);
}

/// The reading end of a pipe, or the master side of a terminal.
#[derive(Debug)]
pub(crate) struct Output {
    number: u8,
    file: Watched,
    is_terminal: bool,
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
            left: None,
        })
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
        CHUNK.with_borrow_mut(|chunk| {
            if let Some(left) = self.left {
                // What is there is there: nobody waits for more.
                let room = chunk.get_mut(..left.min(PIECE_BYTES)).unwrap_or_default();
                let count = read(self.file.get_ref(), room).unwrap_or(0);
                self.left = Some(left.saturating_sub(count));
                return Poll::Ready(self.frame(room, count));
            }
            loop {
                let Ok(mut ready) = std::task::ready!(self.file.poll_read_ready(context)) else {
                    return Poll::Ready(None);
                };
                match ready.try_io(|file| read(file.get_ref(), chunk)) {
                    // A terminal that all have closed gives EIO.
                    Ok(result) => {
                        return Poll::Ready(self.frame(chunk, result.unwrap_or(0)));
                    }
                    Err(_would_block) => {}
                }
            }
        })
    }

    fn frame(&self, chunk: &[u8], count: usize) -> Option<Bytes> {
        let content = chunk.get(..count).filter(|content| !content.is_empty())?;
        let length = u32::try_from(count).ok()?;
        let mut frame = Vec::with_capacity(count.saturating_add(8));
        frame.extend_from_slice(&[self.number, 0, 0, 0]);
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(content);
        Some(frame.into())
    }
}

fn read(file: &OwnedFd, chunk: &mut [u8]) -> io::Result<usize> {
    Ok(nix::unistd::read(file, chunk)?)
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
