//! What programs change in the tree. Nothing of the root folder changes: files in memory take the
//! place of its files, or hide them.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::listing::Listing;
use super::node::{BLOCK, Body, Contents, DEVICE, Folder, Link, Node};
use super::status::{Moment, S_IFDIR, S_IFLNK, S_IFREG, Status};
use super::tree::{Found, Tree, What};
use super::walk::split;
use crate::frames::lock;

/// Longest target of a link.
const MOST_TARGET: usize = 4095;

impl Tree {
    /// The folder in memory at a path without links, made where the root folder has it.
    fn upper_folder(&mut self, path: &[u8]) -> Result<Arc<Node>, Errno> {
        let mut folder = Arc::clone(self.top());
        let mut walked = Vec::new();
        for name in path
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
        {
            self.step(1)?;
            walked.push(b'/');
            walked.extend_from_slice(name);
            let entries = folder.folder().ok_or(Errno::NOTDIR)?;
            let below = lock(entries)
                .entries
                .get(name)
                .map(|entry| entry.node.clone());
            folder = match below {
                Some(Some(node)) => node,
                Some(None) => return Err(Errno::NOENT),
                None => {
                    let lower = self.find_lower(&walked)?.ok_or(Errno::NOENT)?;
                    if !lower.status.is_folder() {
                        return Err(Errno::NOTDIR);
                    }
                    let node = Node::of(&lower.status, Body::Folder(Mutex::default()));
                    let modified = folder.status().modified;
                    self.put(&folder, name, Some(Arc::clone(&node)))?;
                    // Nobody has changed it.
                    folder.set_times(None, Some(modified));
                    node
                }
            };
        }
        Ok(folder)
    }

    fn create(&mut self, found: &Found, permissions: u32, body: Body) -> Result<Arc<Node>, Errno> {
        if !matches!(found.what, What::Missing) {
            return Err(Errno::EXIST);
        }
        let (folder, name) = split(&found.path);
        let folder = self.upper_folder(folder)?;
        self.add(&folder, name, permissions, body)
    }

    /// Makes an empty file.
    pub fn create_file(&mut self, found: &Found, permissions: u32) -> Result<Arc<Node>, Errno> {
        if found.folder {
            return Err(Errno::ISDIR);
        }
        let contents = Contents::new(&self.budget)?;
        self.create(found, permissions, Body::File(Mutex::new(contents)))
    }

    /// `mkdir`
    pub fn make_folder(&mut self, found: &Found, permissions: u32) -> Result<(), Errno> {
        let folder = Folder {
            opaque: true,
            ..Folder::default()
        };
        self.create(found, permissions, Body::Folder(Mutex::new(folder)))?;
        Ok(())
    }

    /// `symlink`
    pub fn make_link(&mut self, found: &Found, target: Vec<u8>) -> Result<(), Errno> {
        if target.is_empty() || found.folder {
            return Err(Errno::NOENT);
        }
        if target.len() > MOST_TARGET {
            return Err(Errno::NAMETOOLONG);
        }
        let link = Link::new(target, &self.budget)?;
        self.create(found, 0o777, Body::Link(link))?;
        Ok(())
    }

    /// `link`
    pub fn link(&mut self, from: &Found, to: &Found) -> Result<(), Errno> {
        if !matches!(to.what, What::Missing) {
            return Err(Errno::EXIST);
        }
        if to.folder {
            return Err(Errno::NOENT);
        }
        let node = self.upper(from)?;
        if node.folder().is_some() {
            return Err(Errno::PERM);
        }
        let (folder, name) = split(&to.path);
        let folder = self.upper_folder(folder)?;
        self.put(&folder, name, Some(Arc::clone(&node)))?;
        node.count_link(true);
        Ok(())
    }

    /// What was found as a file in memory: a file of the root folder is copied.
    pub fn upper(&mut self, found: &Found) -> Result<Arc<Node>, Errno> {
        self.upper_part(found, u64::MAX)
    }

    /// The same, but of a file's bytes only the first are wanted.
    pub fn upper_part(&mut self, found: &Found, most: u64) -> Result<Arc<Node>, Errno> {
        let lower = match &found.what {
            What::Missing => return Err(Errno::NOENT),
            What::Upper(node) => return Ok(Arc::clone(node)),
            What::Lower(lower) => lower,
        };
        let body = match lower.status.kind() {
            S_IFDIR => return self.upper_folder(&found.path),
            S_IFLNK => Body::Link(Link::new(lower.target()?, &self.budget)?),
            S_IFREG => {
                let root = self.root.as_mut().ok_or(Errno::NOENT)?;
                let (file, _) = root.open_file(&found.path)?;
                let mut contents = Contents::new(&self.budget)?;
                self.copy(&file, &mut contents, most)?;
                Body::File(Mutex::new(contents))
            }
            _ => return Err(Errno::ACCESS),
        };
        let status = match lower.status.links {
            // Its number stays, as far as no other name leads to it.
            0 | 1 => lower.status,
            _ => Status {
                device: DEVICE,
                inode: self.next_inode(),
                ..lower.status
            },
        };
        let (folder, name) = split(&found.path);
        let folder = self.upper_folder(folder)?;
        let modified = folder.status().modified;
        let node = Node::of(&status, body);
        self.put(&folder, name, Some(Arc::clone(&node)))?;
        // The folder has the same names as before.
        folder.set_times(None, Some(modified));
        Ok(node)
    }

