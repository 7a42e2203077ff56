//! Trees of files as tar streams: `PUT` unpacks the request's body, `GET` packs into the answer's.
//!
//! Work on files is done on the runtime's threads for calls that may block, a piece at a time: a copy that waits for its
//! host holds none of them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, Incoming};
use microvm_archive::{Error, PackOptions, Packer, Progress, UnpackOptions, Unpacker};
use tokio::task::{JoinHandle, spawn_blocking};

use super::answer::{self, Answer, Refusal};
use super::files::{path_of, text_of};
use super::query::Query;
use super::specification::next_data;

/// As much as the host lets come ahead of its reader.
const CHUNK_BYTES: usize = 128 * 1024;

/// `PUT /v1/archive`: the body becomes files. Answered when all of them are there.
pub(crate) async fn unpack(query: &Query, mut body: Incoming) -> Result<Answer, Refusal> {
    let mut unpacker = Unpacker::new(UnpackOptions {
        destination: path_of(query)?,
        name: query.bytes("name").map(<[u8]>::to_vec),
        owner: query.text("owner") == Some("keep"),
        // Whoever sends this is the guest's master.
        devices: true,
        max_bytes: u64::MAX,
        max_entries: u64::MAX,
    });
    let mut is_open = true;
    while is_open {
        let mut pieces = Vec::new();
        is_open = gather(&mut body, &mut pieces).await?;
        unpacker = blocking(move || {
            for piece in &pieces {
                unpacker.push(piece)?;
            }
            Ok(unpacker)
        })
        .await?;
    }
    let Progress { entries, bytes, .. } = blocking(move || unpacker.finish()).await?;
    Ok(answer::json(
        &serde_json::json!({ "entries": entries, "bytes": bytes }),
    ))
}

/// Waits for the body's next piece, and takes those along that have come with it: handing work to another thread costs more
/// than unpacking a small file. False at the end of the body.
async fn gather(body: &mut Incoming, pieces: &mut Vec<Bytes>) -> Result<bool, Refusal> {
    let mut bytes = 0_usize;
    while bytes < CHUNK_BYTES {
        let next = if pieces.is_empty() {
            next_data(body).await
        } else {
            let mut next = std::pin::pin!(next_data(body));
            match std::future::poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await {
                Poll::Ready(next) => next,
                Poll::Pending => return Ok(true),
            }
        };
        match next {
            None => return Ok(false),
            Some(Err(error)) => return Err(Refusal::bad_request(error.to_string())),
            Some(Ok(piece)) => {
                bytes = bytes.saturating_add(piece.len());
                pieces.push(piece);
            }
        }
    }
    Ok(true)
}

/// `GET /v1/archive`: a file or folder as an archive.
pub(crate) async fn pack(query: &Query) -> Result<Answer, Refusal> {
    let exclude = query.bytes("exclude").unwrap_or_default();
    let packer = Packer::new(PackOptions {
        source: path_of(query)?,
        exclude: exclude
            .split(|byte| *byte == 0)
            .filter(|pattern| !pattern.is_empty())
            .map(<[u8]>::to_vec)
            .collect(),
    });
    // What is not there at all is told before an answer begins.
    let packer = blocking(move || packer.check().map(|()| packer)).await?;
    Ok(answer::stream(Packing(Some(start(packer)))))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Refusal> {
    match spawn_blocking(work).await {
        Ok(result) => result.map_err(refusal),
        Err(error) => Err(io::Error::other(error).into()),
    }
}

/// What was packed, with the packer to go on where there is more.
type Piece = Result<(Option<Packer>, Vec<u8>), Error>;

/// An archive as a body: a piece is packed while the one before it is on its way.
#[derive(Debug)]
struct Packing(Option<JoinHandle<Piece>>);

fn start(mut packer: Packer) -> JoinHandle<Piece> {
    spawn_blocking(move || {
        // The last header may go over it.
        let mut chunk = Vec::with_capacity(CHUNK_BYTES.saturating_add(CHUNK_BYTES / 8));
        let more = packer.fill(&mut chunk, CHUNK_BYTES)?;
        Ok((more.then_some(packer), chunk))
    })
}

impl Body for Packing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Packing(next) = self.get_mut();
        let Some(packing) = next else {
            return Poll::Ready(None);
        };
        let packed = ready!(Pin::new(packing).poll(context));
        *next = None;
        Poll::Ready(Some(match packed {
            Ok(Ok((packer, chunk))) => {
                *next = packer.map(start);
                Ok(Frame::data(chunk.into()))
            }
            Ok(Err(error)) => Ok(Frame::trailers(refusal(error).into_trailers())),
            Err(error) => Err(io::Error::other(error)),
        }))
    }
}

fn refusal(error: Error) -> Refusal {
    match error {
        Error::File {
            syscall,
            path,
            source,
        } => Refusal::from(io::Error::from_raw_os_error(source.raw_os_error()))
            .about(syscall, text_of(&path)),
        Error::Changed { .. } => Refusal::failed("changed", error.to_string()),
        Error::Refused { .. } => Refusal::failed("refused", error.to_string()),
        Error::Malformed(_) | Error::Truncated => Refusal::failed("archive", error.to_string()),
        // There are no limits here, and more kinds of errors may come.
        error => Refusal::failed("EIO", error.to_string()),
    }
}
