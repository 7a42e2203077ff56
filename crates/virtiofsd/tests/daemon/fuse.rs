//! FUSE requests (`linux/fuse.h`), as far as the tests make them.

use super::driver::Driver;

pub const ROOT: u64 = 1;
pub const LOOKUP: u32 = 1;
pub const FORGET: u32 = 2;
pub const GETATTR: u32 = 3;
pub const SETATTR: u32 = 4;
pub const SYMLINK: u32 = 6;
pub const MKNOD: u32 = 8;
pub const MKDIR: u32 = 9;
pub const UNLINK: u32 = 10;
pub const RENAME: u32 = 12;
pub const OPEN: u32 = 14;
pub const READ: u32 = 15;
pub const WRITE: u32 = 16;
pub const SETXATTR: u32 = 21;
pub const GETXATTR: u32 = 22;
pub const INIT: u32 = 26;
pub const CREATE: u32 = 35;
pub const READLINK: u32 = 5;
pub const LSEEK: u32 = 46;

/// Which user a request is of; the tests' own by default.
#[derive(Clone, Copy)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
}

pub fn me() -> Caller {
    // SAFETY: takes nothing.
    let uid = unsafe { libc::geteuid() };
    // SAFETY: takes nothing.
    let gid = unsafe { libc::getegid() };
    Caller { uid, gid }
}

