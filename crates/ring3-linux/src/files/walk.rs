//! Walking paths name by name. Every folder on the way is kept, so that `..` is one step, and what
//! was walked counts as work: a path may lead through thousands of folders and links.

use std::sync::Arc;

use rustix::io::Errno;

use super::node::{Body, Node};
use super::status::{S_IFDIR, S_IFLNK};
use super::tree::{Base, Found, Tree, What};
use crate::frames::lock;

/// As `NAME_MAX` and `PATH_MAX` have it.
const MOST_NAME: usize = 255;
const MOST_PATH: usize = 4096;
/// Links that may be followed for one path.
const MOST_LINKS: usize = 40;
/// Steps that a look into the root folder counts as: the kernel walks the whole path.
const LOWER_STEPS: u32 = 64;

/// A folder on the way, which may not be there.
struct Place {
    /// Where its path ends.
    end: usize,
    upper: Option<Arc<Node>>,
    /// Whether the root folder's shows.
    lower: bool,
}

/// Where a walk is.
struct Walk {
    path: Vec<u8>,
    place: Place,
    /// The folders above, the top first.
    above: Vec<Place>,
}

impl Walk {
    fn enter(&mut self, name: &[u8], upper: Option<Arc<Node>>, lower: bool) {
        self.path.push(b'/');
        self.path.extend_from_slice(name);
        let end = self.path.len();
        let place = Place { end, upper, lower };
        self.above.push(std::mem::replace(&mut self.place, place));
    }

    fn leave(&mut self) {
        if let Some(place) = self.above.pop() {
            self.path.truncate(place.end);
            self.place = place;
        }
    }

    fn rise(&mut self) {
        while !self.above.is_empty() {
            self.leave();
        }
    }

    fn has_room_for(&self, name: &[u8]) -> bool {
        self.path.len() + name.len() + 1 < MOST_PATH
    }
}

impl Tree {
    /// A walk that is at the top.
    fn walk(&self) -> Walk {
        Walk {
            path: Vec::new(),
            place: Place {
                end: 0,
                upper: Some(Arc::clone(self.top())),
                lower: self.root.is_some(),
            },
            above: Vec::new(),
        }
    }

    /// A walk that is at a path without links, whatever is there.
    fn walk_to(&self, path: &[u8]) -> Walk {
        let mut walk = self.walk();
        let names = path.split(|byte| *byte == b'/');
        for name in names.filter(|name| !name.is_empty()) {
            let upper = entry_of(walk.place.upper.as_ref(), name);
            let (upper, lower) = below(upper, walk.place.lower);
            walk.enter(name, upper, lower);
        }
        walk
    }

    /// What is in memory at a path without links, and whether the root folder's shows.
    pub(super) fn folder_at(&self, path: &[u8]) -> (Option<Arc<Node>>, bool) {
        let place = self.walk_to(path).place;
        (place.upper, place.lower)
    }

    /// The path of a folder as it is now. `ENOENT` where it was taken away.
    pub fn path_of(&self, base: &Base) -> Result<Vec<u8>, Errno> {
        let Some(node) = &base.node else {
            return Ok(base.path.clone());
        };
        let mut node = Arc::clone(node);
        let mut names = Vec::new();
        let mut length = 0;
        while !Arc::ptr_eq(&node, &self.top) {
            let (folder, name) = node.place().ok_or(Errno::NOENT)?;
            length += name.len() + 1;
            if length >= MOST_PATH {
                return Err(Errno::NAMETOOLONG);
            }
            names.push(name);
            node = folder;
        }
        let mut path = Vec::with_capacity(length);
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        Ok(path)
    }

    /// A walk that is at a folder, which may have moved, and may be gone.
    fn walk_from(&mut self, base: &Base) -> Result<Walk, Errno> {
        let walk = self.walk_to(&self.path_of(base)?);
        let place = &walk.place;
        let is_there = match &place.upper {
            // One that was of the root folder is no other that was made in its place.
            Some(node) if base.node.is_some() || place.lower || walk.path.is_empty() => {
                node.folder().is_some()
            }
            None if place.lower => {
                let lower = self.find_lower(&walk.path)?;
                lower.is_some_and(|lower| lower.status.is_folder())
            }
            _ => false,
        };
        if is_there {
            Ok(walk)
        } else {
            Err(Errno::NOENT)
        }
    }

    fn child(&mut self, walk: &Walk, name: &[u8]) -> Result<What, Errno> {
        if name.len() > MOST_NAME || !walk.has_room_for(name) {
            return Err(Errno::NAMETOOLONG);
        }
        match entry_of(walk.place.upper.as_ref(), name) {
            Some(Some(node)) => return Ok(What::Upper(node)),
            Some(None) => return Ok(What::Missing),
            None => {}
        }
        if !walk.place.lower {
            return Ok(What::Missing);
        }
        self.step(LOWER_STEPS)?;
        let path = joined(&walk.path, name);
        Ok(self.find_lower(&path)?.map_or(What::Missing, What::Lower))
    }

