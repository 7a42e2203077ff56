//! A program's descriptors, and what they lead to.

use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use crate::files::{Base, Listing, LowerFile, Node, Reader, Writer};
use crate::streams::Which;

/// Most descriptors that a limit may allow.
pub const MOST: u32 = 4096;

/// What a descriptor leads to; duplicates share it.
#[derive(Debug)]
pub struct Description {
    pub object: Object,
    /// Access mode and status flags, as `open` takes them.
    pub flags: u32,
    pub position: u64,
}

/// The thing itself.
#[derive(Debug)]
pub enum Object {
    Stdin,
    Output(Which),
    /// A file of the root folder.
    Lower(Arc<LowerFile>),
    /// A file or device in memory.
    Upper(Arc<Node>),
    Folder(Box<Listing>),
    Reader(Reader),
    Writer(Writer),
    /// Only a place in the tree (`O_PATH`).
    Path(Base),
}

/// A description that a call uses.
pub type Shared = Arc<Mutex<Description>>;

#[derive(Clone, Debug)]
struct Descriptor {
    description: Shared,
    close_on_exec: bool,
}

/// The table.
#[derive(Debug)]
pub struct Descriptors {
    table: Vec<Option<Descriptor>>,
    limit: usize,
    open: usize,
}

impl Descriptors {
    /// Those that a program begins with.
    pub fn new(limit: u32) -> Self {
        let mut descriptors = Self {
            table: Vec::new(),
            limit: usize::try_from(limit.min(MOST)).unwrap_or(0),
            open: 0,
        };
        let streams = [
            (Object::Stdin, 0),
            (Object::Output(Which::Stdout), 1),
            (Object::Output(Which::Stderr), 1),
        ];
        for (object, flags) in streams {
            // A limit below three leaves some of them closed.
            let _ = descriptors.add(
                Description {
                    object,
                    flags,
                    position: 0,
                },
                false,
            );
        }
        descriptors
    }

    /// Most that may be open.
    pub fn limit(&self) -> usize {
        self.limit
    }

    fn index(fd: u64) -> usize {
        // Descriptors are `int`: programs leave garbage above.
        usize::try_from(crate::calls::int(fd)).unwrap_or(usize::MAX)
    }

    /// What a descriptor leads to.
    pub fn get(&self, fd: u64) -> Result<Shared, Errno> {
        let slot = self.table.get(Self::index(fd)).and_then(Option::as_ref);
        let slot = slot.ok_or(Errno::BADF)?;
        Ok(Arc::clone(&slot.description))
    }

    /// Whether it would be closed by `execve`.
    pub fn close_on_exec(&self, fd: u64) -> Result<bool, Errno> {
        let slot = self.table.get(Self::index(fd)).and_then(Option::as_ref);
        Ok(slot.ok_or(Errno::BADF)?.close_on_exec)
    }

    pub fn set_close_on_exec(&mut self, fd: u64, on: bool) -> Result<(), Errno> {
        let slot = self.table.get_mut(Self::index(fd)).and_then(Option::as_mut);
        slot.ok_or(Errno::BADF)?.close_on_exec = on;
        Ok(())
    }

    /// Whether there is room for one more.
    pub fn has_room(&self) -> Result<(), Errno> {
        if self.open < self.limit {
            Ok(())
        } else {
            Err(Errno::MFILE)
        }
    }

    /// Opens the lowest free one.
    pub fn add(&mut self, description: Description, close_on_exec: bool) -> Result<u64, Errno> {
        self.share(Arc::new(Mutex::new(description)), 0, close_on_exec)
    }

    /// Opens the lowest free one from `from` on.
    pub fn share(
        &mut self,
        description: Shared,
        from: u64,
        close_on_exec: bool,
    ) -> Result<u64, Errno> {
        let from = Self::index(from);
        if from >= self.limit {
            return Err(Errno::INVAL);
        }
        let fd = (from..self.limit)
            .find(|fd| self.table.get(*fd).is_none_or(Option::is_none))
            .ok_or(Errno::MFILE)?;
        let descriptor = Descriptor {
            description,
            close_on_exec,
        };
        self.set(fd, descriptor);
        Ok(fd as u64)
    }

    /// Makes one lead to the same as another.
    pub fn replace(
        &mut self,
        fd: u64,
        description: Shared,
        close_on_exec: bool,
    ) -> Result<u64, Errno> {
        let index = Self::index(fd);
        if index >= self.limit {
            return Err(Errno::BADF);
        }
        let descriptor = Descriptor {
            description,
            close_on_exec,
        };
        self.set(index, descriptor);
        Ok(index as u64)
    }

    fn set(&mut self, fd: usize, descriptor: Descriptor) {
        if self.table.len() <= fd {
            self.table.resize(fd + 1, None);
        }
        if let Some(slot) = self.table.get_mut(fd)
            && slot.replace(descriptor).is_none()
        {
            self.open += 1;
        }
    }

    pub fn close(&mut self, fd: u64) -> Result<(), Errno> {
        let slot = self.table.get_mut(Self::index(fd));
        slot.and_then(Option::take).ok_or(Errno::BADF)?;
        self.open -= 1;
        Ok(())
    }

    /// One past the highest that may be open.
    pub fn end(&self) -> u64 {
        self.table.len() as u64
    }
}
