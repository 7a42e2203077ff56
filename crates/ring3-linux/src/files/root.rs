//! The folder of the host that programs see, read-only. Paths are looked up below it by the kernel
//! (`openat2` with `RESOLVE_IN_ROOT`), and none of them has a link on the way: links are followed
//! by [`super::tree`], which sees files in memory too.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, fstatfs, openat, openat2, readlinkat};
use rustix::io::Errno;

use super::USER;
use super::node::DEVICE;
use super::status::{S_IFDIR, S_IFREG, Status};

/// File systems by which the kernel talks about this process and this host: proc, sysfs, debugfs,
/// tracefs, securityfs, cgroup, cgroup2, bpf, devpts, pstore, efivarfs, selinuxfs, binderfs, mqueue,
/// configfs, fusectl, `binfmt_misc`, nfsd, `rpc_pipefs`, resctrl, hugetlbfs, nsfs; and autofs, of
/// which a look below would mount something.
const HIDDEN: [i64; 23] = [
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
    0x6265_6570,
    0x6573_5543,
    0x4249_4e4d,
    0x6e66_7364,
    0x6759_6969,
    0x0765_5821,
    0x9584_58f6,
    0x6e73_6673,
    0x0187,
];

/// How often the kernel may say that it was disturbed.
const RETRIES: usize = 64;

/// The root folder.
#[derive(Debug)]
pub struct Root {
    folder: OwnedFd,
    /// Numbers that programs see in place of those of the host's devices.
    devices: BTreeMap<u64, u64>,
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
        let status = self.check(&handle)?;
        Ok(Some(Lower { handle, status }))
    }

    /// What programs may know of a file; none of those that are closed to them. Which file system
    /// it is on is asked each time: a device's number is another's once it was unmounted.
    fn check(&mut self, handle: &OwnedFd) -> Result<Status, Errno> {
        #[allow(clippy::useless_conversion)] // Its type differs by architecture.
        let kind: i64 = fstatfs(handle)?.f_type.into();
        // Some architectures have it as 32 bits with a sign.
        if HIDDEN.contains(&(kind & 0xffff_ffff)) {
            return Err(Errno::ACCESS);
        }
        let status = Status::of(&fstat(handle)?);
        let next = DEVICE + 1 + self.devices.len() as u64;
        let device = *self.devices.entry(status.device).or_insert(next);
        Ok(Status {
            device,
            user: USER,
            group: USER,
            ..status
        })
    }

    /// Opens a regular file for reading. What else is there is never opened: a FIFO would block,
    /// and devices do things when they are.
    pub fn open_file(&mut self, path: &[u8]) -> Result<(OwnedFd, Status), Errno> {
        // Should somebody put something else in its place now, this does not wait for it.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        self.open_checked(path, flags, S_IFREG)
    }

    /// Opens a folder to list it.
    pub fn open_folder(&mut self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        Ok(self.open_checked(path, flags, S_IFDIR)?.0)
    }

    fn open_checked(
        &mut self,
        path: &[u8],
        flags: OFlags,
        kind: u32,
    ) -> Result<(OwnedFd, Status), Errno> {
        let before = self.find(path)?.ok_or(Errno::NOENT)?;
        if before.status.kind() != kind {
            return Err(Errno::ACCESS);
        }
        let file = self.open_below(path, flags)?;
        let status = self.check(&file)?;
        if status.kind() != kind {
            return Err(Errno::ACCESS);
        }
        Ok((file, status))
    }
}
