//! The file system behind a check of names, and of what it cannot know.
//!
//! A file's name in a request is one step from its folder. The driver of an honest guest never sends anything else,
//! but the file-system layer hands names as they come to the kernel, for which `../x` and `/x` are paths. So every
//! request that names a file is checked here, after its name was copied out of the guest's memory.
//!
//! Where a file has data and where holes is not known here while the guest delays writes, and its driver asks without
//! writing them out first. A program that copies what is called data would lose them.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use virtiofsd::filesystem::{
    Context, Entry, Extensions, FileSystem, FsOptions, GetxattrReply, ListxattrReply, OpenOptions,
    SerializableFileSystem, SetattrValid, SetxattrFlags, ZeroCopyReader, ZeroCopyWriter,
};
use virtiofsd::fuse::{Attr, SetattrIn};

/// A file system that is asked for plain names only.
#[derive(Debug)]
pub struct PlainNames<F> {
    pub fs: F,
    /// Whether the guest may delay writes.
    pub writeback: bool,
}

/// A name that can be given to a file: one step down.
fn new_name(name: &CStr) -> io::Result<()> {
    let name = name.to_bytes();
    if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    Ok(())
}

/// A name that can be looked up. `.` is how a kernel comes back to a file by a handle of its own. `..` would be how it
/// finds the folder of one, but the file-system layer cannot tell: it answers with the folder itself, or, where openat2
/// is not to be had, with one that may lie outside.
fn known_name(name: &CStr) -> io::Result<()> {
    match name.to_bytes() {
        b"." => Ok(()),
        _ => new_name(name),
    }
}

/// Methods that are handed on as they are.
macro_rules! hand_on {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(
            fn $name(&self, $($argument: $type),*) -> $result {
                self.fs.$name($($argument),*)
            }
        )*
    };
}

impl<F: FileSystem> FileSystem for PlainNames<F> {
    type Inode = F::Inode;
    type Handle = F::Handle;
    type DirIter = F::DirIter;

    fn lookup(&self, ctx: Context, parent: F::Inode, name: &CStr) -> io::Result<Entry> {
        known_name(name)?;
        self.fs.lookup(ctx, parent, name)
    }

    fn symlink(
        &self,
        ctx: Context,
        target: &CStr,
        parent: F::Inode,
        name: &CStr,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        new_name(name)?;
        self.fs.symlink(ctx, target, parent, name, extensions)
    }

    fn mknod(
        &self,
        ctx: Context,
        parent: F::Inode,
        name: &CStr,
        mode: u32,
        rdev: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        new_name(name)?;
        self.fs
            .mknod(ctx, parent, name, mode, rdev, umask, extensions)
    }

    fn mkdir(
        &self,
        ctx: Context,
        parent: F::Inode,
        name: &CStr,
        mode: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        new_name(name)?;
        self.fs.mkdir(ctx, parent, name, mode, umask, extensions)
    }

    fn unlink(&self, ctx: Context, parent: F::Inode, name: &CStr) -> io::Result<()> {
        new_name(name)?;
        self.fs.unlink(ctx, parent, name)
    }

    fn rmdir(&self, ctx: Context, parent: F::Inode, name: &CStr) -> io::Result<()> {
        new_name(name)?;
        self.fs.rmdir(ctx, parent, name)
    }

    fn rename(
        &self,
        ctx: Context,
        old_folder: F::Inode,
        old_name: &CStr,
        new_folder: F::Inode,
        name: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        new_name(old_name)?;
        new_name(name)?;
        self.fs
            .rename(ctx, old_folder, old_name, new_folder, name, flags)
    }

    fn link(
        &self,
        ctx: Context,
        inode: F::Inode,
        folder: F::Inode,
        name: &CStr,
    ) -> io::Result<Entry> {
        new_name(name)?;
        self.fs.link(ctx, inode, folder, name)
    }

