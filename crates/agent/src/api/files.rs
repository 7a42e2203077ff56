//! Files of the guest: one request for each operation of `node:fs`, and their contents as bodies.
//!
//! Calls that may block are made on the runtime's threads for such calls. Nothing here waits for a peer: files are opened
//! without waiting for the other end of a FIFO.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, Incoming};
use nix::fcntl::AtFlags;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat};
use serde::{Deserialize, Serialize};
use tokio::task::{JoinHandle, spawn_blocking};

use super::PIECE_BYTES;
use super::answer::{self, Answer, Refusal};
use super::query::Query;
use super::specification::next_data;

/// A request holds a path or two.
const REQUEST_BYTES: usize = 64 * 1024;

/// What is to be done.
#[derive(Debug, Deserialize)]
#[serde(tag = "operation", rename_all = "camelCase", deny_unknown_fields)]
enum Operation {
    Stat {
        path: PathBuf,
    },
    Lstat {
        path: PathBuf,
    },
    Readdir {
        path: PathBuf,
        recursive: bool,
    },
    Mkdir {
        path: PathBuf,
        recursive: bool,
        mode: u32,
    },
    Rename {
        path: PathBuf,
        to: PathBuf,
    },
    Rm {
        path: PathBuf,
        recursive: bool,
        force: bool,
    },
    Chmod {
        path: PathBuf,
        mode: u32,
    },
    Chown {
        path: PathBuf,
        uid: u32,
        gid: u32,
    },
    Symlink {
        path: PathBuf,
        target: PathBuf,
    },
    Readlink {
        path: PathBuf,
    },
    Utimes {
        path: PathBuf,
        accessed: Time,
        modified: Time,
    },
}

/// A moment since 1970: nanoseconds count forward, before 1970 too.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Time {
    seconds: i64,
    nanoseconds: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    dev: u64,
    ino: u64,
    mode: u32,
    nlink: u64,
    uid: u32,
    gid: u32,
    rdev: u64,
    size: u64,
    blksize: u64,
    blocks: u64,
    accessed: Time,
    modified: Time,
    changed: Time,
}

#[derive(Debug, Serialize)]
struct Entry {
    /// Relative to the folder that was asked for.
    name: String,
    /// The file type's bits of a mode.
    kind: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum Outcome {
    Done,
    Status(Status),
    Entries(Vec<Entry>),
    Path(String),
}

/// `POST /v1/files`
pub(crate) async fn operate(mut body: Incoming) -> Result<Answer, Refusal> {
    let mut text = Vec::new();
    while let Some(data) = next_data(&mut body).await {
        text.extend_from_slice(&data.map_err(|error| Refusal::bad_request(error.to_string()))?);
        if text.len() > REQUEST_BYTES {
            return Err(Refusal::bad_request("the request is too long"));
        }
    }
    let operation = serde_json::from_slice(&text)
        .map_err(|error| Refusal::bad_request(format!("the operation is not right: {error}")))?;
    Ok(answer::json(&blocking(move || perform(operation)).await?))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

fn perform(operation: Operation) -> io::Result<Outcome> {
    match operation {
        Operation::Stat { path } => Ok(Outcome::Status(status(&fs::metadata(path)?))),
        Operation::Lstat { path } => Ok(Outcome::Status(status(&fs::symlink_metadata(path)?))),
        Operation::Readdir { path, recursive } => {
            let mut entries = Vec::new();
            list(&path, &path, recursive, &mut entries)?;
            Ok(Outcome::Entries(entries))
        }
        Operation::Mkdir {
            path,
            recursive,
            mode,
        } => make_folder(&path, recursive, mode),
        Operation::Rename { path, to } => fs::rename(path, to).map(|()| Outcome::Done),
        Operation::Rm {
            path,
            recursive,
            force,
        } => remove(&path, recursive, force).map(|()| Outcome::Done),
        Operation::Chmod { path, mode } => {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).map(|()| Outcome::Done)
        }
        Operation::Chown { path, uid, gid } => {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            fchownat(nix::fcntl::AT_FDCWD, &path, uid, gid, AtFlags::empty())?;
            Ok(Outcome::Done)
        }
        Operation::Symlink { path, target } => {
            std::os::unix::fs::symlink(target, path).map(|()| Outcome::Done)
        }
        Operation::Readlink { path } => {
            fs::read_link(path).map(|target| Outcome::Path(text_of(&target)))
        }
        Operation::Utimes {
            path,
            accessed,
            modified,
        } => {
            let flags = UtimensatFlags::FollowSymlink;
            let [accessed, modified] =
                [accessed, modified].map(|time| TimeSpec::new(time.seconds, time.nanoseconds));
            utimensat(nix::fcntl::AT_FDCWD, &path, &accessed, &modified, flags)?;
            Ok(Outcome::Done)
        }
    }
}

/// Like Node, names that are no UTF-8 come with replacement characters.
pub(super) fn text_of(path: &Path) -> String {
    String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned()
}

fn status(metadata: &fs::Metadata) -> Status {
    let time = |seconds, nanoseconds| Time {
        seconds,
        nanoseconds,
    };
    Status {
        dev: metadata.dev(),
        ino: metadata.ino(),
        mode: metadata.mode(),
        nlink: metadata.nlink(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: metadata.rdev(),
        size: metadata.size(),
        blksize: metadata.blksize(),
        blocks: metadata.blocks(),
        accessed: time(metadata.atime(), metadata.atime_nsec()),
        modified: time(metadata.mtime(), metadata.mtime_nsec()),
        changed: time(metadata.ctime(), metadata.ctime_nsec()),
    }
}

/// Symbolic links are entries, never followed.
fn list(root: &Path, folder: &Path, recursive: bool, entries: &mut Vec<Entry>) -> io::Result<()> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            // One that has gone meanwhile is not there.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            entries.push(Entry {
                name: text_of(path.strip_prefix(root).unwrap_or(&path)),
                kind: metadata.mode() & libc::S_IFMT,
            });
            if recursive && metadata.is_dir() {
                folders.push(path);
            }
        }
    }
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(())
}

