//! The tree of files that programs see: files in memory over the root folder.
//!
//! Paths are walked name by name, so that links lead where they lead in this tree, whichever half
//! they are in. The path of a folder that was reached has no links in it. A folder in memory knows
//! where it is, so that whoever has it open finds it after it was moved.

use std::cell::RefCell;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::lower::LowerFile;
use super::node::{Body, Device, ENTRY, Entry, FOLDER_ENTRY, Folder, Node};
use super::root::{Lower, Root};
use super::status::{S_IFLNK, Status};
use crate::budget::{Budget, Charge};
use crate::frames::lock;
use crate::watch::Watch;

/// Inodes of the files that there are at first, and of the first one that a program makes.
const TOP: u64 = 1;
const DEVICES: u64 = 2;
const TEMPORARY: u64 = 3;
const FIRST_DEVICE: u64 = 4;
const FIRST_FREE: u64 = FIRST_DEVICE + Device::ALL.len() as u64;
const DEVICES_NAME: &[u8] = b"dev";
const TEMPORARY_NAME: &[u8] = b"tmp";

/// What the first files count as.
fn room_for_first_files(budget: &Budget) -> Result<Charge, Errno> {
    let folders = [DEVICES_NAME, TEMPORARY_NAME].map(|name| FOLDER_ENTRY + name.len() as u64);
    let devices = Device::ALL
        .iter()
        .map(|(name, _)| ENTRY + name.len() as u64);
    let bytes = devices.chain(folders).sum();
    Charge::new(budget, bytes).map_err(|_| Errno::NOSPC)
}

fn empty_top() -> Arc<Node> {
    Node::new(TOP, 0o755, Body::Folder(Mutex::default()))
}

/// The tree of a sandbox.
#[derive(Debug)]
pub struct Tree {
    pub(super) root: Option<Root>,
    pub(super) top: Arc<Node>,
    /// Room for the first files, until somebody looks for a file: many programs never do.
    room: RefCell<Option<Charge>>,
    pub(super) budget: Budget,
    /// Files of the root folder that may be open at once.
    open: Budget,
    next_inode: u64,
    /// Whether the run that it works for is to end.
    watch: Option<Watch>,
}

/// What is at a path.
#[derive(Debug)]
pub enum What {
    /// Nothing; the folder that it would be in is there.
    Missing,
    /// A file in memory.
    Upper(Arc<Node>),
    /// A file of the root folder.
    Lower(Lower),
}

/// The end of a path.
#[derive(Debug)]
pub struct Found {
    /// Its path, without links; empty for the top.
    pub path: Vec<u8>,
    pub what: What,
    /// Whether the root folder's entry at this path, if there is one, shows through or would if
    /// this were not here.
    pub lower: bool,
    /// Whether it has to be a folder, for the path ended with a slash.
    pub folder: bool,
    /// Whether the path ended with `.` or `..`, or is the top.
    pub dots: bool,
}

/// What somebody has open or is in: paths count from it. The default is the top.
#[derive(Clone, Debug, Default)]
pub struct Base {
    /// Its path without links, as long as it is of the root folder: that never moves.
    pub(super) path: Vec<u8>,
    /// It, where it is in memory.
    pub(super) node: Option<Arc<Node>>,
}

impl Found {
    /// To come back to it.
    pub fn base(&self) -> Base {
        Base {
            path: self.path.clone(),
            node: match &self.what {
                What::Upper(node) => Some(Arc::clone(node)),
                _ => None,
            },
        }
    }
}

impl Tree {
    pub fn new(root: Option<&Path>, budget: &Budget, open_files: u32) -> Result<Self, Errno> {
        Ok(Self {
            root: root.map(Root::open).transpose()?,
            top: empty_top(),
            room: RefCell::new(Some(room_for_first_files(budget)?)),
            budget: budget.clone(),
            open: Budget::new(open_files.into()),
            next_inode: FIRST_FREE,
            watch: None,
        })
    }

    /// Forgets all that was written.
    pub fn clear(&mut self) -> Result<(), Errno> {
        self.top = empty_top();
        self.next_inode = FIRST_FREE;
        // What was kept before counts no more when it is asked for anew.
        self.room.take();
        self.room.replace(Some(room_for_first_files(&self.budget)?));
        Ok(())
    }

    /// The top, with the first files in it.
    pub(super) fn top(&self) -> &Arc<Node> {
        if let Some(room) = self.room.take() {
            drop(room);
            let made = self.make_first_files();
            debug_assert_eq!(made, Ok(()), "there was room for them");
        }
        &self.top
    }

    fn make_first_files(&self) -> Result<(), Errno> {
        let folder = Folder {
            opaque: true,
            ..Folder::default()
        };
        let devices = Node::new(DEVICES, 0o755, Body::Folder(Mutex::new(folder)));
        self.put(&self.top, DEVICES_NAME, Some(Arc::clone(&devices)))?;
        for (inode, (name, device)) in (FIRST_DEVICE..).zip(Device::ALL) {
            let node = Node::new(inode, 0o666, Body::Device(device));
            self.put(&devices, name, Some(node))?;
        }
        let temporary = Node::new(TEMPORARY, 0o1777, Body::Folder(Mutex::default()));
        self.put(&self.top, TEMPORARY_NAME, Some(temporary))
    }

