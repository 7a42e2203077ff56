//! Makes files of an archive that comes bit by bit.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use crate::decoder::{Decoder, Entry, Event, Kind};
use crate::sparse::Segment;
use crate::tree::{Made, Tree, is_inside};
use crate::{Error, Progress};

/// Set-user-id and set-group-id: they mean the owner, and go with it.
const SET_ID: u32 = 0o6000;

/// How an archive is unpacked.
#[derive(Debug, Clone)]
pub struct UnpackOptions {
    /// Where to.
    pub destination: PathBuf,
    /// What all names in the archive must begin with; see [`crate::source_name`].
    pub name: Option<Vec<u8>>,
    /// Give files the owners that the archive names, and keep their set-id bits.
    pub owner: bool,
    /// Make devices too.
    pub devices: bool,
    /// The most content there may be, holes included.
    pub max_bytes: u64,
    /// The most files, folders and links there may be.
    pub max_entries: u64,
}

/// Unpacks one archive. Dropped early, what was made by then stays.
#[derive(Debug)]
pub struct Unpacker {
    options: UnpackOptions,
    decoder: Decoder,
    tree: Option<Tree>,
    open: Option<OpenFile>,
    /// Folders that were made and are not whole yet, each inside of the one before it.
    folders: Vec<Folder>,
    /// The path of the last of them.
    folder: Vec<u8>,
    /// Content announced so far, holes included.
    announced: u64,
    progress: Progress,
}

#[derive(Debug)]
struct OpenFile {
    file: OwnedFd,
    place: Vec<u8>,
    entry: Box<Entry>,
    /// Where the next data goes, and how much of it before the next part.
    part: Segment,
    parts: std::vec::IntoIter<Segment>,
}

/// A folder gets its mode and times when nothing more comes into it.
#[derive(Debug)]
struct Folder {
    /// Bytes of [`Unpacker::folder`] that are its path.
    length: usize,
    entry: Box<Entry>,
}

