//! Makes an archive of a file or a folder, as it is asked for more.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{self, AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::decoder::{Entry, Kind};
use crate::encoder::write_entry;
use crate::header::{BLOCK, padding};
use crate::names::source_name;
use crate::numbers::Time;
use crate::pattern::Pattern;
use crate::sparse::{Segment, segments};
use crate::{Error, Progress};

/// Each folder on the way down is open.
const MAX_DEPTH: usize = 256;
/// Files with several names whose other names are still awaited; beyond it their content is packed again.
const MAX_LINKED: usize = 100_000;
const UNIT: u64 = 512;

/// What is packed, and how.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// A file or folder. A symbolic link is packed as one, unless a slash follows it.
    pub source: PathBuf,
    /// Patterns of what is left out.
    pub exclude: Vec<Vec<u8>>,
}

/// Packs one file or folder. Its names in the archive begin with [`source_name`], or with `.` where there is none.
#[derive(Debug)]
pub struct Packer {
    source: PathBuf,
    exclude: Vec<Pattern>,
    state: State,
    /// The folders on the way down, each inside of the one before it.
    levels: Vec<Level>,
    /// The source's own name in the archive, until it is packed.
    name: Vec<u8>,
    /// How much of a name the source's own is.
    own: usize,
    content: Option<Content>,
    linked: HashMap<(u64, u64), Linked>,
    progress: Progress,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    New,
    Going,
    Ended,
}

#[derive(Debug)]
struct Level {
    folder: Dir,
    /// Its name in the archive, with a slash at the end.
    name: Vec<u8>,
}

/// A file whose data is being packed.
#[derive(Debug)]
struct Content {
    file: OwnedFd,
    name: Vec<u8>,
    part: Segment,
    parts: std::vec::IntoIter<Segment>,
    padding: usize,
}

#[derive(Debug)]
struct Linked {
    name: Vec<u8>,
    /// Names that were not met yet.
    left: u64,
}

impl Packer {
    /// Nothing is looked at yet.
    #[must_use]
    pub fn new(options: PackOptions) -> Self {
        let own = source_name(options.source.as_os_str().as_bytes()).unwrap_or(b".").to_vec();
        Self {
            exclude: options.exclude.iter().map(|text| Pattern::new(text)).collect(),
            state: State::New,
            levels: Vec::new(),
            own: own.len() + 1,
            name: own,
            content: None,
            linked: HashMap::new(),
            progress: Progress::default(),
            source: options.source,
        }
    }

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Looks whether the source is there, so that this can be told before an archive begins.
    pub fn check(&self) -> Result<(), Error> {
        self.status_of_source().map(drop)
    }

    fn status_of_source(&self) -> Result<Stat, Error> {
        fs::statat(CWD, &self.source, AtFlags::SYMLINK_NOFOLLOW).map_err(|source| Error::File {
            syscall: "lstat",
            path: self.source.clone(),
            source,
        })
    }

    /// Appends the next bytes of the archive, about so many; false when it has ended.
    pub fn fill(&mut self, chunk: &mut Vec<u8>, wanted: usize) -> Result<bool, Error> {
        while chunk.len() < wanted {
            if self.content.is_some() {
                self.copy(chunk, wanted)?;
                continue;
            }
            match self.state {
                State::New => {
                    self.state = State::Going;
                    self.begin(chunk)?;
                }
                State::Going => {
                    if !self.next(chunk)? {
                        self.state = State::Ended;
                        chunk.resize(chunk.len() + 2 * BLOCK, 0);
                    }
                }
                State::Ended => return Ok(false),
            }
        }
        Ok(true)
    }

