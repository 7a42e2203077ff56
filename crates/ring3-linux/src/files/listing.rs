//! The names in a folder: those in memory first, then those of the root folder that show through.
//! However many there are, one is held at a time.

use std::ops::Bound;
use std::sync::Arc;

use rustix::fs::{Dir, FileType};
use rustix::io::Errno;

use super::node::{Body, Node};
use super::tree::{Base, Found, Tree, What};
use crate::frames::lock;

/// A name, and what it stands for.
#[derive(Clone, Debug)]
pub struct Name {
    pub name: Vec<u8>,
    pub inode: u64,
    /// As `DT_REG` and its like have it.
    pub kind: u8,
}

/// A listing that was begun.
#[derive(Debug)]
pub struct Listing {
    base: Base,
    /// Whether the root folder's names show.
    lower: bool,
    state: State,
    /// Names given so far.
    given: u64,
    /// One that there was no room for.
    back: Option<Name>,
}

#[derive(Debug)]
enum State {
    Start,
    Parent,
    Upper(Option<Vec<u8>>),
    Lower(Dir),
    End,
}

impl Listing {
    /// The listing of a folder that was found.
    pub fn of(found: &Found) -> Self {
        Self::new(
            found.base(),
            match &found.what {
                What::Upper(_) => found.lower,
                _ => true,
            },
        )
    }

    fn new(base: Base, lower: bool) -> Self {
        Self {
            base,
            lower,
            state: State::Start,
            given: 0,
            back: None,
        }
    }

    /// The folder.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Names given so far, which is a position.
    pub fn position(&self) -> u64 {
        self.given
    }

    /// Goes to a position.
    pub fn seek(&mut self, tree: &mut Tree, position: u64) -> Result<(), Errno> {
        self.refresh(tree);
        if position == self.given {
            return Ok(());
        }
        if position < self.given {
            *self = Self::new(std::mem::take(&mut self.base), self.lower);
        }
        while self.given < position && self.next(tree)?.is_some() {}
        Ok(())
    }

    /// Takes a name back that [`Listing::next`] has given last.
    pub fn put_back(&mut self, name: Name) {
        self.given -= 1;
        self.back = Some(name);
    }

    /// The next name.
    pub fn next(&mut self, tree: &mut Tree) -> Result<Option<Name>, Errno> {
        let name = match self.back.take() {
            Some(name) => Some(name),
            None => self.step(tree)?,
        };
        self.given += u64::from(name.is_some());
        Ok(name)
    }

    /// Looks what has become of a folder that was of the root folder only.
    pub fn refresh(&mut self, tree: &Tree) {
        if self.lower && self.base.node.is_none() {
            let (node, lower) = tree.folder_at(&self.base.path);
            (self.base.node, self.lower) = (node.filter(|_| lower), lower);
        }
    }

    fn step(&mut self, tree: &mut Tree) -> Result<Option<Name>, Errno> {
        let dots = |name: &[u8]| Name {
            name: name.to_vec(),
            inode: 1,
            kind: 4,
        };
        loop {
            tree.step(1)?;
            match &mut self.state {
                State::Start => {
                    self.state = State::Parent;
                    return Ok(Some(dots(b".")));
                }
                State::Parent => {
                    self.state = State::Upper(None);
                    return Ok(Some(dots(b"..")));
                }
                State::Upper(last) => {
                    if let Some(name) = next_upper(self.base.node.as_ref(), last.as_deref()) {
                        *last = Some(name.name.clone());
                        return Ok(Some(name));
                    }
                    let lower = if self.lower {
                        open_lower(tree, &self.base.path)?
                    } else {
                        None
                    };
                    self.state = lower.map_or(State::End, State::Lower);
                }
                State::Lower(folder) => {
                    let Some(entry) = folder.read() else {
                        self.state = State::End;
                        continue;
                    };
                    let entry = entry?;
                    let name = entry.file_name().to_bytes();
                    if name == b"." || name == b".." || in_memory(self.base.node.as_ref(), name) {
                        continue;
                    }
                    return Ok(Some(Name {
                        name: name.to_vec(),
                        inode: entry.ino(),
                        kind: kind(entry.file_type()),
                    }));
                }
                State::End => return Ok(None),
            }
        }
    }
}

fn next_upper(node: Option<&Arc<Node>>, last: Option<&[u8]>) -> Option<Name> {
    let folder = lock(node?.folder()?);
    let after = last.map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = folder.entries.range::<[u8], _>((after, Bound::Unbounded));
    rest.find_map(|(name, entry)| {
        let node = entry.node.as_ref()?;
        Some(Name {
            name: name.clone(),
            inode: node.inode(),
            kind: match node.body {
                Body::File(_) => 8,
                Body::Folder(_) => 4,
                Body::Link(_) => 10,
                Body::Device(_) => 2,
            },
        })
    })
}

fn in_memory(node: Option<&Arc<Node>>, name: &[u8]) -> bool {
    let folder = node.and_then(|node| node.folder());
    folder.is_some_and(|folder| lock(folder).entries.contains_key(name))
}

fn open_lower(tree: &mut Tree, path: &[u8]) -> Result<Option<Dir>, Errno> {
    let Some(root) = &mut tree.root else {
        return Ok(None);
    };
    match root.open_folder(path) {
        Ok(folder) => Ok(Some(Dir::new(folder)?)),
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::ACCESS) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn kind(kind: FileType) -> u8 {
    match kind {
        FileType::Fifo => 1,
        FileType::CharacterDevice => 2,
        FileType::Directory => 4,
        FileType::BlockDevice => 6,
        FileType::RegularFile => 8,
        FileType::Symlink => 10,
        FileType::Socket => 12,
        FileType::Unknown => 0,
    }
}
