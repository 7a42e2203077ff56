//! Files of the guest: one request for each operation of `node:fs`. Their contents are `content`'s.
//!
//! Calls that may block are made on the runtime's threads for such calls. Nothing here waits for a peer.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hyper::body::Incoming;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{AccessFlags, Gid, Uid, access, fchownat, truncate};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::answer::{Answer, Refusal};
use super::copy_file::copy_file;
use super::lasting;
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
    /// May root do that?
    Access {
        path: PathBuf,
        mode: i32,
    },
    Realpath {
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
    /// `exclusive`: `to` may not be there.
    CopyFile {
        path: PathBuf,
        to: PathBuf,
        exclusive: bool,
    },
    /// A hard link: `to` is the new name.
    Link {
        path: PathBuf,
        to: PathBuf,
    },
    Truncate {
        path: PathBuf,
        size: i64,
    },
    /// Six characters are put behind the path.
    Mkdtemp {
        path: String,
    },
    Rm {
        path: PathBuf,
        recursive: bool,
        force: bool,
    },
    /// An empty folder.
    Rmdir {
        path: PathBuf,
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
    lasting::json(blocking(move || perform(operation))).await
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

fn perform(operation: Operation) -> io::Result<Outcome> {
    match operation {
        Operation::Stat { path } => Ok(Outcome::Status(status(&fs::metadata(path)?))),
        Operation::Lstat { path } => Ok(Outcome::Status(status(&fs::symlink_metadata(path)?))),
        Operation::Access { path, mode } => {
            access(&path, AccessFlags::from_bits(mode).ok_or(Errno::EINVAL)?)?;
            Ok(Outcome::Done)
        }
        Operation::Realpath { path } => {
            fs::canonicalize(path).map(|path| Outcome::Path(text_of(&path)))
        }
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
        Operation::CopyFile {
            path,
            to,
            exclusive,
        } => copy_file(&path, &to, exclusive).map(|()| Outcome::Done),
        Operation::Link { path, to } => fs::hard_link(path, to).map(|()| Outcome::Done),
        Operation::Truncate { path, size } => {
            truncate(&path, size)?;
            Ok(Outcome::Done)
        }
        Operation::Mkdtemp { path } => {
            let made = nix::unistd::mkdtemp(format!("{path}XXXXXX").as_str())?;
            Ok(Outcome::Path(text_of(&made)))
        }
        Operation::Rm {
            path,
            recursive,
            force,
        } => remove(&path, recursive, force).map(|()| Outcome::Done),
        Operation::Rmdir { path } => fs::remove_dir(path).map(|()| Outcome::Done),
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

pub(super) fn path_of(query: &Query) -> Result<PathBuf, Refusal> {
    let bytes = query.needed("path")?;
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
}
