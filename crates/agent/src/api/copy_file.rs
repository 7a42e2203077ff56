//! One file of the guest as another, as Node's `copyFile` makes it.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::content::{NO_WAITING, open_to_read};

/// Copies the content and the permissions of a regular file; a target that is there is replaced, unless it has to be new. What
/// was written of a copy that fails is removed.
pub(super) fn copy_file(from: &Path, to: &Path, is_new: bool) -> io::Result<()> {
    let (mut source, original) = open_to_read(from)?;
    if !original.is_file() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut target = OpenOptions::new()
        .write(true)
        .create(true)
        .create_new(is_new)
        .mode(original.mode() & 0o7777)
        .custom_flags(NO_WAITING)
        .open(to)?;
    let there = target.metadata()?;
    if (there.dev(), there.ino()) == (original.dev(), original.ino()) {
        return Ok(());
    }
    if !there.is_file() {
        return io::copy(&mut source, &mut target).map(drop);
    }
    let copied = target
        .set_len(0)
        .and_then(|()| target.set_permissions(original.permissions()))
        .and_then(|()| io::copy(&mut source, &mut target));
    if copied.is_err() {
        let _ = fs::remove_file(to);
    }
    copied.map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::tempdir;

    use super::*;

    fn errno(result: io::Result<()>) -> Option<i32> {
        result.err().and_then(|error| error.raw_os_error())
    }

    #[test]
    fn content_and_permissions_are_those_of_the_source() {
        let folder = tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        fs::write(&one, "short").unwrap();
        fs::set_permissions(&one, fs::Permissions::from_mode(0o4741)).unwrap();
        fs::write(&two, "something longer").unwrap();
        copy_file(&one, &two, false).unwrap();
        assert_eq!(fs::read(&two).unwrap(), b"short");
        assert_eq!(fs::metadata(&two).unwrap().mode() & 0o7777, 0o4741);
        assert_eq!(errno(copy_file(&one, &two, true)), Some(libc::EEXIST));
    }

    #[test]
    fn a_file_that_is_copied_to_itself_stays_as_it_is() {
        let folder = tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        fs::write(&one, "content").unwrap();
        fs::hard_link(&one, &two).unwrap();
        copy_file(&one, &two, false).unwrap();
        assert_eq!(fs::read(&one).unwrap(), b"content");
    }

    #[test]
    fn files_that_do_not_tell_their_size_are_copied_whole() {
        let folder = tempdir().unwrap();
        let target = folder.path().join("copy");
        copy_file(Path::new("/proc/version"), &target, false).unwrap();
        assert_eq!(
            fs::read(&target).unwrap(),
            fs::read("/proc/version").unwrap()
        );
    }

    #[test]
    fn what_is_no_file_is_refused_and_nothing_is_left_of_what_failed() {
        let folder = tempdir().unwrap();
        let target = folder.path().join("copy");
        assert_eq!(
            errno(copy_file(folder.path(), &target, false)),
            Some(libc::EISDIR)
        );
        assert_eq!(
            errno(copy_file(Path::new("/dev/zero"), &target, false)),
            Some(libc::EINVAL)
        );
        // A file that opens and cannot be read.
        assert_eq!(
            errno(copy_file(Path::new("/proc/self/mem"), &target, false)),
            Some(libc::EIO)
        );
        assert!(!target.exists());
        fs::write(&target, "x").unwrap();
        assert_eq!(
            errno(copy_file(&target, Path::new("/dev/full"), false)),
            Some(libc::ENOSPC)
        );
    }
}
