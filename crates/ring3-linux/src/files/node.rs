//! Files, folders and links in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::status::{Moment, S_IFCHR, S_IFDIR, S_IFLNK, S_IFREG, Status};
use crate::budget::{Budget, Charge};
use crate::frames::lock;

/// Bytes that an entry of a folder counts as, beside its name: one that hides something, one of
/// what is no folder, and one of a folder, which has a map of its own and its name twice.
const HIDING_ENTRY: u64 = 256;
pub const ENTRY: u64 = 512;
pub const FOLDER_ENTRY: u64 = 1536;
/// Bytes of a block of a file, and how many it counts as.
pub const BLOCK: usize = 4096;
const BLOCK_CHARGE: u64 = 4096 + 64;
/// Largest size of a file in memory.
const MOST: u64 = 1 << 40;

/// Number of the device that files in memory are on. Those of the root folder have others.
pub const DEVICE: u64 = 1;

/// A file, folder, link or device in memory.
#[derive(Debug)]
pub struct Node {
    device: u64,
    inode: u64,
    meta: Mutex<Meta>,
    /// The folder that a folder is in, and by which name.
    place: Mutex<Option<(Weak<Node>, Vec<u8>)>>,
    pub body: Body,
}

#[derive(Clone, Copy, Debug)]
struct Meta {
    permissions: u32,
    links: u64,
    accessed: Moment,
    modified: Moment,
    changed: Moment,
}

/// What a node is.
#[derive(Debug)]
pub enum Body {
    File(Mutex<Contents>),
    Folder(Mutex<Folder>),
    Link(Link),
    Device(Device),
}

/// A link.
#[derive(Debug)]
pub struct Link {
    pub target: Vec<u8>,
    _charge: Charge,
}

impl Link {
    pub fn new(target: Vec<u8>, budget: &Budget) -> Result<Self, Errno> {
        let charge = Charge::new(budget, target.len() as u64);
        Ok(Self {
            target,
            _charge: charge.map_err(|_| Errno::NOSPC)?,
        })
    }
}

/// The devices that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Null,
    Zero,
    Full,
    Random,
}

/// The names in a folder.
#[derive(Debug, Default)]
pub struct Folder {
    pub entries: BTreeMap<Vec<u8>, Entry>,
    /// Whether nothing of the root folder shows through.
    pub opaque: bool,
}

/// What a name in a folder stands for.
#[derive(Debug)]
pub struct Entry {
    /// `None`: nothing any more, whatever the root folder has there.
    pub node: Option<Arc<Node>>,
    charge: Charge,
}

impl Entry {
    pub fn new(name: &[u8], node: Option<Arc<Node>>, budget: &Budget) -> Result<Self, Errno> {
        let charge = Charge::new(budget, Self::bytes(name, node.as_ref()));
        Ok(Self {
            node,
            charge: charge.map_err(|_| Errno::NOSPC)?,
        })
    }

    fn bytes(name: &[u8], node: Option<&Arc<Node>>) -> u64 {
        let entry = match node.map(|node| &node.body) {
            None => HIDING_ENTRY,
            Some(Body::Folder(_)) => FOLDER_ENTRY,
            Some(_) => ENTRY,
        };
        entry + name.len() as u64
    }

    /// Stands for something else; returns what it stood for. Needs room only where that is less.
    pub fn replace(
        &mut self,
        name: &[u8],
        node: Option<Arc<Node>>,
    ) -> Result<Option<Arc<Node>>, Errno> {
        let bytes = Self::bytes(name, node.as_ref());
        self.charge.set(bytes).map_err(|_| Errno::NOSPC)?;
        Ok(std::mem::replace(&mut self.node, node))
    }
}

/// The time by the clock on the wall.
pub fn now() -> Moment {
    let now = clock_gettime(ClockId::Realtime);
    Moment {
        seconds: now.tv_sec,
        nanoseconds: now.tv_nsec,
    }
}

impl Node {
    pub fn new(inode: u64, permissions: u32, body: Body) -> Arc<Self> {
        let now = now();
        let status = Status {
            device: DEVICE,
            inode,
            mode: permissions,
            accessed: now,
            modified: now,
            ..Status::default()
        };
        Self::of(&status, body)
    }

    /// What takes the place of a file of which this is known.
    pub fn of(status: &Status, body: Body) -> Arc<Self> {
        Arc::new(Self {
            device: status.device,
            inode: status.inode,
            meta: Mutex::new(Meta {
                permissions: status.mode & 0o7777,
                links: 1,
                accessed: status.accessed,
                modified: status.modified,
                changed: now(),
            }),
            place: Mutex::default(),
            body,
        })
    }