    fn create(
        &self,
        ctx: Context,
        parent: F::Inode,
        name: &CStr,
        mode: u32,
        kill_priv: bool,
        flags: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<(Entry, Option<F::Handle>, OpenOptions)> {
        new_name(name)?;
        self.fs
            .create(ctx, parent, name, mode, kill_priv, flags, umask, extensions)
    }

    fn read<W: ZeroCopyWriter>(
        &self,
        ctx: Context,
        inode: F::Inode,
        handle: F::Handle,
        w: W,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        flags: u32,
    ) -> io::Result<usize> {
        self.fs
            .read(ctx, inode, handle, w, size, offset, lock_owner, flags)
    }

    fn write<R: ZeroCopyReader>(
        &self,
        ctx: Context,
        inode: F::Inode,
        handle: F::Handle,
        r: R,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        delayed_write: bool,
        kill_priv: bool,
        flags: u32,
    ) -> io::Result<usize> {
        self.fs.write(
            ctx,
            inode,
            handle,
            r,
            size,
            offset,
            lock_owner,
            delayed_write,
            kill_priv,
            flags,
        )
    }

    fn lseek(
        &self,
        ctx: Context,
        inode: F::Inode,
        handle: F::Handle,
        offset: u64,
        whence: u32,
    ) -> io::Result<u64> {
        // The driver then answers itself, from the size that it knows: all is data.
        if self.writeback {
            return Err(io::Error::from_raw_os_error(libc::ENOSYS));
        }
        self.fs.lseek(ctx, inode, handle, offset, whence)
    }

    hand_on! {
        fn init(capable: FsOptions) -> io::Result<FsOptions>;
        fn destroy() -> ();
        fn forget(ctx: Context, inode: F::Inode, count: u64) -> ();
        fn batch_forget(ctx: Context, requests: Vec<(F::Inode, u64)>) -> ();
        fn getattr(ctx: Context, inode: F::Inode, handle: Option<F::Handle>) -> io::Result<(Attr, Duration)>;
        fn setattr(ctx: Context, inode: F::Inode, attr: SetattrIn, handle: Option<F::Handle>, valid: SetattrValid) -> io::Result<(Attr, Duration)>;
        fn readlink(ctx: Context, inode: F::Inode) -> io::Result<Vec<u8>>;
        fn open(ctx: Context, inode: F::Inode, kill_priv: bool, flags: u32) -> io::Result<(Option<F::Handle>, OpenOptions)>;
        fn flush(ctx: Context, inode: F::Inode, handle: F::Handle, lock_owner: u64) -> io::Result<()>;
        fn fsync(ctx: Context, inode: F::Inode, datasync: bool, handle: F::Handle) -> io::Result<()>;
        fn fallocate(ctx: Context, inode: F::Inode, handle: F::Handle, mode: u32, offset: u64, length: u64) -> io::Result<()>;
        fn release(ctx: Context, inode: F::Inode, flags: u32, handle: F::Handle, flush: bool, flock_release: bool, lock_owner: Option<u64>) -> io::Result<()>;
        fn statfs(ctx: Context, inode: F::Inode) -> io::Result<libc::statvfs64>;
        fn setxattr(ctx: Context, inode: F::Inode, name: &CStr, value: &[u8], flags: u32, extra_flags: SetxattrFlags) -> io::Result<()>;
        fn getxattr(ctx: Context, inode: F::Inode, name: &CStr, size: u32) -> io::Result<GetxattrReply>;
        fn listxattr(ctx: Context, inode: F::Inode, size: u32) -> io::Result<ListxattrReply>;
        fn removexattr(ctx: Context, inode: F::Inode, name: &CStr) -> io::Result<()>;
        fn opendir(ctx: Context, inode: F::Inode, flags: u32) -> io::Result<(Option<F::Handle>, OpenOptions)>;
        fn readdir(ctx: Context, inode: F::Inode, handle: F::Handle, size: u32, offset: u64) -> io::Result<F::DirIter>;
        fn fsyncdir(ctx: Context, inode: F::Inode, datasync: bool, handle: F::Handle) -> io::Result<()>;
        fn releasedir(ctx: Context, inode: F::Inode, flags: u32, handle: F::Handle) -> io::Result<()>;
        fn access(ctx: Context, inode: F::Inode, mask: u32) -> io::Result<()>;
        fn copyfilerange(ctx: Context, inode_in: F::Inode, handle_in: F::Handle, offset_in: u64, inode_out: F::Inode, handle_out: F::Handle, offset_out: u64, len: u64, flags: u64) -> io::Result<usize>;
        fn syncfs(ctx: Context, inode: F::Inode) -> io::Result<()>;
        fn getlk() -> io::Result<()>;
        fn setlk() -> io::Result<()>;
        fn setlkw() -> io::Result<()>;
        fn ioctl() -> io::Result<()>;
        fn bmap() -> io::Result<()>;
        fn poll() -> io::Result<()>;
        fn notify_reply() -> io::Result<()>;
        fn tmpfile() -> io::Result<(Entry, Option<F::Handle>, OpenOptions)>;
    }
}

impl<F: SerializableFileSystem> SerializableFileSystem for PlainNames<F> {
    hand_on! {
        fn prepare_serialization(cancel: Arc<AtomicBool>) -> ();
        fn serialize(state_pipe: File) -> io::Result<()>;
        fn deserialize_and_apply(state_pipe: File) -> io::Result<()>;
    }
}