impl Unpacker {
    /// Nothing is looked at before the first entry has come.
    #[must_use]
    pub fn new(options: UnpackOptions) -> Self {
        Self {
            options,
            decoder: Decoder::new(),
            tree: None,
            open: None,
            folders: Vec::new(),
            folder: Vec::new(),
            announced: 0,
            progress: Progress::default(),
        }
    }

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Takes the next bytes of the archive, however many. After an error it takes no more.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while let Some(event) = self.decoder.next(&mut bytes)? {
            match event {
                Event::Entry(entry) => self.begin(entry)?,
                Event::Data(data) => self.write(data)?,
                Event::EndOfFile => self.end_file()?,
            }
        }
        Ok(())
    }

    /// The archive has ended: what waits for that is done.
    pub fn finish(mut self) -> Result<Progress, Error> {
        if !self.decoder.is_at_end() {
            return Err(Error::Truncated);
        }
        while let Some(folder) = self.folders.pop() {
            self.end_folder(folder)?;
        }
        Ok(std::mem::take(&mut self.progress))
    }

    fn begin(&mut self, entry: Box<Entry>) -> Result<(), Error> {
        self.count(&entry)?;
        let is_folder = entry.kind == Kind::Folder;
        let mut made = Made::Before;
        if self.tree.is_none() {
            let UnpackOptions { destination, name, .. } = &self.options;
            let (tree, root) = Tree::find(destination, name.as_deref(), is_folder)?;
            self.tree = Some(tree);
            made = root;
        }
        let Some(tree) = &mut self.tree else { return Ok(()) };
        let place = tree.place(&entry.name)?;
        self.progress.name.clone_from(&entry.name);
        self.leave_for(&place)?;
        let Some(tree) = &mut self.tree else { return Ok(()) };
        match entry.kind {
            Kind::Folder => {
                if !place.is_empty() {
                    made = tree.make_folder(&place)?;
                }
                if made == Made::Now {
                    self.folder.clone_from(&place);
                    self.folders.push(Folder { length: place.len(), entry });
                }
            }
            _ if place.is_empty() => return Err(Error::refused(&entry.name, "it has no name")),
            Kind::File => return self.begin_file(place, entry),
            Kind::HardLink => {
                let target = tree.place(&entry.link)?;
                tree.link(&target, &place)?;
            }
            Kind::SymbolicLink => {
                tree.create(&place, "symlink", |folder, name| {
                    fs::symlinkat(&entry.link, folder, name)
                })?;
                self.dress(&place, &entry)?;
            }
            Kind::Fifo | Kind::CharacterDevice | Kind::BlockDevice => {
                if entry.kind != Kind::Fifo && !self.options.devices {
                    return Err(Error::refused(&entry.name, "it is a device"));
                }
                self.make_node(&place, &entry)?;
                self.dress(&place, &entry)?;
            }
        }
        Ok(())
    }

    /// Counts an entry, before anything is made of it.
    fn count(&mut self, entry: &Entry) -> Result<(), Error> {
        let UnpackOptions { max_bytes, max_entries, .. } = self.options;
        if self.progress.entries >= max_entries {
            return Err(Error::Limit { unit: "entries", limit: max_entries });
        }
        self.announced = self.announced.saturating_add(entry.size);
        if self.announced > max_bytes {
            return Err(Error::Limit { unit: "bytes", limit: max_bytes });
        }
        self.progress.entries += 1;
        Ok(())
    }

    fn begin_file(&mut self, place: Vec<u8>, mut entry: Box<Entry>) -> Result<(), Error> {
        let Some(tree) = &mut self.tree else { return Ok(()) };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = tree.create(&place, "open", |folder, name| {
            fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR)
        })?;
        let whole = Segment { offset: 0, length: entry.size };
        let parts = entry.segments.take().unwrap_or_else(|| vec![whole]);
        let is_whole = parts.last().is_some_and(|last| last.offset.saturating_add(last.length) == entry.size);
        if !is_whole {
            fs::ftruncate(&file, entry.size).map_err(|source| tree.failed("ftruncate", &place, source))?;
        }
        let part = Segment { offset: 0, length: 0 };
        self.open = Some(OpenFile { file, place, entry, part, parts: parts.into_iter() });
        Ok(())
    }

    fn write(&mut self, mut data: &[u8]) -> Result<(), Error> {
        let (Some(tree), Some(open)) = (&self.tree, &mut self.open) else { return Ok(()) };
        self.progress.bytes = self.progress.bytes.saturating_add(data.len() as u64);
        while !data.is_empty() {
            let Segment { offset, length } = open.part;
            if length == 0 {
                match open.parts.next() {
                    Some(part) => open.part = part,
                    // The parts are as long as the data: the decoder has seen to that.
                    None => return Ok(()),
                }
                continue;
            }
            let count = usize::try_from(length).unwrap_or(usize::MAX).min(data.len());
            let piece = data.get(..count).unwrap_or(data);
            let written = match rustix::io::pwrite(&open.file, piece, offset) {
                Ok(0) => Err(Errno::NOSPC),
                Err(Errno::INTR) => continue,
                result => result,
            }
            .map_err(|source| tree.failed("write", &open.place, source))?;
            data = data.get(written..).unwrap_or_default();
            open.part = Segment {
                offset: offset.saturating_add(written as u64),
                length: length.saturating_sub(written as u64),
            };
        }
        Ok(())
    }

    fn end_file(&mut self) -> Result<(), Error> {
        let (Some(tree), Some(open)) = (&self.tree, self.open.take()) else { return Ok(()) };
        self.finish_descriptor(&open.file, &open.entry)
            .map_err(|(syscall, source)| tree.failed(syscall, &open.place, source))
    }

    /// The folders that this place is not in are whole.
    fn leave_for(&mut self, place: &[u8]) -> Result<(), Error> {
        while let Some(last) = self.folders.last() {
            if is_inside(place, self.folder.get(..last.length).unwrap_or_default()) {
                break;
            }
            let Some(folder) = self.folders.pop() else { break };
            self.end_folder(folder)?;
        }
        Ok(())
    }

    fn end_folder(&mut self, Folder { length, entry }: Folder) -> Result<(), Error> {
        let Some(tree) = &mut self.tree else { return Ok(()) };
        self.folder.truncate(length);
        let folder = tree.open_to_finish(&self.folder)?;
        let finished = self.finish_descriptor(&folder, &entry);
        let Some(tree) = &self.tree else { return Ok(()) };
        finished.map_err(|(syscall, source)| tree.failed(syscall, &self.folder, source))
    }

    /// Owner first, for it takes set-id bits away; then the mode, and the time, which nothing changes any more.
    fn finish_descriptor(&self, file: &OwnedFd, entry: &Entry) -> Result<(), (&'static str, Errno)> {
        if self.options.owner {
            let (uid, gid) = owner(entry);
            fs::fchown(file, uid, gid).map_err(|source| ("chown", source))?;
        }
        fs::fchmod(file, self.mode(entry)).map_err(|source| ("chmod", source))?;
        fs::futimens(file, &times(entry)).map_err(|source| ("utime", source))
    }

    /// The same for what cannot be opened.
    fn dress(&mut self, place: &[u8], entry: &Entry) -> Result<(), Error> {
        let mode = self.mode(entry);
        let with_owner = self.options.owner;
        let Some(tree) = &mut self.tree else { return Ok(()) };
        let (folder, name) = tree.folder_of(place)?;
        let dressed = (|| {
            if with_owner {
                let (uid, gid) = owner(entry);
                fs::chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|source| ("chown", source))?;
            }
            if entry.kind != Kind::SymbolicLink {
                // It was made here a moment ago, in a folder that no link leads to.
                fs::chmodat(folder, name, mode, AtFlags::empty()).map_err(|source| ("chmod", source))?;
            }
            fs::utimensat(folder, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|source| ("utime", source))
        })();
        dressed.map_err(|(syscall, source)| tree.failed(syscall, place, source))
    }

    fn make_node(&mut self, place: &[u8], entry: &Entry) -> Result<(), Error> {
        let Some(tree) = &mut self.tree else { return Ok(()) };
        let (kind, device) = match entry.kind {
            Kind::CharacterDevice => (FileType::CharacterDevice, entry.device),
            Kind::BlockDevice => (FileType::BlockDevice, entry.device),
            _ => (FileType::Fifo, (0, 0)),
        };
        tree.create(place, "mknod", |folder, name| {
            fs::mknodat(folder, name, kind, Mode::empty(), fs::makedev(device.0, device.1))
        })
    }

    fn mode(&self, entry: &Entry) -> Mode {
        let taken = if self.options.owner { 0 } else { SET_ID };
        Mode::from_raw_mode(entry.mode & 0o7777 & !taken)
    }
}

impl Drop for Unpacker {
    /// Folders that were begun are left as the archive says, as far as that can be had.
    fn drop(&mut self) {
        while let Some(folder) = self.folders.pop() {
            let _ = self.end_folder(folder);
        }
    }
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    // All ones would mean nobody.
    let uid = (entry.uid != u32::MAX).then(|| Uid::from_raw(entry.uid));
    let gid = (entry.gid != u32::MAX).then(|| Gid::from_raw(entry.gid));
    (uid, gid)
}

fn times(entry: &Entry) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT.into() },
        last_modification: Timespec {
            tv_sec: entry.modified.seconds,
            tv_nsec: entry.modified.nanoseconds.into(),
        },
    }
}