    fn begin(&mut self, chunk: &mut Vec<u8>) -> Result<(), Error> {
        let status = self.status_of_source()?;
        let path = self.source.clone();
        let path = path.as_os_str().as_bytes();
        let name = std::mem::take(&mut self.name);
        match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => {
                let level = self.enter(CWD, path, name, chunk)?;
                self.levels.extend(level);
            }
            FileType::RegularFile => self.open(CWD, path, name, chunk)?,
            _ => self.add(CWD, path, name, &status, chunk)?,
        }
        Ok(())
    }

    /// Goes on to the next entry; false when there is none.
    fn next(&mut self, chunk: &mut Vec<u8>) -> Result<bool, Error> {
        // Taken out, so that all else here can be used with it.
        let Some(mut level) = self.levels.pop() else {
            return Ok(false);
        };
        let entry = match level.folder.read() {
            None => return Ok(true),
            Some(Err(source)) => return Err(self.failed("scandir", &level.name, source)),
            Some(Ok(entry)) => entry,
        };
        let folder = level
            .folder
            .fd()
            .map_err(|source| self.failed("scandir", &level.name, source))?;
        let inner = self.visit(folder, &level.name, entry.file_name().to_bytes(), entry.file_type(), chunk)?;
        self.levels.push(level);
        if self.levels.len() >= MAX_DEPTH
            && let Some(inner) = &inner
        {
            return Err(self.failed("open", &inner.name, Errno::NAMETOOLONG));
        }
        self.levels.extend(inner);
        Ok(true)
    }

    /// Packs one entry of a folder. Gives what is to be gone through next, if it is a folder itself.
    fn visit(
        &mut self,
        folder: BorrowedFd<'_>,
        prefix: &[u8],
        file: &[u8],
        kind: FileType,
        chunk: &mut Vec<u8>,
    ) -> Result<Option<Level>, Error> {
        if matches!(file, b"." | b"..") {
            return Ok(None);
        }
        let name = [prefix, file].concat();
        let mut status = None;
        if !matches!(kind, FileType::Directory | FileType::RegularFile | FileType::Socket) {
            status = match fs::statat(folder, file, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(status) => Some(status),
                // It has gone meanwhile.
                Err(Errno::NOENT) => return Ok(None),
                Err(source) => return Err(self.failed("lstat", &name, source)),
            };
        }
        let kind = status.map_or(kind, |status| FileType::from_raw_mode(status.st_mode));
        let path = name.get(self.own..).unwrap_or_default();
        let is_folder = kind == FileType::Directory;
        if self.exclude.iter().any(|pattern| pattern.matches(path, is_folder)) {
            return Ok(None);
        }
        match (kind, status) {
            (FileType::Directory, _) => return self.enter(folder, file, name, chunk),
            (FileType::RegularFile, _) => self.open(folder, file, name, chunk)?,
            // Without its owner a socket is nothing.
            (FileType::Socket, _) | (_, None) => {}
            (_, Some(status)) => self.add(folder, file, name, &status, chunk)?,
        }
        Ok(None)
    }

    /// Packs a folder itself. `None` where it has gone meanwhile.
    fn enter(
        &mut self,
        folder: BorrowedFd<'_>,
        file: &[u8],
        mut name: Vec<u8>,
        chunk: &mut Vec<u8>,
    ) -> Result<Option<Level>, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match fs::openat(folder, file, flags, Mode::empty()) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !self.levels.is_empty() => return Ok(None),
            Err(source) => return Err(self.failed("scandir", &name, source)),
        };
        let status = fs::fstat(&opened).map_err(|source| self.failed("fstat", &name, source))?;
        name.push(b'/');
        self.header(entry_of(Kind::Folder, &name, &status), chunk);
        let folder = Dir::new(opened).map_err(|source| self.failed("scandir", &name, source))?;
        Ok(Some(Level { folder, name }))
    }

    /// Packs the header of a file, and leaves its content to be packed next.
    fn open(
        &mut self,
        folder: BorrowedFd<'_>,
        file: &[u8],
        name: Vec<u8>,
        chunk: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = match fs::openat(folder, file, flags, Mode::empty()) {
            Ok(opened) => opened,
            // It has gone meanwhile, or is something else now.
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(()),
            Err(source) => return Err(self.failed("open", &name, source)),
        };
        let status = fs::fstat(&opened).map_err(|source| self.failed("fstat", &name, source))?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile || self.is_linked(&name, &status, chunk) {
            return Ok(());
        }
        let mut entry = entry_of(Kind::File, &name, &status);
        let size = entry.size;
        let allocated = u64::try_from(status.st_blocks).unwrap_or(0).saturating_mul(UNIT);
        if allocated < size {
            entry.segments = segments(&opened, size).map_err(|source| self.failed("lseek", &name, source))?;
            let is_whole = |parts: &Vec<Segment>| parts.as_slice() == [Segment { offset: 0, length: size }];
            entry.segments = entry.segments.filter(|parts| !is_whole(parts));
        }
        let parts = entry.segments.clone().unwrap_or_else(|| vec![Segment { offset: 0, length: size }]);
        let stored = parts.iter().fold(0, |sum: u64, part| sum.saturating_add(part.length));
        self.header(entry, chunk);
        self.content = Some(Content {
            file: opened,
            name,
            part: Segment { offset: 0, length: 0 },
            parts: parts.into_iter(),
            padding: padding(stored),
        });
        Ok(())
    }

    /// A name of a file that was packed by another name is a link to that one.
    fn is_linked(&mut self, name: &[u8], status: &Stat, chunk: &mut Vec<u8>) -> bool {
        if status.st_nlink < 2 {
            return false;
        }
        let key = (status.st_dev, status.st_ino);
        if let Some(linked) = self.linked.get_mut(&key) {
            let mut entry = entry_of(Kind::HardLink, name, status);
            entry.link.clone_from(&linked.name);
            linked.left = linked.left.saturating_sub(1);
            if linked.left == 0 {
                self.linked.remove(&key);
            }
            self.header(entry, chunk);
            return true;
        }
        if self.linked.len() < MAX_LINKED {
            let left = status.st_nlink - 1;
            self.linked.insert(key, Linked { name: name.to_vec(), left });
        }
        false
    }

    /// Packs what has no content.
    fn add(
        &mut self,
        folder: BorrowedFd<'_>,
        file: &[u8],
        name: Vec<u8>,
        status: &Stat,
        chunk: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let kind = match FileType::from_raw_mode(status.st_mode) {
            FileType::Symlink => Kind::SymbolicLink,
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice => Kind::CharacterDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            _ => return Ok(()),
        };
        let mut entry = entry_of(kind, &name, status);
        if kind == Kind::SymbolicLink {
            let target = match fs::readlinkat(folder, file, Vec::new()) {
                Ok(target) => target,
                Err(Errno::NOENT | Errno::INVAL) => return Ok(()),
                Err(source) => return Err(self.failed("readlink", &name, source)),
            };
            entry.link = target.into_bytes();
        }
        self.header(entry, chunk);
        Ok(())
    }

    fn header(&mut self, entry: Entry, chunk: &mut Vec<u8>) {
        write_entry(chunk, &entry);
        self.progress.entries += 1;
        self.progress.name = entry.name;
    }

    /// Appends more of the open file's content, or ends it.
    fn copy(&mut self, chunk: &mut Vec<u8>, wanted: usize) -> Result<(), Error> {
        let Some(content) = &mut self.content else { return Ok(()) };
        let Segment { offset, length } = content.part;
        if length == 0 {
            match content.parts.next() {
                Some(part) => content.part = part,
                None => {
                    chunk.resize(chunk.len() + content.padding, 0);
                    self.content = None;
                }
            }
            return Ok(());
        }
        let room = wanted.saturating_sub(chunk.len());
        let count = usize::try_from(length).unwrap_or(usize::MAX).min(room);
        match append(chunk, count, &content.file, offset) {
            Err(Errno::INTR) => {}
            Err(source) => {
                let name = std::mem::take(&mut content.name);
                return Err(self.failed("read", &name, source));
            }
            // Its length was told already.
            Ok(0) => {
                let name = std::mem::take(&mut content.name);
                return Err(Error::Changed { path: self.whole(&name) });
            }
            Ok(read) => {
                content.part = Segment {
                    offset: offset.saturating_add(read as u64),
                    length: length.saturating_sub(read as u64),
                };
                self.progress.bytes = self.progress.bytes.saturating_add(read as u64);
            }
        }
        Ok(())
    }

    fn failed(&self, syscall: &'static str, name: &[u8], source: Errno) -> Error {
        Error::File {
            syscall,
            path: self.whole(name),
            source,
        }
    }

    /// The whole path of what has this name in the archive, for messages.
    fn whole(&self, name: &[u8]) -> PathBuf {
        match name.get(self.own..).filter(|rest| !rest.is_empty()) {
            Some(rest) => self.source.join(std::ffi::OsStr::from_bytes(rest)),
            None => self.source.clone(),
        }
    }
}

