//! Makes files of an archive that comes bit by bit.

use std::path::PathBuf;

use rustix::fs::{self, FileType, Mode, OFlags};

use crate::attributes;
use crate::content::Target;
use crate::decoder::{Decoder, Entry, Event, Kind};
use crate::tree::{Made, Tree, is_inside};
use crate::{Error, Progress};

/// How a FIFO is opened without waiting for its other end.
const FIFO: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

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
    target: Target,
    place: Vec<u8>,
    entry: Box<Entry>,
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

    fn begin(&mut self, mut entry: Box<Entry>) -> Result<(), Error> {
        self.count(&entry)?;
        let is_folder = entry.kind == Kind::Folder;
        let mut made = Made::Before;
        if self.tree.is_none() {
            let UnpackOptions {
                destination, name, ..
            } = &self.options;
            let (tree, root) = Tree::find(destination, name.as_deref(), is_folder)?;
            self.tree = Some(tree);
            made = root;
        }
        let Some(tree) = &mut self.tree else {
            return Ok(());
        };
        let place = tree.place(&entry.name)?;
        self.progress.name.clone_from(&entry.name);
        self.leave_for(&place)?;
        let Some(tree) = &mut self.tree else {
            return Ok(());
        };
        match entry.kind {
            Kind::Folder => {
                if !place.is_empty() {
                    made = tree.make_folder(&place)?;
                }
                if made == Made::Now {
                    self.folder.clone_from(&place);
                    // It waits with all those around it: no more of it is kept than is needed.
                    (entry.name, entry.link) = (Vec::new(), Vec::new());
                    self.folders.push(Folder {
                        length: place.len(),
                        entry,
                    });
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
        let UnpackOptions {
            max_bytes,
            max_entries,
            ..
        } = self.options;
        let implied = self.tree.as_ref().map_or(0, Tree::implied);
        if self.progress.entries.saturating_add(implied) >= max_entries {
            return Err(Error::Limit {
                unit: "entries",
                limit: max_entries,
            });
        }
        self.announced = self.announced.saturating_add(entry.size);
        if self.announced > max_bytes {
            return Err(Error::Limit {
                unit: "bytes",
                limit: max_bytes,
            });
        }
        self.progress.entries += 1;
        Ok(())
    }

    fn begin_file(&mut self, place: Vec<u8>, mut entry: Box<Entry>) -> Result<(), Error> {
        let Some(tree) = &mut self.tree else {
            return Ok(());
        };
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = tree.create(&place, "open", |folder, name| {
            fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR)
        })?;
        let target = Target::new(file, entry.segments.take(), entry.size)
            .map_err(|source| tree.failed("ftruncate", &place, source))?;
        self.open = Some(OpenFile {
            target,
            place,
            entry,
        });
        Ok(())
    }

    fn write(&mut self, data: &[u8]) -> Result<(), Error> {
        let (Some(tree), Some(open)) = (&self.tree, &mut self.open) else {
            return Ok(());
        };
        self.progress.bytes = self.progress.bytes.saturating_add(data.len() as u64);
        open.target
            .write(data)
            .map_err(|source| tree.failed("write", &open.place, source))
    }

    fn end_file(&mut self) -> Result<(), Error> {
        let (Some(tree), Some(open)) = (&self.tree, self.open.take()) else {
            return Ok(());
        };
        attributes::set(&open.target.file, &open.entry, self.options.owner)
            .map_err(|(syscall, source)| tree.failed(syscall, &open.place, source))
    }

    /// The folders that this place is not in are whole.
    fn leave_for(&mut self, place: &[u8]) -> Result<(), Error> {
        while let Some(last) = self.folders.last() {
            if is_inside(place, self.folder.get(..last.length).unwrap_or_default()) {
                break;
            }
            let Some(folder) = self.folders.pop() else {
                break;
            };
            self.end_folder(folder)?;
        }
        Ok(())
    }

    fn end_folder(&mut self, Folder { length, entry }: Folder) -> Result<(), Error> {
        let Some(tree) = &mut self.tree else {
            return Ok(());
        };
        self.folder.truncate(length);
        let folder = tree.open_to_finish(&self.folder)?;
        attributes::set(&folder, &entry, self.options.owner)
            .map_err(|(syscall, source)| tree.failed(syscall, &self.folder, source))
    }

    /// Sets the attributes of what is not open.
    fn dress(&mut self, place: &[u8], entry: &Entry) -> Result<(), Error> {
        let with_owner = self.options.owner;
        let Some(tree) = &mut self.tree else {
            return Ok(());
        };
        let (folder, name) = tree.folder_of(place)?;
        let dressed = match entry.kind {
            Kind::Fifo => fs::openat(folder, name, FIFO, Mode::empty())
                .map_err(|source| ("open", source))
                .and_then(|fifo| attributes::set(&fifo, entry, with_owner)),
            _ => attributes::set_at(folder, name, entry, with_owner),
        };
        dressed.map_err(|(syscall, source)| tree.failed(syscall, place, source))
    }

    fn make_node(&mut self, place: &[u8], entry: &Entry) -> Result<(), Error> {
        let Some(tree) = &mut self.tree else {
            return Ok(());
        };
        let (kind, (major, minor)) = match entry.kind {
            Kind::CharacterDevice => (FileType::CharacterDevice, entry.device),
            Kind::BlockDevice => (FileType::BlockDevice, entry.device),
            _ => (FileType::Fifo, (0, 0)),
        };
        let device = fs::makedev(major, minor);
        tree.create(place, "mknod", |folder, name| {
            fs::mknodat(folder, name, kind, Mode::RUSR | Mode::WUSR, device)
        })
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
