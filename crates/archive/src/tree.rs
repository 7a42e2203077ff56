//! The folder that an archive is unpacked into. All paths are relative to its descriptor, and no step follows a link:
//! neither one that the archive has made, nor one that was there.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::Error;
use crate::names::components;

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Until it is whole nobody else looks into it.
const UNFINISHED: Mode = Mode::RWXU;

/// Where the entries of an archive go.
#[derive(Debug)]
pub(crate) struct Tree {
    /// As it was given, for messages.
    path: PathBuf,
    root: OwnedFd,
    /// All names must begin with this one, which is then left out.
    prefix: Option<Vec<u8>>,
    /// And this one takes its place.
    top: Option<Vec<u8>>,
    /// The folder that was used last: most entries lie where the one before them does.
    last: Option<(Vec<u8>, OwnedFd)>,
    /// Folders that were made though the archive does not list them.
    implied: Cell<u64>,
}

/// Whether a folder had to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    Now,
    Before,
}

impl Tree {
    /// Decides where an archive goes that begins with a folder, or with something else. As `docker cp` has it: into a folder
    /// that is there, under the source's `name`; else the destination is what the copy is called. Without a name the
    /// contents go into the destination itself.
    pub(crate) fn find(
        destination: &Path,
        name: Option<&[u8]>,
        first_is_folder: bool,
    ) -> Result<(Self, Made), Error> {
        let failed = |syscall, source| Error::File {
            syscall,
            path: destination.to_owned(),
            source,
        };
        let tree = |path: &Path, root, top: Option<&[u8]>| Self {
            path: path.to_owned(),
            root,
            prefix: name.map(<[u8]>::to_vec),
            top: top.map(<[u8]>::to_vec),
            last: None,
            implied: Cell::new(0),
        };
        match fs::openat(CWD, destination, FOLDER, Mode::empty()) {
            Ok(root) => return Ok((tree(destination, root, name), Made::Before)),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(source) => return Err(failed("open", source)),
        }
        if first_is_folder || name.is_none() {
            fs::mkdirat(CWD, destination, UNFINISHED).map_err(|source| match source {
                // What is there is not a folder.
                Errno::EXIST => failed("mkdir", Errno::NOTDIR),
                source => failed("mkdir", source),
            })?;
            let root = fs::openat(CWD, destination, FOLDER | OFlags::NOFOLLOW, Mode::empty())
                .map_err(|source| failed("open", source))?;
            return Ok((tree(destination, root, None), Made::Now));
        }
        // `file_name` passes over a slash at the end, which says that a folder is meant.
        let own = destination
            .file_name()
            .filter(|_| !destination.as_os_str().as_bytes().ends_with(b"/"))
            .ok_or_else(|| failed("open", Errno::NOTDIR))?;
        let folder = match destination.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let root = fs::openat(CWD, folder, FOLDER, Mode::empty())
            .map_err(|source| failed("open", source))?;
        Ok((tree(folder, root, Some(own.as_bytes())), Made::Before))
    }

    /// How many folders were made that the archive does not list.
    pub(crate) fn implied(&self) -> u64 {
        self.implied.get()
    }

    /// Where an entry goes, relative to the root; empty for the root itself.
    pub(crate) fn place(&self, name: &[u8]) -> Result<Vec<u8>, Error> {
        let mut parts = components(name)?;
        if let Some(prefix) = &self.prefix {
            if parts.first() != Some(&prefix.as_slice()) {
                return Err(Error::refused(name, "it is no part of what was asked for"));
            }
            parts.remove(0);
        }
        if let Some(top) = &self.top {
            parts.insert(0, top);
        }
        Ok(parts.join(&b'/'))
    }

    /// The whole path of a place, for messages.
    pub(crate) fn whole(&self, place: &[u8]) -> PathBuf {
        if place.is_empty() {
            return self.path.clone();
        }
        self.path.join(std::ffi::OsStr::from_bytes(place))
    }

    pub(crate) fn failed(&self, syscall: &'static str, place: &[u8], source: Errno) -> Error {
        Error::File {
            syscall,
            path: self.whole(place),
            source,
        }
    }

