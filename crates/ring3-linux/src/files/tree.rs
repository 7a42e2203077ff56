//! The tree of files that programs see: files in memory over the root folder.
//!
//! Paths are walked name by name, so that links lead where they lead in this tree, whichever half
//! they are in. The path of a folder that was reached has no links in it.

use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::node::{Body, Device, Entry, Folder, Node};
use super::root::{Lower, Root};
use super::status::{S_IFDIR, S_IFLNK, Status};
use crate::budget::Budget;
use crate::frames::lock;

/// As `NAME_MAX` and `PATH_MAX` have it.
const MOST_NAME: usize = 255;
const MOST_PATH: usize = 4096;
/// Links that may be followed for one path.
const MOST_LINKS: usize = 40;

/// The tree of a sandbox.
#[derive(Debug)]
pub struct Tree {
    pub(super) root: Option<Root>,
    pub(super) top: Arc<Node>,
    pub(super) budget: Budget,
    pub(super) next_inode: u64,
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

/// A folder on the way.
struct Place {
    path: Vec<u8>,
    upper: Option<Arc<Node>>,
    lower: bool,
}

impl Tree {
    pub fn new(root: Option<&Path>, budget: &Budget) -> Result<Self, Errno> {
        let mut tree = Self {
            root: root.map(Root::open).transpose()?,
            top: Node::new(1, 0o755, Body::Folder(Mutex::default())),
            budget: budget.clone(),
            next_inode: 2,
        };
        tree.clear()?;
        Ok(tree)
    }

    /// Forgets all that was written.
    pub fn clear(&mut self) -> Result<(), Errno> {
        self.top = Node::new(1, 0o755, Body::Folder(Mutex::default()));
        self.next_inode = 2;
        let devices = self.add(&Arc::clone(&self.top), b"dev", 0o755, |_| {
            Ok(Body::Folder(Mutex::new(Folder {
                opaque: true,
                ..Folder::default()
            })))
        })?;
        for (name, device) in Device::ALL {
            self.add(&devices, name, 0o666, |_| Ok(Body::Device(device)))?;
        }
        self.add(&Arc::clone(&self.top), b"tmp", 0o1777, |_| {
            Ok(Body::Folder(Mutex::default()))
        })?;
        Ok(())
    }

    pub(super) fn new_node(&mut self, permissions: u32, body: Body) -> Arc<Node> {
        let inode = self.next_inode;
        self.next_inode += 1;
        Node::new(inode, permissions, body)
    }

    /// Puts something new into a folder.
    pub(super) fn add(
        &mut self,
        folder: &Arc<Node>,
        name: &[u8],
        permissions: u32,
        body: impl FnOnce(&Budget) -> Result<Body, Errno>,
    ) -> Result<Arc<Node>, Errno> {
        let body = body(&self.budget)?;
        let node = self.new_node(permissions, body);
        self.put(folder, name, Some(Arc::clone(&node)))?;
        Ok(node)
    }