    /// The folder that this folder is in, and its name there; `None` for the top, and for one that
    /// was taken away.
    pub fn place(&self) -> Option<(Arc<Self>, Vec<u8>)> {
        let place = lock(&self.place);
        let (folder, name) = place.as_ref()?;
        Some((folder.upgrade()?, name.clone()))
    }

    /// Notes where it is now.
    pub fn entered(&self, folder: &Arc<Self>, name: &[u8]) {
        if self.folder().is_some() {
            *lock(&self.place) = Some((Arc::downgrade(folder), name.to_vec()));
        }
    }

    /// Notes that it is not there any more, unless it is somewhere else already.
    pub fn left(&self, folder: &Arc<Self>, name: &[u8]) {
        let mut place = lock(&self.place);
        let there = |(other, other_name): &mut (Weak<Self>, Vec<u8>)| {
            std::ptr::eq(other.as_ptr(), Arc::as_ptr(folder)) && other_name == name
        };
        place.take_if(there);
    }

    pub fn folder(&self) -> Option<&Mutex<Folder>> {
        match &self.body {
            Body::Folder(folder) => Some(folder),
            _ => None,
        }
    }

    pub fn file(&self) -> Option<&Mutex<Contents>> {
        match &self.body {
            Body::File(contents) => Some(contents),
            _ => None,
        }
    }

    pub fn status(&self) -> Status {
        let meta = *lock(&self.meta);
        let (kind, size, blocks, device) = match &self.body {
            Body::File(contents) => {
                let contents = lock(contents);
                let blocks = contents.blocks.len() as u64 * (BLOCK as u64 / 512);
                (S_IFREG, contents.size, blocks, 0)
            }
            Body::Folder(folder) => (S_IFDIR, lock(folder).entries.len() as u64 * 32, 0, 0),
            Body::Link(link) => (S_IFLNK, link.target.len() as u64, 0, 0),
            Body::Device(device) => (S_IFCHR, 0, 0, device.number()),
        };
        Status {
            device: self.device,
            inode: self.inode,
            mode: kind | meta.permissions,
            links: meta.links,
            user: super::USER,
            group: super::USER,
            special: device,
            size,
            block_size: BLOCK as u64,
            blocks,
            accessed: meta.accessed,
            modified: meta.modified,
            changed: meta.changed,
        }
    }

    pub fn inode(&self) -> u64 {
        self.inode
    }

    pub fn set_permissions(&self, permissions: u32) {
        let mut meta = lock(&self.meta);
        meta.permissions = permissions & 0o7777;
        meta.changed = now();
    }

    pub fn set_times(&self, accessed: Option<Moment>, modified: Option<Moment>) {
        let mut meta = lock(&self.meta);
        meta.accessed = accessed.unwrap_or(meta.accessed);
        meta.modified = modified.unwrap_or(meta.modified);
        meta.changed = now();
    }

    pub fn set_modified(&self) {
        let now = now();
        self.set_times(None, Some(now));
    }

    /// Counts one more name of it, or one fewer.
    pub fn count_link(&self, more: bool) {
        let mut meta = lock(&self.meta);
        meta.links = if more {
            meta.links.saturating_add(1)
        } else {
            meta.links.saturating_sub(1)
        };
        meta.changed = now();
    }
}

impl Drop for Node {
    /// Folders may be nested as deeply as a program likes: this does not recurse.
    fn drop(&mut self) {
        fn entries(body: &mut Body) -> BTreeMap<Vec<u8>, Entry> {
            match body {
                Body::Folder(folder) => std::mem::take(&mut lock(folder).entries),
                _ => BTreeMap::new(),
            }
        }
        let mut rest: Vec<Entry> = entries(&mut self.body).into_values().collect();
        while let Some(entry) = rest.pop() {
            if let Some(mut node) = entry.node.and_then(Arc::into_inner) {
                rest.extend(entries(&mut node.body).into_values());
            }
        }
    }
}

