//! Makes an archive of a file or a folder, as it is asked for more.

use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{self, AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::content::{Read, Source};
use crate::decoder::{Entry, Kind};
use crate::encoder::write_entry;
use crate::found::{entry_of, special};
use crate::header::{BLOCK, padding};
use crate::linked::Linked;
use crate::names::source_name;
use crate::pattern::Pattern;
use crate::sparse::segments;
use crate::{Error, Progress};

/// Each folder on the way down is open.
const MAX_DEPTH: usize = 256;
/// What the blocks of a status are counted in.
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
    /// The file that is being packed, and the zeros that follow its data.
    content: Option<(Source, usize)>,
    linked: Linked,
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

impl Packer {
    /// Nothing is looked at yet.
    #[must_use]
    pub fn new(options: PackOptions) -> Self {
        let own = source_name(options.source.as_os_str().as_bytes())
            .unwrap_or(b".")
            .to_vec();
        Self {
            exclude: options
                .exclude
                .iter()
                .map(|text| Pattern::new(text))
                .collect(),
            state: State::New,
            levels: Vec::new(),
            own: own.len() + 1,
            name: own,
            content: None,
            linked: Linked::default(),
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
            FileType::Socket => return Err(self.failed("open", &name, Errno::NXIO)),
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
        let inner = self.visit(
            folder,
            &level.name,
            entry.file_name().to_bytes(),
            entry.file_type(),
            chunk,
        )?;
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
        if !matches!(
            kind,
            FileType::Directory | FileType::RegularFile | FileType::Socket
        ) {
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
        if self
            .exclude
            .iter()
            .any(|pattern| pattern.matches(path, is_folder))
        {
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
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !self.levels.is_empty() => {
                return Ok(None);
            }
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
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = match fs::openat(folder, file, flags, Mode::empty()) {
            Ok(opened) => opened,
            // It has gone meanwhile, or is something else now.
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(()),
            Err(source) => return Err(self.failed("open", &name, source)),
        };
        let status = fs::fstat(&opened).map_err(|source| self.failed("fstat", &name, source))?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        if let Some(link) = self.linked.first_name(&name, &status) {
            let kind = Kind::HardLink;
            self.header(
                Entry {
                    link,
                    ..entry_of(kind, &name, &status)
                },
                chunk,
            );
            return Ok(());
        }
        let mut entry = entry_of(Kind::File, &name, &status);
        let size = entry.size;
        let blocks = u64::try_from(status.st_blocks).unwrap_or(0);
        if blocks.saturating_mul(UNIT) < size {
            entry.segments =
                segments(&opened, size).map_err(|source| self.failed("lseek", &name, source))?;
        }
        let parts = entry.segments.clone();
        let stored = match &parts {
            Some(parts) => parts
                .iter()
                .fold(0, |sum: u64, part| sum.saturating_add(part.length)),
            None => size,
        };
        self.header(entry, chunk);
        self.content = Some((Source::new(opened, name, parts, size), padding(stored)));
        Ok(())
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
        match special(folder, file, &name, status) {
            Ok(Some(entry)) => self.header(entry, chunk),
            Ok(None) => {}
            Err(source) => return Err(self.failed("readlink", &name, source)),
        }
        Ok(())
    }

    fn header(&mut self, entry: Entry, chunk: &mut Vec<u8>) {
        write_entry(chunk, &entry);
        self.progress.entries += 1;
        self.progress.name = entry.name;
    }

    /// Appends more of the open file's content, or ends it.
    fn copy(&mut self, chunk: &mut Vec<u8>, wanted: usize) -> Result<(), Error> {
        let Some((source, padding)) = &mut self.content else {
            return Ok(());
        };
        let read = source.read(chunk, wanted.saturating_sub(chunk.len()));
        match read {
            Ok(Read::Some(count)) => {
                self.progress.bytes = self.progress.bytes.saturating_add(count as u64);
            }
            Ok(Read::End) => {
                chunk.resize(chunk.len().saturating_add(*padding), 0);
                self.content = None;
            }
            // Its length was told already.
            Ok(Read::Short) => {
                let name = std::mem::take(&mut source.name);
                return Err(Error::Changed {
                    path: self.whole(&name),
                });
            }
            Err(error) => {
                let name = std::mem::take(&mut source.name);
                return Err(self.failed("read", &name, error));
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
