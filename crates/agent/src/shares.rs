//! Folders and files of the host, which virtio-fs devices bring by their tags.
//!
//! They are mounted before the host is dialled, so that whoever gets the machine finds them. A share that cannot be
//! mounted ends the guest: a program must never write beside the folder that it means.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot};

use crate::console::note;
use crate::mounts;

/// Where shares are mounted that are not for use as they are. In memory, and the agent's own.
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

    fn mount(&self) -> io::Result<()> {
        let flags = match self.read_only {
            true => MsFlags::MS_RDONLY,
            false => MsFlags::empty(),
        };
        let Some(name) = &self.file else {
            fs::create_dir_all(&self.target)?;
            return virtiofs(&self.tag, &self.target, flags);
        };
        let staged = Path::new(STAGING).join(&self.tag);
        fs::create_dir_all(&staged)?;
        virtiofs(&self.tag, &staged, flags)?;
        if let Some(folder) = self.target.parent() {
            fs::create_dir_all(folder)?;
        }
        // The file to mount upon; what is there stays as it is.
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.target)?;
        let file = staged.join(name);
        let none = None::<&str>;
        mount(Some(&file), &self.target, none, MsFlags::MS_BIND, none)?;
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

fn virtiofs(tag: &str, target: &Path, flags: MsFlags) -> io::Result<()> {
    let none = None::<&str>;
    mount(Some(tag), target, Some("virtiofs"), flags, none).map_err(Into::into)
}

/// Mounts the root folder and the shares; false when one of them cannot be, which is noted.
pub(crate) fn mount_all(root: Option<&Root>, shares: &[Share]) -> bool {
    if let Some(root) = root
        && let Err(error) = root.mount()
    {
        note(format_args!("cannot mount the root folder: {error}"));
        return false;
    }
    for share in shares {
        if let Err(error) = share.mount() {
            note(format_args!(
                "cannot mount {}: {error}",
                share.target.display()
            ));
            return false;
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
    fn a_root_is_an_overlay_or_written_to() {
        assert!(Root::parse("root,overlay").unwrap().overlay);
        assert!(!Root::parse("root,rw").unwrap().overlay);
        for value in ["", "root", ",rw", "root,ro"] {
            assert_eq!(Root::parse(value), None, "{value}");
        }
    }
}
