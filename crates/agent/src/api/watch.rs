//! `GET /v1/watch`: what changes at a path, as lines of JSON, by inotify.
//!
//! Nobody has to read them: what the host does not take waits in the kernel's queue, and when that is full the loss is told.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use serde::Serialize;
use tokio::task::{JoinHandle, spawn_blocking};

use super::answer::{self, Answer, Refusal};
use super::files::{path_of, text_of};
use super::query::Query;
use super::watched::{Watched, watch as watch_descriptor};

/// What Node watches for.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_ATTRIB
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_MODIFY)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_MOVED_TO);
/// Those of a content; all others are of names.
const OF_CONTENT: AddWatchFlags = AddWatchFlags::IN_ATTRIB.union(AddWatchFlags::IN_MODIFY);
const APPEARS: AddWatchFlags = AddWatchFlags::IN_CREATE.union(AddWatchFlags::IN_MOVED_TO);
/// Folders in a tree that is watched: links are not followed, and what is no folder is seen from the one above.
const FOLDERS_ONLY: AddWatchFlags = AddWatchFlags::IN_ONLYDIR.union(AddWatchFlags::IN_DONT_FOLLOW);

/// A line of the answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase", untagged)]
enum Line<'a> {
    #[serde(rename_all = "camelCase")]
    Event {
        event_type: &'static str,
        filename: &'a str,
    },
    Overflow {
        overflow: bool,
    },
}

/// `GET /v1/watch`. Answered when everything is watched.
pub(crate) async fn watch(query: &Query) -> Result<Answer, Refusal> {
    let path = path_of(query)?;
    let recursive = query.text("recursive") == Some("true");
    let watches = spawn_blocking(move || Watches::new(path, recursive))
        .await
        .map_err(io::Error::other)??;
    let readable = watch_descriptor(watches.inotify.as_fd().try_clone_to_owned()?)?;
    Ok(answer::stream(Watching {
        readable,
        watches: Some(watches),
        working: None,
    }))
}

/// What is watched.
#[derive(Debug)]
struct Watches {
    inotify: Inotify,
    root: PathBuf,
    recursive: bool,
    /// By their watches: folders relative to the root, which is empty.
    folders: HashMap<WatchDescriptor, PathBuf>,
}

impl Watches {
    fn new(root: PathBuf, recursive: bool) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let mut watches = Self {
            recursive: recursive && fs::metadata(&root)?.is_dir(),
            inotify,
            root,
            folders: HashMap::new(),
        };
        let descriptor = watches.inotify.add_watch(&watches.root, CHANGES)?;
        watches.folders.insert(descriptor, PathBuf::new());
        watches.add_below(Path::new(""), &mut |_| {})?;
        Ok(watches)
    }

    /// Watches all folders in a folder, at any depth; `found` hears of everything that is in there.
    fn add_below(&mut self, folder: &Path, found: &mut dyn FnMut(&Path)) -> io::Result<()> {
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop().filter(|_| self.recursive) {
            // One that has gone meanwhile is not there.
            let Ok(entries) = fs::read_dir(self.root.join(&folder)) else {
                continue;
            };
            for entry in entries.flatten() {
                let path = folder.join(entry.file_name());
                found(&path);
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) && self.add(&path)? {
                    folders.push(path);
                }
            }
        }
        Ok(())
    }

    /// Watches a folder; false where it has gone meanwhile.
    fn add(&mut self, folder: &Path) -> io::Result<bool> {
        match self
            .inotify
            .add_watch(&self.root.join(folder), CHANGES | FOLDERS_ONLY)
        {
            Ok(descriptor) => {
                self.folders.insert(descriptor, folder.to_owned());
                Ok(true)
            }
            Err(Errno::ENOSPC) => Err(Errno::ENOSPC.into()),
            Err(_gone) => Ok(false),
        }
    }

    /// What was moved away is somebody else's.
    fn forget(&mut self, folder: &Path) {
        let inotify = &self.inotify;
        self.folders.retain(|descriptor, path| {
            let stays = !path.starts_with(folder);
            if !stays {
                let _ = inotify.rm_watch(*descriptor);
            }
            stays
        });
    }

    /// The lines that events make. New folders are watched, and what is in them already is told: it came before the watch.
    fn take(&mut self, events: Vec<InotifyEvent>) -> Vec<u8> {
        let mut lines = Vec::new();
        for event in events {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                write(&mut lines, &Line::Overflow { overflow: true });
                // Folders may have come that nobody heard of.
                let _ = self.add_below(Path::new(""), &mut |_| {});
                continue;
            }
            if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                self.folders.remove(&event.wd);
                continue;
            }
            let Some(folder) = self.folders.get(&event.wd) else {
                continue;
            };
            let path = match &event.name {
                Some(name) => folder.join(name),
                // It is told by the folder above, where that is watched too.
                None if !folder.as_os_str().is_empty() => continue,
                None => PathBuf::from(self.root.file_name().unwrap_or_default()),
            };
            let event_type = if event.mask.intersects(OF_CONTENT) {
                "change"
            } else {
                "rename"
            };
            tell(&mut lines, event_type, &path);
            if !self.recursive
                || !event.mask.contains(AddWatchFlags::IN_ISDIR)
                || event.name.is_none()
            {
                continue;
            }
            if event.mask.contains(AddWatchFlags::IN_MOVED_FROM) {
                self.forget(&path);
            }
            if event.mask.intersects(APPEARS) {
                let added = self.add(&path).and_then(|_| {
                    self.add_below(&path, &mut |found| tell(&mut lines, "rename", found))
                });
                if added.is_err() {
                    // The guest's limit of watches is reached: events will be missing from here on.
                    write(&mut lines, &Line::Overflow { overflow: true });
                }
            }
        }
        lines
    }
}