    pub(super) fn put(
        &self,
        folder: &Arc<Node>,
        name: &[u8],
        node: Option<Arc<Node>>,
    ) -> Result<(), Errno> {
        let entry = Entry::new(name, node, &self.budget)?;
        let entries = folder.folder().ok_or(Errno::NOTDIR)?;
        // What was there is dropped when nothing is locked any more.
        let before = lock(entries).entries.insert(name.to_vec(), entry);
        drop(before);
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

    fn top(&self) -> Place {
        Place {
            path: Vec::new(),
            upper: Some(Arc::clone(&self.top)),
            lower: self.root.is_some(),
        }
    }

    /// The folder at a path without links.
    fn place(&self, path: &[u8]) -> Place {
        let mut place = self.top();
        for name in path
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
        {
            let upper = entry_of(place.upper.as_ref(), name);
            (place.upper, place.lower) = below(upper, place.lower);
            place.path.push(b'/');
            place.path.extend_from_slice(name);
        }
        place
    }

    /// The folder in memory at a path without links, and whether the root folder's shows.
    pub(super) fn folder_at(&self, path: &[u8]) -> (Option<Arc<Node>>, bool) {
        let place = self.place(path);
        (place.upper, place.lower)
    }

    fn child(&mut self, place: &Place, name: &[u8]) -> Result<What, Errno> {
        if name.len() > MOST_NAME {
            return Err(Errno::NAMETOOLONG);
        }
        match entry_of(place.upper.as_ref(), name) {
            Some(Some(node)) => return Ok(What::Upper(node)),
            Some(None) => return Ok(What::Missing),
            None => {}
        }
        if !place.lower {
            return Ok(What::Missing);
        }
        let path = joined(&place.path, name);
        Ok(self.find_lower(&path)?.map_or(What::Missing, What::Lower))
    }

    /// Walks a path from a folder's path; links at its end are followed or not.
    pub fn find(&mut self, base: &[u8], path: &[u8], follow: bool) -> Result<Found, Errno> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        let mut place = if path.starts_with(b"/") {
            self.top()
        } else {
            self.place(base)
        };
        // Folders are looked at as the walk leaves them; the one that it begins in may be gone.
        if !place.path.is_empty() && !self.is_folder(&place)? {
            return Err(Errno::NOENT);
        }
        let mut rest = path.to_vec();
        let mut at = 0;
        let mut links = 0;
        loop {
            let from = rest.get(at..).unwrap_or_default();
            let skip = from.iter().take_while(|byte| **byte == b'/').count();
            let from = from.get(skip..).unwrap_or_default();
            if from.is_empty() {
                return Ok(self.end_at(place));
            }
            let length = from
                .iter()
                .position(|byte| *byte == b'/')
                .unwrap_or(from.len());
            let name = from.get(..length).unwrap_or_default().to_vec();
            let behind = from.get(length..).unwrap_or_default();
            let last = behind.iter().all(|byte| *byte == b'/');
            let slash = last && !behind.is_empty();
            at += skip + length;
            if name == b"." {
                continue;
            }
            if name == b".." {
                let end = place
                    .path
                    .iter()
                    .rposition(|byte| *byte == b'/')
                    .unwrap_or(0);
                place = self.place(place.path.get(..end).unwrap_or_default());
                continue;
            }
            if place.path.len() + name.len() + 1 >= MOST_PATH {
                return Err(Errno::NAMETOOLONG);
            }
            let what = self.child(&place, &name)?;
            let target = match &what {
                What::Upper(node) => match &node.body {
                    Body::Link(target) if !last || follow || slash => Some(target.clone()),
                    Body::Folder(_) if !last => {
                        (place.upper, place.lower) =
                            below(Some(Some(Arc::clone(node))), place.lower);
                        place.path = joined(&place.path, &name);
                        continue;
                    }
                    _ => None,
                },
                What::Lower(lower) => match lower.status.kind() {
                    S_IFLNK if !last || follow || slash => Some(lower.target()?),
                    S_IFDIR if !last => {
                        place.upper = None;
                        place.path = joined(&place.path, &name);
                        continue;
                    }
                    _ => None,
                },
                What::Missing if !last => return Err(Errno::NOENT),
                What::Missing => None,
            };
            if let Some(target) = target {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::LOOP);
                }
                if target.is_empty() {
                    return Err(Errno::NOENT);
                }
                if target.starts_with(b"/") {
                    place = self.top();
                }
                let behind = rest.get(at..).unwrap_or_default().to_vec();
                rest = target;
                rest.extend_from_slice(&behind);
                at = 0;
                continue;
            }
            if !last {
                return Err(Errno::NOTDIR);
            }
            let folder = slash;
            let is_folder = match &what {
                What::Upper(node) => node.folder().is_some(),
                What::Lower(lower) => lower.status.is_folder(),
                What::Missing => true,
            };
            if folder && !is_folder {
                return Err(Errno::NOTDIR);
            }
            let lower = match &what {
                What::Upper(node) => below(Some(Some(Arc::clone(node))), place.lower).1,
                _ => place.lower,
            };
            return Ok(Found {
                path: joined(&place.path, &name),
                what,
                lower,
                folder,
                dots: false,
            });
        }
    }

    /// The end of a path of dots or slashes: a folder that was walked.
    fn end_at(&mut self, place: Place) -> Found {
        let what = match place.upper {
            Some(node) => What::Upper(node),
            None => match self.find_lower(&place.path) {
                Ok(Some(lower)) => What::Lower(lower),
                _ => What::Missing,
            },
        };
        Found {
            path: place.path,
            what,
            lower: place.lower,
            folder: true,
            dots: true,
        }
    }

    fn is_folder(&mut self, place: &Place) -> Result<bool, Errno> {
        if place.upper.is_some() {
            return Ok(true);
        }
        let lower = place
            .lower
            .then(|| self.find_lower(&place.path))
            .transpose()?;
        Ok(lower
            .flatten()
            .is_some_and(|lower| lower.status.is_folder()))
    }

    /// What its files in memory count against.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Opens a regular file of the root folder.
    pub fn open_lower(&mut self, path: &[u8]) -> Result<std::os::fd::OwnedFd, Errno> {
        self.root.as_mut().ok_or(Errno::NOENT)?.open_file(path)
    }

    /// What is known of what was found. `ENOENT` where nothing was.
    pub fn status(&mut self, found: &Found) -> Result<Status, Errno> {
        match &found.what {
            What::Missing => Err(Errno::NOENT),
            What::Lower(lower) => Ok(lower.status),
            What::Upper(node) => {
                if node.folder().is_some() && found.lower {
                    let lower = self.find_lower(&found.path)?;
                    if let Some(lower) = lower.filter(|lower| lower.status.is_folder()) {
                        return Ok(lower.status);
                    }
                }
                Ok(node.status())
            }
        }
    }

    /// Where a link leads.
    pub fn target(&self, found: &Found) -> Result<Vec<u8>, Errno> {
        match &found.what {
            What::Missing => Err(Errno::NOENT),
            What::Lower(lower) if lower.status.kind() == S_IFLNK => lower.target(),
            What::Upper(node) => match &node.body {
                Body::Link(target) => Ok(target.clone()),
                _ => Err(Errno::INVAL),
            },
            What::Lower(_) => Err(Errno::INVAL),
        }
    }
}

/// What the folder in memory has by a name: nothing, something, or that nothing is there.
#[allow(clippy::option_option)] // Three answers, each with its own meaning.
fn entry_of(folder: Option<&Arc<Node>>, name: &[u8]) -> Option<Option<Arc<Node>>> {
    let folder = lock(folder?.folder()?);
    folder.entries.get(name).map(|entry| entry.node.clone())
}

/// The folder in memory below, and whether the root folder shows through it.
#[allow(clippy::option_option)]
fn below(entry: Option<Option<Arc<Node>>>, lower: bool) -> (Option<Arc<Node>>, bool) {
    match entry {
        None => (None, lower),
        Some(None) => (None, false),
        Some(Some(node)) => {
            let through = node.folder().is_some_and(|folder| !lock(folder).opaque);
            (Some(node), lower && through)
        }
    }
}

/// A path and a name behind it.
pub fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(path.len() + name.len() + 1);
    joined.extend_from_slice(path);
    joined.push(b'/');
    joined.extend_from_slice(name);
    joined
}

/// The folder of a path without links, and the last name.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let at = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let (folder, name) = path.split_at(at);
    (folder, name.strip_prefix(b"/").unwrap_or(name))
}