    /// Walks a path from a folder; links at its end are followed or not.
    pub fn find(&mut self, base: &Base, path: &[u8], follow: bool) -> Result<Found, Errno> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        let mut walk = if path.starts_with(b"/") {
            self.walk()
        } else {
            self.walk_from(base)?
        };
        let mut rest = path.to_vec();
        let mut at = 0;
        let mut links = 0;
        loop {
            self.step(1)?;
            let Some(next) = Next::of(&rest, &mut at) else {
                return self.end_at(walk);
            };
            let Next { name, last, slash } = next;
            if name == b"." {
                continue;
            }
            if name == b".." {
                walk.leave();
                continue;
            }
            let name = name.to_vec();
            let what = self.child(&walk, &name)?;
            // Whether the root folder shows through it, or where it would be.
            let lower = match &what {
                What::Upper(node) => shows_through(node, walk.place.lower),
                _ => walk.place.lower,
            };
            let target = match &what {
                What::Upper(node) => match &node.body {
                    Body::Link(link) if !last || follow || slash => Some(link.target.clone()),
                    Body::Folder(_) if !last => {
                        walk.enter(&name, Some(Arc::clone(node)), lower);
                        continue;
                    }
                    _ => None,
                },
                What::Lower(found) => match found.status.kind() {
                    S_IFLNK if !last || follow || slash => Some(found.target()?),
                    S_IFDIR if !last => {
                        walk.enter(&name, None, lower);
                        continue;
                    }
                    _ => None,
                },
                What::Missing if !last => return Err(Errno::NOENT),
                What::Missing => None,
            };
            if let Some(mut target) = target {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::LOOP);
                }
                if target.is_empty() {
                    return Err(Errno::NOENT);
                }
                if target.starts_with(b"/") {
                    walk.rise();
                }
                target.extend_from_slice(rest.get(at..).unwrap_or_default());
                rest = target;
                at = 0;
                continue;
            }
            let is_folder = match &what {
                What::Upper(node) => node.folder().is_some(),
                What::Lower(lower) => lower.status.is_folder(),
                What::Missing => true,
            };
            if !last || slash && !is_folder {
                return Err(Errno::NOTDIR);
            }
            return Ok(Found {
                path: joined(&walk.path, &name),
                what,
                lower,
                folder: slash,
                dots: false,
            });
        }
    }

    /// The end of a path of dots or slashes: a folder that was walked.
    fn end_at(&mut self, walk: Walk) -> Result<Found, Errno> {
        let what = match walk.place.upper {
            Some(node) => What::Upper(node),
            None => self
                .find_lower(&walk.path)?
                .map_or(What::Missing, What::Lower),
        };
        Ok(Found {
            path: walk.path,
            what,
            lower: walk.place.lower,
            folder: true,
            dots: true,
        })
    }
}

/// The next name of a path.
struct Next<'path> {
    name: &'path [u8],
    /// Whether no other is behind it, and whether slashes are.
    last: bool,
    slash: bool,
}

impl<'path> Next<'path> {
    /// The name from `at` on, which is moved behind it; `None` at the end.
    fn of(path: &'path [u8], at: &mut usize) -> Option<Self> {
        let from = path.get(*at..)?;
        let skip = from.iter().take_while(|byte| **byte == b'/').count();
        let from = from.get(skip..).filter(|from| !from.is_empty())?;
        let length = from.iter().position(|byte| *byte == b'/');
        let (name, behind) = from.split_at_checked(length.unwrap_or(from.len()))?;
        *at += skip + name.len();
        let last = behind.iter().all(|byte| *byte == b'/');
        Some(Self {
            name,
            last,
            slash: last && !behind.is_empty(),
        })
    }
}

/// What the folder in memory has by a name: nothing, something, or that nothing is there.
#[allow(clippy::option_option)] // Three answers, each with its own meaning.
fn entry_of(folder: Option<&Arc<Node>>, name: &[u8]) -> Option<Option<Arc<Node>>> {
    let folder = lock(folder?.folder()?);
    folder.entries.get(name).map(|entry| entry.node.clone())
}

/// Whether the root folder shows through what is in memory.
fn shows_through(node: &Node, lower: bool) -> bool {
    lower && node.folder().is_some_and(|folder| !lock(folder).opaque)
}

/// What is in memory below, and whether the root folder shows through it.
#[allow(clippy::option_option)]
fn below(entry: Option<Option<Arc<Node>>>, lower: bool) -> (Option<Arc<Node>>, bool) {
    match entry {
        None => (None, lower),
        Some(None) => (None, false),
        Some(Some(node)) => {
            let lower = shows_through(&node, lower);
            (Some(node), lower)
        }
    }
}

/// A path and a name behind it.
fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(path.len() + name.len() + 1);
    joined.extend_from_slice(path);
    joined.push(b'/');
    joined.extend_from_slice(name);
    joined
}

/// The folder of a path without links, and the last name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let at = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let (folder, name) = path.split_at(at);
    (folder, name.strip_prefix(b"/").unwrap_or(name))
}