/// Reads behind the end of a buffer, no more than so many bytes.
fn append(chunk: &mut Vec<u8>, count: usize, file: &OwnedFd, offset: u64) -> Result<usize, Errno> {
    let start = chunk.len();
    chunk.resize(start + count, 0);
    let room = chunk.get_mut(start..).unwrap_or_default();
    let read = rustix::io::pread(file, room, offset);
    chunk.truncate(start + read.unwrap_or(0));
    read
}

fn entry_of(kind: Kind, name: &[u8], status: &Stat) -> Entry {
    let is_device = matches!(kind, Kind::CharacterDevice | Kind::BlockDevice);
    let device = if is_device { status.st_rdev } else { 0 };
    // The kernel's fields are unsigned for what may be before 1970.
    let seconds = status.st_mtime as i64;
    Entry {
        kind,
        name: name.to_vec(),
        link: Vec::new(),
        mode: status.st_mode & 0o7777,
        uid: status.st_uid,
        gid: status.st_gid,
        modified: Time {
            seconds,
            nanoseconds: u32::try_from(status.st_mtime_nsec).unwrap_or(0),
        },
        size: match kind {
            Kind::File => u64::try_from(status.st_size).unwrap_or(0),
            _ => 0,
        },
        segments: None,
        device: (fs::major(device), fs::minor(device)),
    }
}