impl Device {
    /// All of them, by name.
    pub const ALL: [(&'static [u8], Self); 5] = [
        (b"null", Self::Null),
        (b"zero", Self::Zero),
        (b"full", Self::Full),
        (b"random", Self::Random),
        (b"urandom", Self::Random),
    ];

    fn number(self) -> u64 {
        // Major 1, and the minor number that Linux has.
        0x100
            | match self {
                Self::Null => 3,
                Self::Zero => 5,
                Self::Full => 7,
                Self::Random => 9,
            }
    }
}

/// The bytes of a file; blocks that were never written are not there.
#[derive(Debug)]
pub struct Contents {
    size: u64,
    blocks: BTreeMap<u64, Box<[u8; BLOCK]>>,
    charge: Charge,
}

impl Contents {
    pub fn new(budget: &Budget) -> Result<Self, Errno> {
        Ok(Self {
            size: 0,
            blocks: BTreeMap::new(),
            charge: Charge::new(budget, 0).map_err(|_| Errno::NOSPC)?,
        })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// The bytes of one block from `offset` on, at most `length`; `None` for zeros of so many
    /// bytes. Empty at the end.
    pub fn part(&self, offset: u64, length: usize) -> (usize, Option<&[u8]>) {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let inside = usize::try_from(offset % BLOCK as u64).unwrap_or(0);
        let length = length.min(left).min(BLOCK - inside);
        let block = self.blocks.get(&(offset / BLOCK as u64));
        (
            length,
            block.and_then(|block| block.get(inside..inside + length)),
        )
    }

    /// The block at `offset`, to write at most `length` bytes into; they count as written.
    pub fn part_mut(&mut self, offset: u64, length: usize) -> Result<&mut [u8], Errno> {
        let inside = usize::try_from(offset % BLOCK as u64).unwrap_or(0);
        let length = length.min(BLOCK - inside);
        let end = offset.checked_add(length as u64).ok_or(Errno::FBIG)?;
        if end > MOST {
            return Err(Errno::FBIG);
        }
        let number = offset / BLOCK as u64;
        if !self.blocks.contains_key(&number) {
            let charged = self.charge.bytes() + BLOCK_CHARGE;
            self.charge.set(charged).map_err(|_| Errno::NOSPC)?;
        }
        self.size = self.size.max(end);
        let block = self
            .blocks
            .entry(number)
            .or_insert_with(|| Box::new([0; BLOCK]));
        Ok(block.get_mut(inside..inside + length).unwrap_or_default())
    }

    /// Makes it longer or shorter.
    pub fn set_size(&mut self, size: u64) -> Result<(), Errno> {
        if size > MOST {
            return Err(Errno::FBIG);
        }
        if size < self.size {
            let first = size.div_ceil(BLOCK as u64);
            drop(self.blocks.split_off(&first));
            let charged = self.blocks.len() as u64 * BLOCK_CHARGE;
            // It becomes less, for which there is room.
            let _ = self.charge.set(charged);
            let inside = usize::try_from(size % BLOCK as u64).unwrap_or(0);
            if inside > 0
                && let Some(block) = self.blocks.get_mut(&(size / BLOCK as u64))
            {
                block.get_mut(inside..).unwrap_or_default().fill(0);
            }
        }
        self.size = size;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_there_when_written_and_zeros_else() {
        let budget = Budget::new(3 * BLOCK_CHARGE);
        let mut contents = Contents::new(&budget).unwrap();
        contents.set_size(1 << 30).unwrap();
        assert_eq!(contents.part(5000, 10), (10, None));
        contents.part_mut(4090, 100).unwrap().fill(7);
        assert_eq!(contents.part(4090, 100), (6, Some(&[7; 6][..])));
        contents.part_mut(1 << 20, 1).unwrap();
        contents.part_mut(2 << 20, 1).unwrap();
        assert_eq!(contents.part_mut(3 << 20, 1), Err(Errno::NOSPC));
        contents.set_size(4092).unwrap();
        contents.set_size(5000).unwrap();
        let mut last = [7; 6];
        last[2..].fill(0);
        assert_eq!(contents.part(4090, 100), (6, Some(&last[..])));
        assert_eq!(contents.set_size(u64::MAX), Err(Errno::FBIG));
        assert_eq!(contents.part_mut(u64::MAX, 1), Err(Errno::FBIG));
    }

    #[test]
    fn deeply_nested_folders_are_dropped() {
        let budget = Budget::new(1 << 30);
        let mut node = Node::new(0, 0, Body::Folder(Mutex::default()));
        for inode in 1..200_000 {
            let mut folder = Folder::default();
            let entry = Entry::new(b"x", Some(node), &budget).unwrap();
            folder.entries.insert(b"x".to_vec(), entry);
            node = Node::new(inode, 0, Body::Folder(Mutex::new(folder)));
        }
        drop(node);
        assert_eq!(budget.left(), 1 << 30);
    }
}
