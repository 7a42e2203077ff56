//! What the daemon gives up before it serves: the host's file tree, and capabilities.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::net::UnixListener;
use std::path::Path;

use vhost::vhost_user::Listener;
use virtiofsd::passthrough::InodeFileHandlesMode;
use virtiofsd::sandbox::{Sandbox, SandboxMode};

use crate::capabilities::{self, Capability};
use crate::error::Error;
use crate::options::Options;
use crate::single_file;

/// What a daemon inside its sandbox has.
pub struct Entered {
    pub listener: Listener,
    /// The shared folder, as it is called inside.
    pub root_dir: String,
    pub mountinfo_prefix: Option<String>,
    pub proc_self_fd: Option<File>,
    pub mountinfo: Option<File>,
}

/// Enters the sandbox. With namespaces only a new process returns; the old one waits for it and ends like it.
pub fn enter(
    options: &Options,
    shared_dir: String,
    listener: UnixListener,
) -> Result<Entered, Error> {
    let namespace = options.sandbox == SandboxMode::Namespace;
    let shared_dir = if namespace && Path::new(&shared_dir).is_file() {
        single_file::folder_of(Path::new(&shared_dir))?
    } else {
        shared_dir
    };
    let mut sandbox = Sandbox::new(
        shared_dir,
        options.sandbox,
        options.uid_map.clone(),
        options.gid_map.clone(),
    );
    let mountinfo_prefix = sandbox
        .get_mountinfo_prefix()
        .map_err(Error::MountinfoPrefix)?;
    let listener = sandbox
        .enter(Listener::from(listener))
        .map_err(Error::Sandbox)?;
    Ok(Entered {
        listener,
        root_dir: sandbox.get_root_dir(),
        mountinfo_prefix,
        proc_self_fd: sandbox.get_proc_self_fd(),
        mountinfo: sandbox.get_mountinfo_fd(),
    })
}

/// What the file-system layer needs when it runs as root.
const NEEDED: [&str; 8] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "SETGID",
    "SETUID",
    "MKNOD",
    "SETFCAP",
];
/// What opening a file by its handle needs.
const BY_HANDLE: &str = "DAC_READ_SEARCH";

/// The capabilities that are kept.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept {
    capabilities: BTreeSet<Capability>,
    /// Those that were asked for by name, which are not given up silently.
    asked_for: BTreeSet<Capability>,
}

impl Kept {
    /// Works `--modcaps` into the default: a list of `+name` and `-name`, separated by colons.
    pub fn parse(modcaps: Option<&str>, handles: InodeFileHandlesMode) -> Result<Self, Error> {
        let by_name = |name: &str| {
            capabilities::by_name(name).ok_or_else(|| Error::UnknownCapability(name.to_owned()))
        };
        let read_search = by_name(BY_HANDLE)?;
        let mut kept = NEEDED
            .into_iter()
            .map(by_name)
            .collect::<Result<BTreeSet<_>, _>>()?;
        let mut asked_for = BTreeSet::new();
        let mut removed = BTreeSet::new();
        for change in modcaps.into_iter().flat_map(|changes| changes.split(':')) {
            let mut characters = change.chars();
            let action = characters.next().ok_or(Error::EmptyModcap)?;
            if !matches!(action, '+' | '-') {
                return Err(Error::ModcapAction(action.to_string()));
            }
            let capability = by_name(&characters.as_str().to_uppercase())?;
            if action == '+' {
                removed.remove(&capability);
                kept.insert(capability);
                asked_for.insert(capability);
            } else {
                kept.remove(&capability);
                asked_for.remove(&capability);
                removed.insert(capability);
            }
        }
        let handles = match handles {
            InodeFileHandlesMode::Never => None,
            InodeFileHandlesMode::Prefer => Some("prefer"),
            InodeFileHandlesMode::Mandatory => Some("mandatory"),
        };
        if let Some(mode) = handles {
            if removed.contains(&read_search) {
                return Err(Error::NeedsReadSearch(mode));
            }
            kept.insert(read_search);
            if mode == "mandatory" {
                asked_for.insert(read_search);
            }
        }
        Ok(Self {
            capabilities: kept,
            asked_for,
        })
    }

    /// Gives up all others, for good. Without root, capabilities are as the caller or the namespace has set them.
    pub fn drop_others(&self) -> Result<(), Error> {
        // SAFETY: takes nothing.
        if unsafe { libc::geteuid() } != 0 {
            return Ok(());
        }
        capabilities::keep_only(&self.capabilities, &self.asked_for).map_err(Error::Capabilities)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(modcaps: Option<&str>, handles: InodeFileHandlesMode) -> Result<Vec<String>, String> {
        let kept = Kept::parse(modcaps, handles).map_err(|error| error.to_string())?;
        Ok(kept.capabilities.iter().map(Capability::name).collect())
    }

    #[test]
    fn the_default_is_what_the_file_system_needs() {
        let mut needed: Vec<_> = NEEDED.map(str::to_owned).to_vec();
        needed.sort();
        let mut kept = names(None, InodeFileHandlesMode::Never).unwrap();
        kept.sort();
        assert_eq!(kept, needed);
        let kept = names(None, InodeFileHandlesMode::Prefer).unwrap();
        assert!(kept.contains(&BY_HANDLE.to_owned()));
    }

    #[test]
    fn modcaps_add_and_remove_in_their_order() {
        let kept = names(
            Some("+sys_admin:-chown:-mknod:+mknod"),
            InodeFileHandlesMode::Never,
        )
        .unwrap();
        assert!(kept.contains(&"SYS_ADMIN".to_owned()) && kept.contains(&"MKNOD".to_owned()));
        assert!(!kept.contains(&"CHOWN".to_owned()));
    }

    #[test]
    fn modcaps_that_make_no_sense_are_refused() {
        let refused = |modcaps, handles| names(Some(modcaps), handles).unwrap_err();
        let never = InodeFileHandlesMode::Never;
        assert!(refused("+chown:", never).starts_with("empty modcap found"));
        assert!(refused("", never).starts_with("empty modcap found"));
        assert!(refused("chown", never).contains("expecting '+'|'-' but found 'c'"));
        assert!(refused("ächown", never).contains("but found 'ä'"));
        assert_eq!(refused("+fly", never), "invalid capability 'FLY'");
        assert_eq!(
            refused("-dac_read_search", InodeFileHandlesMode::Mandatory),
            "can't disable DAC_READ_SEARCH when using --inode-file-handles=mandatory"
        );
        assert!(names(Some("-dac_read_search"), never).is_ok());
    }
}