    /// Works for a run from now on, or for none.
    pub fn set_watch(&mut self, watch: Option<Watch>) {
        self.watch = watch;
    }

    /// Counts work; `EINTR` where the run is to end.
    pub(super) fn step(&mut self, steps: u32) -> Result<(), Errno> {
        match &mut self.watch {
            Some(watch) => watch.step(steps),
            None => Ok(()),
        }
    }

    pub(super) fn next_inode(&mut self) -> u64 {
        let inode = self.next_inode;
        self.next_inode += 1;
        inode
    }

    /// Puts something new into a folder.
    pub(super) fn add(
        &mut self,
        folder: &Arc<Node>,
        name: &[u8],
        permissions: u32,
        body: Body,
    ) -> Result<Arc<Node>, Errno> {
        let node = Node::new(self.next_inode(), permissions, body);
        self.put(folder, name, Some(Arc::clone(&node)))?;
        Ok(node)
    }

    /// Has a name stand for something, or for nothing, in place of what it stood for.
    pub(super) fn put(
        &self,
        folder: &Arc<Node>,
        name: &[u8],
        node: Option<Arc<Node>>,
    ) -> Result<(), Errno> {
        let mut entries = lock(folder.folder().ok_or(Errno::NOTDIR)?);
        let before = match entries.entries.get_mut(name) {
            Some(entry) => entry.replace(name, node.clone())?,
            None => {
                let entry = Entry::new(name, node.clone(), &self.budget)?;
                entries.entries.insert(name.to_vec(), entry);
                None
            }
        };
        drop(entries);
        // What was there is dropped when nothing is locked any more.
        if let Some(before) = before {
            before.left(folder, name);
        }
        if let Some(node) = node {
            node.entered(folder, name);
        }
        folder.set_modified();
        Ok(())
    }

    pub(super) fn find_lower(&mut self, path: &[u8]) -> Result<Option<Lower>, Errno> {
        match &mut self.root {
            // A link that appeared on the way since it was looked at: nothing is there.
            Some(root) => match root.find(path) {
                Err(Errno::LOOP) => Ok(None),
                result => result,
            },
            None => Ok(None),
        }
    }

    /// What its files in memory count against.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The folder at a path without links.
    pub fn base_at(&self, path: &[u8]) -> Base {
        let node = match path {
            [] => Some(Arc::clone(&self.top)),
            path => self.folder_at(path).0,
        };
        Base {
            path: path.to_vec(),
            node,
        }
    }

    /// Opens a regular file of the root folder.
    pub fn open_lower(&mut self, path: &[u8]) -> Result<LowerFile, Errno> {
        let permit = Charge::new(&self.open, 1).map_err(|_| Errno::MFILE)?;
        let root = self.root.as_mut().ok_or(Errno::NOENT)?;
        let (file, status) = root.open_file(path)?;
        Ok(LowerFile::new(file, status, permit))
    }

    /// What is known of what was found. `ENOENT` where nothing was.
    pub fn status(&self, found: &Found) -> Result<Status, Errno> {
        match &found.what {
            What::Missing => Err(Errno::NOENT),
            What::Lower(lower) => Ok(lower.status),
            What::Upper(node) => Ok(node.status()),
        }
    }

    /// What is known of what somebody has open.
    pub fn status_of(&mut self, base: &Base) -> Result<Status, Errno> {
        if let Some(node) = &base.node {
            return Ok(node.status());
        }
        let path: &[u8] = if base.path.is_empty() {
            b"/"
        } else {
            &base.path
        };
        let found = self.find(&Base::default(), path, false)?;
        self.status(&found)
    }

    /// Where a link leads.
    pub fn target(&self, found: &Found) -> Result<Vec<u8>, Errno> {
        match &found.what {
            What::Missing => Err(Errno::NOENT),
            What::Lower(lower) if lower.status.kind() == S_IFLNK => lower.target(),
            What::Upper(node) => match &node.body {
                Body::Link(link) => Ok(link.target.clone()),
                _ => Err(Errno::INVAL),
            },
            What::Lower(_) => Err(Errno::INVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_files_have_their_room_before_anybody_looks() {
        let budget = Budget::new(1 << 20);
        let mut tree = Tree::new(None, &budget, 16).unwrap();
        let left = budget.left();
        budget.take(left).unwrap();
        let found = tree.find(&Base::default(), b"/dev/urandom", true).unwrap();
        assert!(matches!(found.what, What::Upper(_)));
        assert_eq!(budget.left(), 0);
        budget.give_back(left);
        tree.clear().unwrap();
        assert_eq!(budget.left(), left);
    }
}