    fn copy(&mut self, file: &OwnedFd, contents: &mut Contents, most: u64) -> Result<(), Errno> {
        let mut buffer = [0; BLOCK];
        let mut offset = 0;
        while offset < most {
            self.step(4)?;
            let length = usize::try_from(most - offset).unwrap_or(BLOCK).min(BLOCK);
            let part = buffer.get_mut(..length).unwrap_or_default();
            let read = match rustix::io::pread(file, part, offset) {
                Ok(0) => break,
                Ok(read) => read,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            let mut rest = buffer.get(..read).unwrap_or_default();
            while !rest.is_empty() {
                let place = contents.part_mut(offset, rest.len())?;
                let length = place.len();
                place.copy_from_slice(rest.get(..length).unwrap_or_default());
                rest = rest.get(length..).unwrap_or_default();
                offset += length as u64;
            }
        }
        Ok(())
    }

    /// Whether the root folder has something at a path that shows once nothing is there in memory.
    fn has_lower(&mut self, path: &[u8], visible: bool) -> Result<bool, Errno> {
        Ok(visible && self.find_lower(path)?.is_some())
    }

    /// Whether a folder that is above the root folder's, or that one, has no names in it.
    fn is_empty(&mut self, found: &Found) -> Result<bool, Errno> {
        let mut listing = Listing::of(found);
        while let Some(entry) = listing.next(self)? {
            if entry.name != b"." && entry.name != b".." {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// `unlink` and, with `folder`, `rmdir`
    pub fn remove(&mut self, found: &Found, folder: bool) -> Result<(), Errno> {
        if found.dots {
            return Err(if folder { Errno::INVAL } else { Errno::ISDIR });
        }
        let is_folder = self.status(found)?.is_folder();
        match (is_folder, folder) {
            (true, false) => return Err(Errno::ISDIR),
            (false, true) => return Err(Errno::NOTDIR),
            (true, true) if !self.is_empty(found)? => return Err(Errno::NOTEMPTY),
            _ => {}
        }
        self.take_away(found)
    }

    /// Makes a path lead nowhere.
    fn take_away(&mut self, found: &Found) -> Result<(), Errno> {
        let (folder, name) = split(&found.path);
        let (_, visible) = self.folder_at(folder);
        let hide = self.has_lower(&found.path, visible)?;
        let folder = self.upper_folder(folder)?;
        if hide {
            self.put(&folder, name, None)?;
        } else {
            let entries = folder.folder().ok_or(Errno::NOTDIR)?;
            let before = lock(entries).entries.remove(name);
            if let Some(node) = before.and_then(|entry| entry.node) {
                node.left(&folder, name);
            }
            folder.set_modified();
        }
        if let What::Upper(node) = &found.what {
            node.count_link(false);
        }
        Ok(())
    }

    /// `rename`
    pub fn rename(&mut self, from: &Found, to: &Found, replace: bool) -> Result<(), Errno> {
        if from.dots || to.dots {
            return Err(Errno::BUSY);
        }
        let moved = self.status(from)?;
        if from.path == to.path {
            return Ok(());
        }
        if moved.is_folder() {
            let inside = to.path.strip_prefix(from.path.as_slice());
            if inside.is_some_and(|rest| rest.starts_with(b"/")) {
                return Err(Errno::INVAL);
            }
            // One that shows a part of the root folder would have to be copied whole.
            let opaque = match &from.what {
                What::Upper(node) => node.folder().is_some_and(|folder| lock(folder).opaque),
                _ => false,
            };
            if !opaque {
                return Err(Errno::XDEV);
            }
        } else if from.folder || to.folder {
            return Err(Errno::NOTDIR);
        }
        if !matches!(to.what, What::Missing) {
            if !replace {
                return Err(Errno::EXIST);
            }
            let there = self.status(to)?;
            match (moved.is_folder(), there.is_folder()) {
                (true, false) => return Err(Errno::NOTDIR),
                (false, true) => return Err(Errno::ISDIR),
                (true, true) if !self.is_empty(to)? => return Err(Errno::NOTEMPTY),
                _ => {}
            }
        }
        let node = self.upper(from)?;
        if let What::Upper(there) = &to.what
            && Arc::ptr_eq(there, &node)
        {
            return Ok(());
        }
        let (folder, name) = split(&to.path);
        let folder = self.upper_folder(folder)?;
        self.put(&folder, name, Some(Arc::clone(&node)))?;
        if let What::Upper(there) = &to.what {
            there.count_link(false);
        }
        // It is found by its new name now, and taken away by the old one only.
        node.count_link(true);
        let from = Found {
            path: from.path.clone(),
            what: What::Upper(node),
            lower: from.lower,
            folder: false,
            dots: false,
        };
        self.take_away(&from)
    }

    /// `chmod`
    pub fn set_permissions(&mut self, found: &Found, permissions: u32) -> Result<(), Errno> {
        self.upper(found)?.set_permissions(permissions);
        Ok(())
    }

    /// `utimensat`
    pub fn set_times(
        &mut self,
        found: &Found,
        accessed: Option<Moment>,
        modified: Option<Moment>,
    ) -> Result<(), Errno> {
        self.upper(found)?.set_times(accessed, modified);
        Ok(())
    }
}
