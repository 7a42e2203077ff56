//! The folder of the host that programs see, read-only. Paths are looked up below it by the kernel
//! (`openat2` with `RESOLVE_IN_ROOT`), and none of them has a link on the way: links are followed
//! by [`super::tree`], which sees files in memory too.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, fstatfs, openat, openat2, readlinkat};
use rustix::io::Errno;

use super::status::{S_IFDIR, S_IFREG, Status};

/// File systems by which the kernel talks about this process and this host: proc, sysfs, debugfs,
/// tracefs, securityfs, cgroup, cgroup2, bpf, devpts, pstore, efivarfs, selinuxfs, binderfs, mqueue.
const HIDDEN: [i64; 14] = [
    0x9fa0,
    0x6265_6572,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x0027_e0eb,
    0x6367_7270,
    0xcafe_4a11,
    0x1cd1,
    0x6165_676c,
    0xde5e_81e4,
    0xf97c_ff8c,
    0x6c6f_6f70,
    0x1980_0202,
];

/// How often the kernel may say that it was disturbed.
const RETRIES: usize = 64;

/// The root folder.
#[derive(Debug)]
pub struct Root {
    folder: OwnedFd,
    /// Whether files of a device may be seen, by its number.
    devices: BTreeMap<u64, bool>,
}

/// A file below it, not opened.
#[derive(Debug)]
pub struct Lower {
    handle: OwnedFd,
    pub status: Status,
}

impl Lower {
    /// Where a link leads.
    pub fn target(&self) -> Result<Vec<u8>, Errno> {
        let target = readlinkat(&self.handle, "", Vec::with_capacity(256))?;
        Ok(target.into_bytes())
    }
}

impl Root {
    pub fn open(path: &Path) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            folder: openat(CWD, path, flags, Mode::empty())?,
            devices: BTreeMap::new(),
        })
    }

    fn open_below(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let path = if path.is_empty() { b"." } else { path };
        let resolve =
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        for _ in 0..RETRIES {
            match openat2(&self.folder, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Looks a path up that has no links in it; `None` where nothing is there. Every link on the
    /// way is an error, `ELOOP`.
    pub fn find(&mut self, path: &[u8]) -> Result<Option<Lower>, Errno> {
        let handle = match self.open_below(path, OFlags::PATH) {
            Ok(handle) => handle,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let status = Status::of(&fstat(&handle)?);
        self.check(&handle, &status)?;
        Ok(Some(Lower { handle, status }))
    }

    fn check(&mut self, handle: &OwnedFd, status: &Status) -> Result<(), Errno> {
        let seen = match self.devices.get(&status.device) {
            Some(seen) => *seen,
            None => {
                #[allow(clippy::useless_conversion)] // Its type differs by architecture.
                let kind: i64 = fstatfs(handle)?.f_type.into();
                let seen = !HIDDEN.contains(&kind);
                self.devices.insert(status.device, seen);
                seen
            }
        };
        if seen { Ok(()) } else { Err(Errno::ACCESS) }
    }

    /// Opens a regular file for reading. What else is there is never opened: a FIFO would block,
    /// and devices do things when they are.
    pub fn open_file(&mut self, path: &[u8]) -> Result<OwnedFd, Errno> {
        // Should somebody put something else in its place now, this does not wait for it.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        self.open_checked(path, flags, S_IFREG)
    }

    /// Opens a folder to list it.
    pub fn open_folder(&mut self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        self.open_checked(path, flags, S_IFDIR)
    }

    fn open_checked(&mut self, path: &[u8], flags: OFlags, kind: u32) -> Result<OwnedFd, Errno> {
        let before = self.find(path)?.ok_or(Errno::NOENT)?;
        if before.status.kind() != kind {
            return Err(Errno::ACCESS);
        }
        let file = self.open_below(path, flags)?;
        let status = Status::of(&fstat(&file)?);
        self.check(&file, &status)?;
        if status.kind() != kind {
            return Err(Errno::ACCESS);
        }
        Ok(file)
    }
}