/// A request with its header.
pub fn message(opcode: u32, node: u64, caller: Caller, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(40 + body.len()).unwrap();
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(opcode.to_le_bytes());
    bytes.extend(77u64.to_le_bytes());
    bytes.extend(node.to_le_bytes());
    for word in [caller.uid, caller.gid, 1, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(body);
    bytes
}

/// A file system that is mounted by a driver.
pub struct Mounted {
    pub driver: Driver,
    pub ring: usize,
    pub caller: Caller,
    /// Features that the daemon agreed to at INIT.
    pub flags: u64,
}

/// A looked-up file.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub node: u64,
    /// Seconds for which the name may be cached.
    pub valid: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub flags: u32,
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn name(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// Everything that a Linux 6.x driver offers.
const OFFERED: u64 = 0x1f_ffff_ffff;

impl Mounted {
    /// Sends INIT.
    pub fn mount(driver: Driver) -> Self {
        Self::mount_without(driver, 0).unwrap()
    }

    /// Sends INIT as a driver that lacks some features.
    pub fn mount_without(driver: Driver, lacking: u64) -> Result<Self, i32> {
        let mut mounted = Self {
            driver,
            ring: 1,
            caller: me(),
            flags: 0,
        };
        let offered = OFFERED & !lacking;
        let (low, high) = (offered as u32, (offered >> 32) as u32);
        let mut body = words(&[7, 38, 131_072, low, high]);
        body.resize(64, 0);
        let answer = mounted.call(INIT, 0, &body)?;
        assert_eq!(u32_at(&answer, 0), 7);
        mounted.flags = u64::from(u32_at(&answer, 12)) | u64::from(u32_at(&answer, 32)) << 32;
        Ok(mounted)
    }

    /// Sends a request: the answer's body, or its error number.
    pub fn call(&mut self, opcode: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
        self.call_with_room(opcode, node, body, 1 << 20)
    }

    fn call_with_room(
        &mut self,
        opcode: u32,
        node: u64,
        body: &[u8],
        room: u32,
    ) -> Result<Vec<u8>, i32> {
        let request = message(opcode, node, self.caller, body);
        let answer = self.driver.request(self.ring, &request, room);
        assert_eq!(u32_at(&answer, 0) as usize, answer.len());
        assert_eq!(u64_at(&answer, 8), 77);
        match u32_at(&answer, 4) as i32 {
            0 => Ok(answer[16..].to_vec()),
            error => Err(-error),
        }
    }

    pub fn lookup(&mut self, folder: u64, file: &str) -> Result<Entry, i32> {
        let answer = self.call(LOOKUP, folder, &name(file))?;
        Ok(entry(&answer))
    }

    /// Gives up a file that was looked up once. There is no answer to that.
    pub fn forget(&mut self, node: u64) {
        let request = message(FORGET, node, self.caller, &1u64.to_le_bytes());
        assert!(self.driver.request(self.ring, &request, 16).is_empty());
    }

    pub fn open(&mut self, node: u64, flags: i32) -> Result<u64, i32> {
        Ok(self.open_with(node, flags, 0)?.0)
    }

    /// Opens with flags of the request itself: the handle, and what the answer says of caching.
    pub fn open_with(&mut self, node: u64, flags: i32, more: u32) -> Result<(u64, u32), i32> {
        let answer = self.call(OPEN, node, &words(&[flags as u32, more]))?;
        Ok((u64_at(&answer, 0), u32_at(&answer, 8)))
    }

    pub fn read(&mut self, node: u64, handle: u64, at: u64, size: u32) -> Result<Vec<u8>, i32> {
        let mut body = handle.to_le_bytes().to_vec();
        body.extend(at.to_le_bytes());
        body.extend(words(&[size, 0, 0, 0, 0, 0]));
        // As drivers do it: the buffers are as large as what is asked for.
        let room = size.min(1 << 20) + 16;
        self.call_with_room(READ, node, &body, room)
    }

    /// Where the next data is, or the next hole.
    pub fn seek(&mut self, node: u64, handle: u64, at: u64, whence: i32) -> Result<u64, i32> {
        let mut body = handle.to_le_bytes().to_vec();
        body.extend(at.to_le_bytes());
        body.extend(words(&[whence as u32, 0]));
        Ok(u64_at(&self.call(LSEEK, node, &body)?, 0))
    }

    pub fn write(&mut self, node: u64, handle: u64, at: u64, data: &[u8]) -> Result<u32, i32> {
        self.write_with(node, handle, at, data, 0)
    }

    /// Writes with flags of the request itself.
    pub fn write_with(
        &mut self,
        node: u64,
        handle: u64,
        at: u64,
        data: &[u8],
        flags: u32,
    ) -> Result<u32, i32> {
        let mut body = handle.to_le_bytes().to_vec();
        body.extend(at.to_le_bytes());
        body.extend(words(&[data.len() as u32, flags, 0, 0, 0, 0]));
        body.extend(data);
        let answer = self.call(WRITE, node, &body)?;
        Ok(u32_at(&answer, 0))
    }

    /// Creates a file and opens it for writing.
    pub fn create(&mut self, folder: u64, file: &str) -> Result<(Entry, u64), i32> {
        self.create_with(folder, file, [0o644, 0], &[])
    }

    /// The same with a mode, the umask of the program in the guest, and extensions of the request.
    pub fn create_with(
        &mut self,
        folder: u64,
        file: &str,
        [mode, umask]: [u32; 2],
        extensions: &[u8],
    ) -> Result<(Entry, u64), i32> {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
        let mut body = words(&[flags as u32, libc::S_IFREG | mode, umask, 0]);
        body.extend(name(file));
        body.extend(extensions);
        let answer = self.call(CREATE, folder, &body)?;
        Ok((entry(&answer), u64_at(&answer, 128)))
    }

    /// Sets a file's size, with what else is to happen then.
    pub fn truncate_with(&mut self, node: u64, size: u64, valid: u32) -> Result<(), i32> {
        const SIZE: u32 = 1 << 3;
        let mut body = words(&[SIZE | valid, 0, 0, 0]);
        body.extend(size.to_le_bytes());
        body.resize(88, 0);
        self.call(SETATTR, node, &body).map(drop)
    }

    pub fn set_xattr(&mut self, node: u64, attribute: &str, value: &[u8]) -> Result<(), i32> {
        let mut body = words(&[value.len() as u32, 0]);
        if self.flags & (1 << 29) != 0 {
            body.extend(words(&[0, 0]));
        }
        body.extend(name(attribute));
        body.extend(value);
        self.call(SETXATTR, node, &body).map(drop)
    }

    pub fn get_xattr(&mut self, node: u64, attribute: &str) -> Result<Vec<u8>, i32> {
        let mut body = words(&[256, 0]);
        body.extend(name(attribute));
        self.call(GETXATTR, node, &body)
    }
}

fn entry(answer: &[u8]) -> Entry {
    Entry {
        node: u64_at(answer, 0),
        valid: u64_at(answer, 16),
        mode: u32_at(answer, 40 + 60),
        uid: u32_at(answer, 40 + 68),
        gid: u32_at(answer, 40 + 72),
        flags: u32_at(answer, 40 + 84),
    }
}