fn tell(lines: &mut Vec<u8>, event_type: &'static str, path: &Path) {
    let filename = &text_of(path);
    write(
        lines,
        &Line::Event {
            event_type,
            filename,
        },
    );
}

fn write(lines: &mut Vec<u8>, line: &Line<'_>) {
    // Writing plain structures to memory cannot fail.
    let _ = serde_json::to_writer(&mut *lines, line);
    lines.push(b'\n');
}

/// The answer's body.
#[derive(Debug)]
struct Watching {
    readable: Watched,
    watches: Option<Watches>,
    /// Takes events in where folders have to be gone through for it, which may block.
    working: Option<JoinHandle<(Watches, Vec<u8>)>>,
}

impl Body for Watching {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let body = self.get_mut();
        loop {
            if let Some(working) = &mut body.working {
                let worked = ready!(Pin::new(working).poll(context));
                body.working = None;
                let lines = match worked {
                    Ok((watches, lines)) => {
                        body.watches = Some(watches);
                        lines
                    }
                    Err(error) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                };
                if !lines.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(lines.into()))));
                }
            }
            let Some(watches) = &body.watches else {
                return Poll::Ready(None);
            };
            let mut readable = ready!(body.readable.poll_read_ready(context))?;
            let Ok(events) = readable.try_io(|_| Ok(watches.inotify.read_events()?)) else {
                continue;
            };
            let events = events?;
            if let Some(mut watches) = body.watches.take() {
                body.working = Some(spawn_blocking(move || {
                    let lines = watches.take(events);
                    (watches, lines)
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines that are there, without waiting.
    fn lines(watches: &mut Watches) -> Vec<(String, String)> {
        let mut all = Vec::new();
        while let Ok(events) = watches.inotify.read_events() {
            all.extend(watches.take(events));
        }
        let text = String::from_utf8(all).unwrap();
        text.lines()
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                let field = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
                (field("eventType"), field("filename"))
            })
            .collect()
    }

    fn has(lines: &[(String, String)], event_type: &str, name: &str) -> bool {
        lines
            .iter()
            .any(|(kind, own)| kind == event_type && own == name)
    }

    #[test]
    fn a_folder_tells_of_its_files_and_not_of_those_below() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        let mut watches = Watches::new(folder.path().to_owned(), false).unwrap();
        fs::write(folder.path().join("file"), "x").unwrap();
        fs::write(folder.path().join("inner/file"), "x").unwrap();
        let told = lines(&mut watches);
        assert!(
            has(&told, "rename", "file") && has(&told, "change", "file"),
            "{told:?}"
        );
        assert!(!has(&told, "rename", "inner/file"), "{told:?}");
        fs::remove_file(folder.path().join("file")).unwrap();
        assert_eq!(
            lines(&mut watches),
            [("rename".to_owned(), "file".to_owned())]
        );
    }

    #[test]
    fn a_tree_tells_of_folders_that_come_and_no_more_of_those_that_go() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir_in(folder.path().parent().unwrap()).unwrap();
        let mut watches = Watches::new(folder.path().to_owned(), true).unwrap();
        fs::create_dir_all(folder.path().join("a/b/c")).unwrap();
        let told = lines(&mut watches);
        for name in ["a", "a/b", "a/b/c"] {
            assert!(has(&told, "rename", name), "{name} in {told:?}");
        }
        fs::write(folder.path().join("a/b/c/file"), "x").unwrap();
        assert!(has(&lines(&mut watches), "change", "a/b/c/file"));
        fs::rename(folder.path().join("a"), elsewhere.path().join("a")).unwrap();
        assert!(has(&lines(&mut watches), "rename", "a"));
        fs::write(elsewhere.path().join("a/b/c/file"), "y").unwrap();
        assert_eq!(lines(&mut watches), []);
        assert_eq!(watches.folders.len(), 1);
        fs::rename(elsewhere.path().join("a"), folder.path().join("again")).unwrap();
        assert!(has(&lines(&mut watches), "rename", "again/b/c/file"));
    }

    #[test]
    fn a_file_alone_has_its_own_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "x").unwrap();
        let mut watches = Watches::new(path.clone(), true).unwrap();
        fs::write(&path, "yy").unwrap();
        assert!(has(&lines(&mut watches), "change", "file"));
        assert!(Watches::new(folder.path().join("none"), false).is_err());
    }
}