    /// The folder that a place lies in, opened, and its name there.
    pub(crate) fn folder_of<'a>(
        &mut self,
        place: &'a [u8],
    ) -> Result<(BorrowedFd<'_>, &'a [u8]), Error> {
        let (folder, name) = split(place);
        let is_last = self.last.as_ref().is_some_and(|(path, _)| path == folder);
        if !is_last {
            let opened = self.open_folder(folder)?;
            self.last = Some((folder.to_vec(), opened));
        }
        match &self.last {
            Some((_, descriptor)) => Ok((descriptor.as_fd(), name)),
            None => Ok((self.root.as_fd(), name)),
        }
    }

    /// Opens a folder step by step; those that are missing are made, for archives that do not list them.
    fn open_folder(&self, path: &[u8]) -> Result<OwnedFd, Error> {
        let (mut current, mut done) = match &self.last {
            // From the last one, where it lies on the way.
            Some((last, descriptor)) if is_inside(path, last) => {
                (open_step(descriptor, b"."), last.len())
            }
            _ => (open_step(&self.root, b"."), 0),
        };
        let rest = path.get(done..).unwrap_or_default();
        for part in rest
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty())
        {
            let folder = current.map_err(|source| {
                self.failed("open", path.get(..done).unwrap_or_default(), source)
            })?;
            done += part.len() + usize::from(done > 0);
            let here = path.get(..done).unwrap_or(path);
            current = match open_step(&folder, part) {
                Err(Errno::NOENT) => {
                    fs::mkdirat(&folder, part, Mode::from_raw_mode(0o755))
                        .map_err(|source| self.failed("mkdir", here, source))?;
                    self.implied.set(self.implied.get().saturating_add(1));
                    open_step(&folder, part)
                }
                Err(Errno::NOTDIR) => return Err(self.not_a_folder(&folder, part, here)),
                opened => opened,
            };
        }
        current.map_err(|source| self.failed("open", path, source))
    }

    /// What is in the way of a folder.
    fn not_a_folder(&self, folder: impl AsFd, name: &[u8], place: &[u8]) -> Error {
        match kind_of(folder, name) {
            Ok(FileType::Symlink) => Error::refused(
                self.whole(place).as_os_str().as_bytes(),
                "a symbolic link is in its way, which is not followed",
            ),
            _ => self.failed("open", place, Errno::NOTDIR),
        }
    }

    /// Makes a folder, which only this user can use until it is whole.
    pub(crate) fn make_folder(&mut self, place: &[u8]) -> Result<Made, Error> {
        let (folder, name) = self.folder_of(place)?;
        match fs::mkdirat(folder, name, UNFINISHED) {
            Ok(()) => Ok(Made::Now),
            Err(Errno::EXIST) if matches!(kind_of(folder, name), Ok(FileType::Directory)) => {
                Ok(Made::Before)
            }
            Err(Errno::EXIST) => {
                let folder = folder.try_clone_to_owned();
                Err(match folder {
                    Ok(folder) => self.not_a_folder(&folder, name, place),
                    Err(_) => self.failed("mkdir", place, Errno::NOTDIR),
                })
            }
            Err(source) => Err(self.failed("mkdir", place, source)),
        }
    }

    /// Opens a folder so that its mode and times can be set.
    pub(crate) fn open_to_finish(&mut self, place: &[u8]) -> Result<OwnedFd, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let is_last = self.last.as_ref().is_some_and(|(path, _)| path == place);
        let opened = match &self.last {
            Some((_, descriptor)) if is_last => fs::openat(descriptor, ".", flags, Mode::empty()),
            _ if place.is_empty() => fs::openat(&self.root, ".", flags, Mode::empty()),
            _ => {
                let (folder, name) = self.folder_of(place)?;
                fs::openat(folder, name, flags, Mode::empty())
            }
        };
        opened.map_err(|source| self.failed("open", place, source))
    }

    /// Does what makes a new thing at a place; what is there already is removed first, if it is a file or a link.
    pub(crate) fn create<T>(
        &mut self,
        place: &[u8],
        syscall: &'static str,
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<T, Error> {
        let (folder, name) = self.folder_of(place)?;
        let made = match make(folder, name) {
            Err(Errno::EXIST) => clear(folder, name).and_then(|()| make(folder, name)),
            made => made,
        };
        made.map_err(|source| self.failed(syscall, place, source))
    }

    /// Makes another name of a file that lies in the tree already.
    pub(crate) fn link(&mut self, target: &[u8], place: &[u8]) -> Result<(), Error> {
        let (folder, name) = split(target);
        // What it links to has to be there: no folder is made for it.
        let folder = self.open_folder(folder)?;
        self.create(place, "link", |to, own| {
            fs::linkat(&folder, name, to, own, AtFlags::empty())
        })
    }
}

fn open_step(folder: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    fs::openat(folder, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())
}

fn kind_of(folder: impl AsFd, name: &[u8]) -> Result<FileType, Errno> {
    let status = fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(status.st_mode))
}

/// Files and links give way. Folders do not, and neither do devices, which nobody wants replaced by a file.
fn clear(folder: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match kind_of(folder, name)? {
        FileType::RegularFile | FileType::Symlink => fs::unlinkat(folder, name, AtFlags::empty()),
        FileType::Directory => Err(Errno::ISDIR),
        _ => Err(Errno::EXIST),
    }
}

/// The folder of a place, and the name in it.
fn split(place: &[u8]) -> (&[u8], &[u8]) {
    match place.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (
            place.get(..slash).unwrap_or_default(),
            place.get(slash + 1..).unwrap_or_default(),
        ),
        None => (&[], place),
    }
}

/// Whether a place lies in a folder, at any depth.
pub(crate) fn is_inside(place: &[u8], folder: &[u8]) -> bool {
    folder.is_empty()
        || place
            .strip_prefix(folder)
            .is_some_and(|rest| rest.starts_with(b"/"))
}
