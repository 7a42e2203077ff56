//! Contents of files as bodies: `GET /v1/file` reads, `PUT /v1/file` writes.
//!
//! Calls that may block are made on the runtime's threads for such calls, a piece at a time. Files are opened without waiting
//! for the other end of a FIFO. One that has nothing to read, or no room, is waited for by the runtime, which holds no thread:
//! a request that is given up meanwhile leaves nothing behind.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::mem;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, Incoming};
use tokio::task::{JoinHandle, spawn_blocking};

use super::PIECE_BYTES;
use super::answer::{self, Answer, Refusal};
use super::files::{blocking, path_of, text_of};
use super::query::Query;
use super::specification::next_data;
use super::watched::{Watched, watch};

/// How files are opened: nobody is waited for who may hold the other end of a FIFO.
pub(super) const NO_WAITING: i32 = libc::O_NONBLOCK | libc::O_NOCTTY;

/// Opens whatever has a content.
pub(super) fn open_to_read(path: &Path) -> io::Result<(File, Metadata)> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(NO_WAITING)
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    Ok((file, metadata))
}

/// `GET /v1/file`: the content, or the part from `start` to `end`, inclusive.
pub(crate) async fn read(query: &Query) -> Result<Answer, Refusal> {
    let path = path_of(query)?;
    let start: u64 = query.number("start")?.unwrap_or(0);
    let left = match query.number::<u64>("end")? {
        Some(end) => end.saturating_add(1).saturating_sub(start),
        None => u64::MAX,
    };
    let (file, path) = blocking(move || {
        let (mut file, _) = open_to_read(&path)?;
        if start > 0 {
            file.seek(SeekFrom::Start(start))?;
        }
        Ok((file, path))
    })
    .await?;
    Ok(answer::stream(Content {
        path,
        left,
        state: State::Open(file),
    }))
}

/// `PUT /v1/file`: the body becomes the content.
pub(crate) async fn write(query: &Query, mut body: Incoming) -> Result<Answer, Refusal> {
    let path = path_of(query)?;
    let about = text_of(&path);
    let mode = query.number("mode")?.unwrap_or(0o666);
    let start: Option<u64> = query.number("start")?;
    let mut options = OpenOptions::new();
    options.mode(mode).custom_flags(NO_WAITING);
    match query.text("flag").unwrap_or("w") {
        "w" => options.write(true).create(true).truncate(true),
        "wx" => options.write(true).create_new(true),
        "a" => options.append(true).create(true),
        "ax" => options.append(true).create_new(true),
        "r+" => options.write(true),
        _ => return Err(Refusal::bad_request("flag is one of w, wx, a, ax, r+")),
    };
    let mut file = blocking(move || {
        let mut file = options.open(path)?;
        if let Some(start) = start {
            file.seek(SeekFrom::Start(start))?;
        }
        Ok(file)
    })
    .await?;
    while let Some(data) = next_data(&mut body).await {
        let data = data.map_err(|error| Refusal::bad_request(error.to_string()))?;
        file = match write_all(file, data).await {
            Ok(file) => file,
            Err(error) => return Err(Refusal::from(error).about("write", about)),
        };
    }
    Ok(answer::done())
}

async fn write_all(mut file: File, mut data: Bytes) -> io::Result<File> {
    loop {
        let written;
        (file, data, written) = blocking(move || {
            let written = write_some(&mut file, &mut data);
            Ok((file, data, written))
        })
        .await?;
        match written {
            Ok(()) => return Ok(file),
            Err(full) if full.kind() == io::ErrorKind::WouldBlock => {
                let _ready = readiness(&file, full)?.writable().await?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Writes as much as there is room for; what is left stays in `data`.
fn write_some(file: &mut File, data: &mut Bytes) -> io::Result<()> {
    while !data.is_empty() {
        match file.write(data) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => drop(data.split_to(count)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Has a file watched that was not ready. One that cannot be waited for gives what it refused with.
fn readiness(file: &File, refused: io::Error) -> io::Result<Watched> {
    watch(file.as_fd().try_clone_to_owned()?).map_err(|_| refused)
}

/// A file's content as a body: one piece is read when the host has room for it.
#[derive(Debug)]
struct Content {
    path: PathBuf,
    left: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Open(File),
    Reading(JoinHandle<(File, io::Result<Vec<u8>>)>),
    /// It had nothing to read, such as a FIFO whose writer is idle.
    Waiting(File, Watched),
    Over,
}

impl Content {
    /// Reads one piece. Empty at the end.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        loop {
            self.state = match mem::replace(&mut self.state, State::Over) {
                State::Open(mut file) => {
                    let wanted = usize::try_from(self.left)
                        .unwrap_or(PIECE_BYTES)
                        .min(PIECE_BYTES);
                    State::Reading(spawn_blocking(move || {
                        let mut chunk = vec![0; wanted];
                        let read = file.read(&mut chunk).map(|count| {
                            chunk.truncate(count);
                            chunk
                        });
                        (file, read)
                    }))
                }
                State::Reading(mut reading) => {
                    let Poll::Ready(read) = Pin::new(&mut reading).poll(context) else {
                        self.state = State::Reading(reading);
                        return Poll::Pending;
                    };
                    let (file, read) = read.map_err(io::Error::other)?;
                    match read {
                        Ok(chunk) => {
                            self.left = self.left.saturating_sub(chunk.len() as u64);
                            if self.left > 0 && !chunk.is_empty() {
                                self.state = State::Open(file);
                            }
                            return Poll::Ready(Ok(chunk));
                        }
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                            State::Open(file)
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            let watched = readiness(&file, error)?;
                            State::Waiting(file, watched)
                        }
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
                State::Waiting(file, watched) => match watched.poll_read_ready(context) {
                    Poll::Ready(ready) => {
                        drop(ready?);
                        State::Open(file)
                    }
                    Poll::Pending => {
                        self.state = State::Waiting(file, watched);
                        return Poll::Pending;
                    }
                },
                State::Over => return Poll::Ready(Ok(Vec::new())),
            };
        }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let content = self.get_mut();
        Poll::Ready(match ready!(content.poll_piece(context)) {
            Ok(chunk) if chunk.is_empty() => None,
            Ok(chunk) => Some(Ok(Frame::data(chunk.into()))),
            Err(error) => {
                let refusal = Refusal::from(error).about("read", text_of(&content.path));
                Some(Ok(Frame::trailers(refusal.into_trailers())))
            }
        })
    }
}