/// Tells the first folder that was made.
fn make_folder(path: &Path, recursive: bool, mode: u32) -> io::Result<Outcome> {
    let mut builder = fs::DirBuilder::new();
    builder.mode(mode);
    if !recursive {
        builder.create(path)?;
        return Ok(Outcome::Path(text_of(path)));
    }
    let first = path
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
        .last();
    builder.recursive(true).create(path)?;
    Ok(first.map_or(Outcome::Done, |first| Outcome::Path(text_of(first))))
}

fn remove(path: &Path, recursive: bool, force: bool) -> io::Result<()> {
    let removed = fs::symlink_metadata(path).and_then(|metadata| match metadata.is_dir() {
        true if recursive => fs::remove_dir_all(path),
        true => Err(io::Error::from_raw_os_error(libc::EISDIR)),
        false => fs::remove_file(path),
    });
    match removed {
        Err(error) if force && error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// `GET /v1/file`: the content, or the part from `start` to `end`, inclusive.
pub(crate) async fn read(query: &Query) -> Result<Answer, Refusal> {
    let path = path_of(query)?;
    let start: u64 = query.number("start")?.unwrap_or(0);
    let left = match query.number::<u64>("end")? {
        Some(end) => end.saturating_add(1).saturating_sub(start),
        None => u64::MAX,
    };
    let file = blocking(move || {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::Error::from_raw_os_error(libc::EISDIR));
        }
        if start > 0 {
            file.seek(SeekFrom::Start(start))?;
        }
        Ok(file)
    })
    .await?;
    Ok(answer::stream(Content {
        file: Some(file),
        left,
        reading: None,
    }))
}

/// `PUT /v1/file`: the body becomes the content.
pub(crate) async fn write(query: &Query, mut body: Incoming) -> Result<Answer, Refusal> {
    let path = path_of(query)?;
    let mode = query.number("mode")?.unwrap_or(0o666);
    let start: Option<u64> = query.number("start")?;
    let mut options = OpenOptions::new();
    options
        .mode(mode)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
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
        file = blocking(move || file.write_all(&data).map(|()| file)).await?;
    }
    Ok(answer::done())
}

pub(super) fn path_of(query: &Query) -> Result<PathBuf, Refusal> {
    let bytes = query.needed("path")?;
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
}

/// What was read, with the file to read on.
type Piece = (File, Vec<u8>);

/// A file's content as a body: one piece is read when the host has room for it.
#[derive(Debug)]
struct Content {
    file: Option<File>,
    left: u64,
    reading: Option<JoinHandle<io::Result<Piece>>>,
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let content = self.get_mut();
        if let Some(mut file) = content.file.take() {
            let wanted = usize::try_from(content.left)
                .unwrap_or(PIECE_BYTES)
                .min(PIECE_BYTES);
            content.reading = Some(spawn_blocking(move || {
                let mut chunk = vec![0; wanted];
                let count = file.read(&mut chunk)?;
                chunk.truncate(count);
                Ok((file, chunk))
            }));
        }
        let Some(reading) = &mut content.reading else {
            return Poll::Ready(None);
        };
        let read = ready!(Pin::new(reading).poll(context));
        content.reading = None;
        match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok((_, chunk)) if chunk.is_empty() => Poll::Ready(None),
            Ok((file, chunk)) => {
                content.left = content.left.saturating_sub(chunk.len() as u64);
                content.file = (content.left > 0).then_some(file);
                Poll::Ready(Some(Ok(Frame::data(chunk.into()))))
            }
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }
}
