//! Starting the executable, and what the system knows of it.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use microvm_test_support::skip;
use tempfile::TempDir;

use super::driver::PATIENCE;

/// The executable, without a `RUST_LOG` of this environment's.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_microvm-virtiofsd"));
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs it to its end: status and standard error.
pub fn refused(args: &[&str]) -> (Option<i32>, String) {
    let output = command().args(args).output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// A running daemon that shares `share` in a folder of its own. Dropping it ends it.
pub struct Daemon {
    pub folder: TempDir,
    pub child: Child,
    stderr: BufReader<ChildStderr>,
    pub log: String,
}

impl Daemon {
    /// Starts it and waits until it listens.
    pub fn start(args: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), args, |_| ())
    }

    pub fn start_in(folder: TempDir, args: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let share = folder.path().join("share");
        std::fs::create_dir_all(&share).unwrap();
        Self::start_sharing(folder, &share, args, change)
    }

    pub fn start_sharing(
        folder: TempDir,
        share: &Path,
        args: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = command();
        command.arg("--shared-dir").arg(share);
        command
            .arg("--socket-path")
            .arg(folder.path().join("socket"));
        command.args(args).stderr(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut daemon = Self {
            folder,
            child,
            stderr,
            log: String::new(),
        };
        daemon.expect_log("Waiting for vhost-user socket connection...");
        daemon
    }

    pub fn share(&self) -> PathBuf {
        self.folder.path().join("share")
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    pub fn pid_file(&self) -> PathBuf {
        self.folder.path().join("socket.pid")
    }

    /// Reads the log up to a line that has `text`.
    pub fn expect_log(&mut self, text: &str) {
        loop {
            let before = self.log.len();
            let read = self.stderr.read_line(&mut self.log).unwrap();
            assert_ne!(read, 0, "the daemon ended without {text:?}:\n{}", self.log);
            if self.log[before..].contains(text) {
                return;
            }
        }
    }

    /// Waits for its end; the rest of the log is in `log` then.
    pub fn wait(&mut self) -> ExitStatus {
        self.stderr.read_to_string(&mut self.log).unwrap();
        self.child.wait().unwrap()
    }

    /// Waits for its end, which must come soon.
    pub fn ends_in_time(&mut self) -> ExitStatus {
        // SAFETY: takes numbers only; the child has not been waited for.
        let number = unsafe { libc::syscall(libc::SYS_pidfd_open, self.child.id(), 0) };
        // SAFETY: the kernel has just made it.
        let process = unsafe { OwnedFd::from_raw_fd(i32::try_from(number).unwrap()) };
        let mut polled = libc::pollfd {
            fd: process.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one entry, as is said.
        let ready = unsafe { libc::poll(&raw mut polled, 1, PATIENCE) };
        assert_eq!(ready, 1, "the daemon does not end");
        self.wait()
    }

    pub fn signal(&self, signal: i32) {
        send(self.child.id(), signal);
    }

    /// The process that serves: the last of the line of children.
    pub fn server(&self) -> u32 {
        let mut last = self.child.id();
        while let Some(child) = child_of(last) {
            last = child;
        }
        last
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.signal(libc::SIGTERM);
            // Its end is that of its children too: they hold the pipe.
            let _ = self.stderr.read_to_string(&mut self.log);
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log);
        }
    }
}

pub fn send(pid: u32, signal: i32) {
    let pid = libc::pid_t::try_from(pid).unwrap();
    // SAFETY: takes numbers only.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

fn child_of(pid: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// A line of `/proc/PID/status`, without its name.
pub fn status_of(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap().trim().to_owned()
}

pub fn is_root() -> bool {
    // SAFETY: takes nothing.
    unsafe { libc::geteuid() == 0 }
}

/// Skips the test where this is not root with all that it may do.
pub fn require_root(what: &str) {
    if !is_root() {
        skip(format!("only root can try this: {what}"));
    }
}
