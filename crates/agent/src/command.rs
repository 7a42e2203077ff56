//! One command of the host's: started through `/bin/sh -c`, its outputs kept, ended when nobody wants it any more.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::fcntl::{OFlag, open};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, chdir, pipe2};

use crate::capture::Capture;
use crate::cgroup::{CommandGroup, CommandGroups};
use crate::channel::{FRAME_LIMIT, Reply};
use crate::console::note;
use crate::shell::{self, ARGUMENT_LIMIT, EXIT_NOT_EXECUTABLE};

/// Room for the notes about cut outputs at the end of standard error.
const NOTES_BYTES: usize = 256;

/// A command that runs, or whose end has not been answered yet.
#[derive(Debug)]
pub(crate) struct RunningCommand {
    pid: Pid,
    exit_code: Option<u8>,
    pub(crate) stdout: Capture,
    pub(crate) stderr: Capture,
    group: Option<CommandGroup>,
    /// Holds a script that is too long for an argument; the shell opens it through /proc.
    _script: Option<OwnedFd>,
}

/// What every command inherits from PID 1.
pub(crate) fn set_defaults_for_commands() {
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    if let Err(errno) = chdir("/") {
        note(format_args!("cannot change into /: {errno}"));
    }
    if let Err(error) = shell::limit_open_files() {
        note(format_args!("cannot set the limit of open files: {error}"));
    }
}

impl RunningCommand {
    /// Starts a command line, or answers at once why it cannot run.
    pub(crate) fn start(line: Vec<u8>, groups: &mut CommandGroups) -> Result<Self, Reply> {
        let Ok(line) = CString::new(line) else {
            return Err(Reply::refusal(
                EXIT_NOT_EXECUTABLE,
                "the command holds a NUL byte and is no known request",
            ));
        };
        let group = groups.take();
        match Self::try_start(&line, group.as_ref()) {
            Ok(command) => Ok(Self { group, ..command }),
            Err(error) => {
                if let Some(group) = group {
                    groups.give_back(group);
                }
                Err(Reply::refusal(
                    EXIT_NOT_EXECUTABLE,
                    &format!("the command cannot be started: {error}"),
                ))
            }
        }
    }

    fn try_start(line: &CStr, group: Option<&CommandGroup>) -> io::Result<Self> {
        let (script, line) = if line.count_bytes() < ARGUMENT_LIMIT {
            (None, line.to_owned())
        } else {
            let (script, line) = shell::script_of(line)?;
            (Some(script), line)
        };
        let stdin = open(
            "/dev/null",
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        let (stdout, child_stdout) = pipe2(OFlag::O_CLOEXEC)?;
        let (stderr, child_stderr) = pipe2(OFlag::O_CLOEXEC)?;
        let streams = [
            stdin.as_raw_fd(),
            child_stdout.as_raw_fd(),
            child_stderr.as_raw_fd(),
        ];
        let pid = shell::spawn(&line, streams, group.map(|group| group.folder.as_fd()))?;
        Ok(Self {
            pid,
            exit_code: None,
            stdout: Capture::new(stdout, FRAME_LIMIT),
            stderr: Capture::new(stderr, FRAME_LIMIT.saturating_sub(NOTES_BYTES)),
            group: None,
            _script: script,
        })
    }

    /// Takes note of the end of a child, if it is this command's shell.
    pub(crate) fn child_ended(&mut self, pid: Pid, exit_code: u8) {
        if pid == self.pid {
            self.exit_code = Some(exit_code);
        }
    }

    /// True once the shell has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.exit_code.is_some()
    }

    /// The answer to a command that has ended: all that it had written by now.
    ///
    /// Background processes may hold the outputs open for ever, so nobody waits for their ends.
    pub(crate) fn into_reply(self, groups: &mut CommandGroups) -> Reply {
        let stdout = self.stdout.finish();
        let stderr = self.stderr.finish();
        if let Some(group) = self.group {
            groups.give_back(group);
        }
        let cuts = [("output", stdout.cut_at), ("error", stderr.cut_at)];
        let mut stderr = stderr.bytes;
        for (name, limit) in cuts
            .into_iter()
            .filter_map(|(name, cut_at)| Some((name, cut_at?)))
        {
            if stderr.last().is_some_and(|byte| *byte != b'\n') {
                stderr.push(b'\n');
            }
            let note = format!("microvm-agent: standard {name} was cut after {limit} bytes\n");
            stderr.extend_from_slice(note.as_bytes());
        }
        Reply {
            stdout: stdout.bytes,
            stderr,
            exit_code: self.exit_code.unwrap_or(u8::MAX),
        }
    }

    /// Ends the command and all that it has started.
    pub(crate) fn kill(self, groups: &mut CommandGroups) {
        // While its status was not taken, nobody else can have its number.
        if self.exit_code.is_none() {
            // The group may not be there yet when the child has just been made; then it is alone.
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = killpg(self.pid, Signal::SIGKILL);
        }
        if let Some(group) = self.group {
            if let Err(error) = group.kill() {
                note(format_args!(
                    "cannot kill a command's control group: {error}"
                ));
            }
            groups.give_back(group);
        }
    }
}
