//! A connection within the guest as the two bodies of a request: what comes up is written to it, what it says goes down.
//!
//! Either half may end before the other. What breaks on one side breaks the other: a request that is reset resets the
//! connection, and the other way round. Neither side is read faster than the other one takes it.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, Incoming};
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};
use tokio::task::AbortHandle;

use super::PIECE_BYTES;
use super::answer::{self, Answer};
use super::listen::Socket;
use super::specification::next_data;

/// At its close the connection is reset, whatever is on its way.
const RESET: libc::linger = libc::linger {
    l_onoff: 1,
    l_linger: 0,
};

thread_local! {
    /// One buffer for all that is read: what is handed on is as long as what there was.
    static CHUNK: RefCell<Vec<u8>> = RefCell::new(vec![0; PIECE_BYTES]);
}

/// A connected stream socket of any family, for the runtime.
pub(crate) fn socket(connection: impl Into<OwnedFd>) -> io::Result<Socket> {
    let stream = UnixStream::from(connection.into());
    stream.set_nonblocking(true)?;
    Socket::from_std(stream)
}

/// Answers a request with a connection.
pub(crate) fn answer(socket: Socket, body: Incoming) -> Answer {
    let socket = Rc::new(socket);
    let upload = tokio::task::spawn_local(upload(Rc::clone(&socket), body));
    answer::stream(Download {
        socket,
        upload: upload.abort_handle(),
        ended: false,
    })
}

async fn upload(socket: Rc<Socket>, mut body: Incoming) {
    loop {
        match next_data(&mut body).await {
            Some(Ok(data)) => {
                if write(&socket, &data).await.is_err() {
                    // The reading half tells the host what there is to tell.
                    return;
                }
            }
            Some(Err(_reset)) => return break_off(&socket),
            None => {
                // It fails where the other side has closed altogether.
                let _ = shutdown(socket.as_raw_fd(), Shutdown::Write);
                return;
            }
        }
    }
}

async fn write(socket: &Socket, data: &[u8]) -> io::Result<()> {
    let mut rest = data;
    while !rest.is_empty() {
        socket.writable().await?;
        match socket.try_write(rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Has the connection reset when it is closed. Unix sockets know nothing of the kind, and are just closed.
fn break_off(socket: &Socket) {
    let _ = setsockopt(socket, sockopt::Linger, &RESET);
}

/// What the connection says.
#[derive(Debug)]
struct Download {
    socket: Rc<Socket>,
    upload: AbortHandle,
    ended: bool,
}

impl Body for Download {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let download = self.get_mut();
        if download.ended {
            return Poll::Ready(None);
        }
        CHUNK.with_borrow_mut(|chunk| {
            loop {
                ready!(download.socket.poll_read_ready(context))?;
                match download.socket.try_read(chunk) {
                    Ok(0) => {
                        download.ended = true;
                        return Poll::Ready(None);
                    }
                    Ok(count) => {
                        let piece = chunk.get(..count).unwrap_or_default();
                        let piece = Bytes::copy_from_slice(piece);
                        return Poll::Ready(Some(Ok(Frame::data(piece))));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Some(Err(error))),
                }
            }
        })
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if !self.ended {
            // The host has given the request up, or the connection broke. What waits to be written has nobody to take it.
            break_off(&self.socket);
            self.upload.abort();
        }
    }
}
