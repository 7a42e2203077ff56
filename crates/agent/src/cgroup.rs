//! A control group for each command, so that all it has started can be ended at once, daemons included.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::console::note;

/// Below it each command gets its group; made in the cgroup2 hierarchy that [`mounts`](crate::mounts) mounts.
pub(crate) const ROOT: &str = "/sys/fs/cgroup/microvm";

/// The same for the processes of the agent API.
pub(crate) const API_ROOT: &str = "/sys/fs/cgroup/microvm-api";

/// Makes and removes the groups.
#[derive(Debug)]
pub(crate) struct CommandGroups {
    /// `None` where there is no cgroup2: a command's process group has to do then.
    root: Option<PathBuf>,
    made: u64,
    /// Groups of finished commands in which background processes live on.
    inhabited: Vec<PathBuf>,
}

/// The group of one command.
#[derive(Debug)]
pub(crate) struct CommandGroup {
    path: PathBuf,
    /// The open folder, for CLONE_INTO_CGROUP.
    pub(crate) folder: File,
}

impl CommandGroups {
    pub(crate) fn under(root: &Path) -> Self {
        // A folder of an ordinary file system could be made too, so look for a file that only cgroup2 makes.
        let usable =
            fs::create_dir_all(root).and_then(|()| fs::metadata(root.join("cgroup.procs")));
        match usable {
            Ok(_) => Self {
                root: Some(root.to_owned()),
                ..Self::none()
            },
            Err(error) => {
                note(format_args!(
                    "no control groups for commands: {}: {error}",
                    root.display()
                ));
                Self::none()
            }
        }
    }

    /// Without groups.
    pub(crate) fn none() -> Self {
        Self {
            root: None,
            made: 0,
            inhabited: Vec::new(),
        }
    }

    /// A fresh group, or `None` where there can be none.
    pub(crate) fn make(&mut self) -> Option<CommandGroup> {
        let root = self.root.as_ref()?;
        self.made = self.made.saturating_add(1);
        let path = root.join(self.made.to_string());
        match fs::create_dir(&path).and_then(|()| File::open(&path)) {
            Ok(folder) => Some(CommandGroup { path, folder }),
            Err(error) => {
                note(format_args!(
                    "no control group for a command: {}: {error}",
                    path.display()
                ));
                None
            }
        }
    }

    /// Removes the group of a finished command, or as soon as nobody lives in it any more.
    pub(crate) fn remove(&mut self, group: CommandGroup) {
        self.inhabited.push(group.path);
        self.inhabited.retain(|path| {
            fs::remove_dir(path).is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
        });
    }
}

impl CommandGroup {
    /// Kills every process of the group at once (Linux 5.14).
    pub(crate) fn kill(&self) -> io::Result<()> {
        OpenOptions::new()
            .write(true)
            .open(self.path.join("cgroup.kill"))?
            .write_all(b"1")
    }

    /// The processes in it now; more may come while they are counted.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let list = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        list.lines().filter_map(|line| line.parse().ok()).collect()
    }
}
