//! Folders and files of the host, which virtio-fs devices bring by their tags.
//!
//! They are mounted before the host is dialled, so that whoever gets the machine finds them. A share that cannot be
//! mounted ends the guest: a program must never write beside the folder that it means.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot};

use crate::console::note;
use crate::mounts;

/// Where shares are mounted that are not for use as they are. In memory and the agent's own, for it is used only while
/// the initramfs is the root: another root's folders may be the host's.
const STAGING: &str = "/.microvm/shares";

/// A folder or file to mount.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Share {
    tag: String,
    read_only: bool,
    target: PathBuf,
    /// The one file in the share, where it is a file that is mounted.
    file: Option<String>,
}

/// What the root folder becomes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Root {
    tag: String,
    /// Changes stay in the guest's memory.
    overlay: bool,
}

impl Share {
    /// Reads `TAG,ro|rw,TARGET[,FILE]`, the last two percent-encoded.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split(',');
        let share = Self {
            tag: parts.next().filter(|tag| !tag.is_empty())?.to_owned(),
            read_only: match parts.next()? {
                "ro" => true,
                "rw" => false,
                _ => return None,
            },
            target: PathBuf::from(decode(parts.next()?)?),
            file: match parts.next() {
                Some(name) => Some(decode(name)?),
                None => None,
            },
        };
        (parts.next().is_none() && share.target.is_absolute()).then_some(share)
    }

    fn flags(&self) -> MsFlags {
        match self.read_only {
            true => MsFlags::MS_RDONLY,
            false => MsFlags::empty(),
        }
    }

    /// Mounts the share of a single file aside, and hands back the file in it.
    fn stage(&self) -> io::Result<Option<File>> {
        let Some(name) = &self.file else {
            return Ok(None);
        };
        let staged = Path::new(STAGING).join(&self.tag);
        fs::create_dir_all(&staged)?;
        virtiofs(&self.tag, &staged, self.flags())?;
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_PATH);
        options.open(staged.join(name)).map(Some)
    }

    fn mount(&self, staged: Option<&File>) -> io::Result<()> {
        let Some(file) = staged else {
            fs::create_dir_all(&self.target)?;
            return virtiofs(&self.tag, &self.target, self.flags());
        };
        ensure_file(&self.target)?;
        // The way there, as the root may be another one by now.
        let file = format!("/proc/self/fd/{}", file.as_raw_fd());
        let none = None::<&str>;
        mount(Some(&*file), &self.target, none, MsFlags::MS_BIND, none)?;
        if self.read_only {
            let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(none, &self.target, none, again, none)?;
        }
        Ok(())
    }
}

impl Root {
    /// Reads `TAG,overlay|rw`.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let (tag, overlay) = match value.split_once(',')? {
            (tag, "overlay") => (tag, true),
            (tag, "rw") => (tag, false),
            _ => return None,
        };
        (!tag.is_empty()).then(|| Self {
            tag: tag.to_owned(),
            overlay,
        })
    }

    fn mount(&self) -> io::Result<()> {
        let below = Path::new(STAGING).join(&self.tag);
        fs::create_dir_all(&below)?;
        if !self.overlay {
            virtiofs(&self.tag, &below, MsFlags::empty())?;
            return enter(&below);
        }
        virtiofs(&self.tag, &below, MsFlags::MS_RDONLY)?;
        let changes = Path::new(STAGING).join("changes");
        fs::create_dir_all(&changes)?;
        let memory = Some("mode=0755");
        mount(
            Some("tmpfs"),
            &changes,
            Some("tmpfs"),
            MsFlags::empty(),
            memory,
        )?;
        let (upper, work) = (changes.join("upper"), changes.join("work"));
        fs::create_dir(&upper)?;
        fs::create_dir(&work)?;
        let both = Path::new(STAGING).join("root");
        fs::create_dir_all(&both)?;
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            below.display(),
            upper.display(),
            work.display()
        );
        let overlay = Some("overlay");
        mount(overlay, &both, overlay, MsFlags::empty(), Some(&*options))?;
        enter(&both)
    }
}

/// Makes a folder the root of everything. The initramfs stays below, out of reach.
fn enter(root: &Path) -> io::Result<()> {
    let none = None::<&str>;
    chdir(root)?;
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none)?;
    chroot(".")?;
    chdir("/")?;
    // The new root has none of them, or the host's.
    mounts::mount_all();
    Ok(())
}

/// Makes sure that there is something to mount a file upon. What is there is not opened: it may be in a read-only share,
/// be large and lie under an overlay, or be a pipe.
fn ensure_file(target: &Path) -> io::Result<()> {
    if target.exists() {
        return Ok(());
    }
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    File::create_new(target).map(drop)
}

fn virtiofs(tag: &str, target: &Path, flags: MsFlags) -> io::Result<()> {
    let none = None::<&str>;
    mount(Some(tag), target, Some("virtiofs"), flags, none).map_err(Into::into)
}

/// Mounts the root folder and the shares; false when one of them cannot be, which is noted.
pub(crate) fn mount_all(root: Option<&Root>, shares: &[Share]) -> bool {
    let failed = |share: &Share, error: io::Error| {
        note(format_args!(
            "cannot mount {}: {error}",
            share.target.display()
        ));
        false
    };
    let mut staged = Vec::with_capacity(shares.len());
    for share in shares {
        match share.stage() {
            Ok(file) => staged.push(file),
            Err(error) => return failed(share, error),
        }
    }
    if let Some(root) = root
        && let Err(error) = root.mount()
    {
        note(format_args!("cannot mount the root folder: {error}"));
        return false;
    }
    for (share, file) in shares.iter().zip(&staged) {
        if let Err(error) = share.mount(file.as_ref()) {
            return failed(share, error);
        }
    }
    true
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let value = digit(rest.next()?)? << 4 | digit(rest.next()?)?;
        bytes.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_as_the_host_writes_them() {
        let folder = Share::parse("fs0,ro,/my%20work/%C3%A4").unwrap();
        assert!(folder.read_only && folder.file.is_none());
        assert_eq!(folder.target, Path::new("/my work/ä"));
        let file = Share::parse("fs1,rw,/etc/hosts,a%2Cb").unwrap();
        assert_eq!(file.file.as_deref(), Some("a,b"));
        assert!(!file.read_only);
    }

    #[test]
    fn shares_that_make_no_sense_are_refused() {
        for value in [
            "",
            "fs0",
            "fs0,ro",
            ",ro,/a",
            "fs0,maybe,/a",
            "fs0,ro,work",
            "fs0,ro,/%zz",
            "fs0,ro,/%f",
            "fs0,ro,/%ff",
            "fs0,ro,/a,b,c",
        ] {
            assert_eq!(Share::parse(value), None, "{value}");
        }
    }

    #[test]
    fn a_file_to_mount_upon_is_made_where_there_is_none_and_never_opened() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("a/b");
        ensure_file(&new).unwrap();
        assert_eq!(fs::read(&new).unwrap(), b"");
        fs::write(&new, "kept").unwrap();
        ensure_file(&new).unwrap();
        assert_eq!(fs::read(&new).unwrap(), b"kept");
        // Opened to be written, it would wait for a reader.
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        ensure_file(&pipe).unwrap();
    }

    #[test]
    fn a_root_is_an_overlay_or_written_to() {
        assert!(Root::parse("root,overlay").unwrap().overlay);
        assert!(!Root::parse("root,rw").unwrap().overlay);
        for value in ["", "root", ",rw", "root,ro"] {
            assert_eq!(Root::parse(value), None, "{value}");
        }
    }
}
