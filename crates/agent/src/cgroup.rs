//! A control group for each command, so that all it has started can be ended at once, daemons included.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::console::note;

/// Below it each command gets its group; made in the cgroup2 hierarchy that [`mounts`](crate::mounts) mounts.
pub(crate) const ROOT: &str = "/sys/fs/cgroup/microvm";

/// The same for the processes of the agent API.
pub(crate) const API_ROOT: &str = "/sys/fs/cgroup/microvm-api";

/// Six short words with numbers, at most.
const EVENTS_BYTES: usize = 512;

/// Makes and removes the groups.
#[derive(Debug)]
pub(crate) struct CommandGroups {
    /// `None` where there is no cgroup2: a command's process group has to do then.
    root: Option<PathBuf>,
    made: u64,
    /// One that nobody had yet: making one takes long enough to be done before it is asked for.
    prepared: Option<CommandGroup>,
    /// Groups of finished commands. Background processes may live on in them.
    finished: Vec<PathBuf>,
}

/// The group of one command.
#[derive(Debug)]
pub(crate) struct CommandGroup {
    path: PathBuf,
    /// The open folder, for CLONE_INTO_CGROUP.
    pub(crate) folder: File,
    /// `memory.events`, where memory is counted.
    events: Option<File>,
}

impl CommandGroups {
    pub(crate) fn under(root: &Path) -> Self {
        // A folder of an ordinary file system could be made too, so look for a file that only cgroup2 makes.
        let usable =
            fs::create_dir_all(root).and_then(|()| fs::metadata(root.join("cgroup.procs")));
        match usable {
            Ok(_) => {
                count_memory(root);
                Self {
                    root: Some(root.to_owned()),
                    ..Self::none()
                }
            }
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
            prepared: None,
            finished: Vec::new(),
        }
    }

    /// A fresh group, or `None` where there can be none.
    pub(crate) fn take(&mut self) -> Option<CommandGroup> {
        self.prepared.take().or_else(|| self.make())
    }

    fn make(&mut self) -> Option<CommandGroup> {
        let root = self.root.as_ref()?;
        self.made = self.made.saturating_add(1);
        let path = root.join(self.made.to_string());
        match fs::create_dir(&path).and_then(|()| File::open(&path)) {
            Ok(folder) => Some(CommandGroup {
                events: File::open(path.join("memory.events")).ok(),
                path,
                folder,
            }),
            Err(error) => {
                note(format_args!(
                    "no control group for a command: {}: {error}",
                    path.display()
                ));
                None
            }
        }
    }

    /// Takes the group of a finished command back. It is removed by [`CommandGroups::tidy`].
    pub(crate) fn give_back(&mut self, group: CommandGroup) {
        self.finished.push(group.path);
    }

    /// What commands need not wait for: removes the groups in which nobody lives any more, and prepares one.
    pub(crate) fn tidy(&mut self) {
        self.finished.retain(|path| {
            fs::remove_dir(path).is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
        });
        if self.prepared.is_none() {
            self.prepared = self.make();
        }
    }
}

/// Has the groups below count memory, so that they tell whom the kernel has killed for want of it. A kernel that cannot
/// count tells nothing then.
fn count_memory(root: &Path) {
    for folder in root.parent().into_iter().chain([root]) {
        let _ = fs::write(folder.join("cgroup.subtree_control"), "+memory");
    }
}

/// How many processes the kernel has killed for want of memory, in the words of `memory.events`.
fn kills_in(events: &str) -> u64 {
    let mut lines = events.lines().filter_map(|line| line.split_once(' '));
    lines
        .find(|(name, _)| *name == "oom_kill")
        .and_then(|(_, count)| count.trim().parse().ok())
        .unwrap_or(0)
}

impl CommandGroup {
    /// How many of its processes the kernel has killed for want of memory.
    pub(crate) fn out_of_memory_kills(&self) -> u64 {
        let mut text = [0; EVENTS_BYTES];
        let read = self.events.as_ref().map(|file| file.read_at(&mut text, 0));
        let text = read.and_then(Result::ok).and_then(|read| text.get(..read));
        text.map_or(0, |text| kills_in(&String::from_utf8_lossy(text)))
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_by_their_own_line() {
        let events = "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 5\n";
        assert_eq!(kills_in(events), 4);
        for nothing in ["", "oom_kill\n", "oom_kill x\n", "oom 3\n"] {
            assert_eq!(kills_in(nothing), 0, "{nothing:?}");
        }
    }
}
