//! One command of the host's: started through `/bin/sh -c`, its outputs kept, ended when nobody wants it any more.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use nix::fcntl::{OFlag, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, chdir, pipe2};

use crate::cgroup::{CommandGroup, CommandGroups};
use crate::channel::{FRAME_LIMIT, Reply};
use crate::console::note;

/// As a shell has them: found, but cannot be executed; and not found.
const EXIT_NOT_EXECUTABLE: u8 = 126;
const EXIT_NOT_FOUND: u8 = 127;

const SHELL: &CStr = c"/bin/sh";
const ENVIRONMENT: [&CStr; 2] = [
    c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    c"HOME=/root",
];

/// The kernel takes no longer single argument (`MAX_ARG_STRLEN`, with the NUL at its end).
const ARGUMENT_LIMIT: usize = 128 * 1024;
/// libc's constant is too narrow for the value.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Room for the notes about cut outputs at the end of standard error.
const NOTES_BYTES: usize = 256;
const CHUNK_BYTES: usize = 64 * 1024;
/// What distributions give: few at once by default, and as many as a server may ask for.
const OPEN_FILES: (u64, u64) = (1024, 524_288);

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

/// One output of a command.
#[derive(Debug)]
pub(crate) struct Capture {
    /// `None` once all writers have closed it.
    pipe: Option<File>,
    kept: Vec<u8>,
    limit: usize,
    cut: bool,
}

/// What every command inherits from PID 1.
pub(crate) fn set_defaults_for_commands() {
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    if let Err(errno) = chdir("/") {
        note(format_args!("cannot change into /: {errno}"));
    }
    let (soft, hard) = OPEN_FILES;
    if let Err(errno) = setrlimit(Resource::RLIMIT_NOFILE, soft, hard) {
        note(format_args!("cannot set the limit of open files: {errno}"));
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
        let group = groups.make();
        match Self::try_start(&line, group.as_ref()) {
            Ok(command) => Ok(Self { group, ..command }),
            Err(error) => {
                if let Some(group) = group {
                    groups.remove(group);
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
            let (script, line) = script_of(line)?;
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
        let pid = spawn_shell(&line, streams, group.map(|group| group.folder.as_fd()))?;
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
    pub(crate) fn into_reply(mut self, groups: &mut CommandGroups) -> Reply {
        self.stdout.drain();
        self.stderr.drain();
        if let Some(group) = self.group {
            groups.remove(group);
        }
        let mut stderr = self.stderr.kept;
        let outputs = [
            ("output", self.stdout.cut, self.stdout.limit),
            ("error", self.stderr.cut, self.stderr.limit),
        ];
        for (name, _, limit) in outputs.into_iter().filter(|(_, cut, _)| *cut) {
            if stderr.last().is_some_and(|byte| *byte != b'\n') {
                stderr.push(b'\n');
            }
            stderr.extend_from_slice(
                format!("microvm-agent: standard {name} was cut after {limit} bytes\n").as_bytes(),
            );
        }
        Reply {
            stdout: self.stdout.kept,
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
            groups.remove(group);
        }
    }
}

impl Capture {
    fn new(pipe: OwnedFd, limit: usize) -> Self {
        Self {
            pipe: Some(File::from(pipe)),
            kept: Vec::new(),
            limit,
            cut: false,
        }
    }

    /// The pipe to wait on, while it has writers.
    pub(crate) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Reads once; the pipe is readable. Bytes over the limit are read and dropped, so that the writer does not stall.
    pub(crate) fn read(&mut self) -> usize {
        let Some(pipe) = &mut self.pipe else { return 0 };
        let mut chunk = [0; CHUNK_BYTES];
        let count = match pipe.read(&mut chunk) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return 0,
            Err(_) => 0,
        };
        if count == 0 {
            self.pipe = None;
        }
        let read = chunk.get(..count).unwrap_or_default();
        let room = self.limit.saturating_sub(self.kept.len());
        self.cut |= read.len() > room;
        self.kept
            .extend_from_slice(read.get(..room.min(read.len())).unwrap_or_default());
        count
    }

    /// Reads what is in the pipe now, and no more: another process may go on writing.
    fn drain(&mut self) {
        let mut rest = self.pipe.as_ref().map_or(0, bytes_in_pipe);
        while rest > 0 && self.pipe.is_some() {
            rest = rest.saturating_sub(self.read());
        }
    }
}

fn bytes_in_pipe(pipe: &File) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD stores one int, which lives through the call.
    unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    usize::try_from(count).unwrap_or(0)
}

/// A command line too long for an argument, as a file, and the short line that makes a shell read it.
fn script_of(line: &CStr) -> io::Result<(OwnedFd, CString)> {
    let script = memfd_create(c"command", MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(script);
    file.write_all(line.to_bytes())?;
    let path = format!(". /proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    Ok((file.into(), CString::new(path)?))
}

/// Makes a child in its own session that runs the shell; in the control group from its first instant, where there is
/// one (moving a process later waits for an RCU grace period).
fn spawn_shell(line: &CStr, streams: [RawFd; 3], group: Option<BorrowedFd<'_>>) -> io::Result<Pid> {
    let arguments = [SHELL.as_ptr(), c"-c".as_ptr(), line.as_ptr(), ptr::null()];
    let environment = ENVIRONMENT.map(CStr::as_ptr);
    let environment: Vec<_> = environment.into_iter().chain([ptr::null()]).collect();

    let mut pid = -1;
    if let Some(group) = group {
        pid = clone(Some(group));
    }
    if pid < 0 {
        pid = clone(None);
    }
    match pid {
        0 => run_shell(&arguments, &environment, streams),
        pid if pid > 0 => Ok(Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Like `fork`: returns the child's number in the parent, 0 in the child, and -1 with errno on failure.
fn clone(group: Option<BorrowedFd<'_>>) -> libc::c_long {
    // SAFETY: all zeroes is a valid clone_args: no flags, no stack of its own.
    let mut request: libc::clone_args = unsafe { mem::zeroed() };
    request.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    if let Some(group) = group {
        request.flags = CLONE_INTO_CGROUP;
        request.cgroup = u64::from(group.as_raw_fd().unsigned_abs());
    }
    // SAFETY: the structure lives through the call. Without CLONE_VM the child runs on in a copy of this memory, and
    // `run_shell` makes only system calls there.
    unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut request,
            size_of::<libc::clone_args>(),
        )
    }
}

/// The child's part. Makes system calls only: that stays right should the agent ever have more threads.
fn run_shell(
    arguments: &[*const libc::c_char],
    environment: &[*const libc::c_char],
    streams: [RawFd; 3],
) -> ! {
    for (number, stream) in (0..).zip(streams) {
        // SAFETY: the call takes numbers only. The sources lie above 2, so none is overwritten.
        unsafe { libc::dup2(stream, number) };
    }
    // All of the agent's own are closed by execve; this is for what it may have inherited itself.
    // SAFETY: the call takes numbers only. This copy of the agent runs no destructors, so nobody misses a descriptor.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    // SAFETY: the call has no preconditions.
    unsafe { libc::setsid() };
    reset_dispositions();
    // SAFETY: an all-zero sigset_t is the empty set on Linux.
    let empty: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: the set lives through the call; no old mask is asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, ptr::null_mut()) };
    // SAFETY: the path is NUL-terminated and both arrays end with NULL.
    unsafe { libc::execve(SHELL.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };

    let (exit_code, reason): (u8, &[u8]) = match io::Error::last_os_error().raw_os_error() {
        Some(libc::ENOENT) => (
            EXIT_NOT_FOUND,
            b"microvm-agent: this guest has no /bin/sh to run a command with\n",
        ),
        Some(libc::EACCES) => (
            EXIT_NOT_EXECUTABLE,
            b"microvm-agent: /bin/sh may not be executed\n",
        ),
        _ => (
            EXIT_NOT_EXECUTABLE,
            b"microvm-agent: /bin/sh cannot be executed\n",
        ),
    };
    // SAFETY: the buffer is as long as told.
    unsafe { libc::write(2, reason.as_ptr().cast(), reason.len()) };
    // SAFETY: _exit ends this child only.
    unsafe { libc::_exit(i32::from(exit_code)) }
}

/// Ignored signals stay ignored across `execve`; the agent ignores SIGPIPE.
fn reset_dispositions() {
    // The kernel's own structure (handler, flags, restorer, mask): all zeroes is SIG_DFL, and its size is the same on
    // x86-64 and arm64. libc's function would leave out the two signals that libc keeps for itself.
    let default = [0_u64; 4];
    let (none, mask_bytes) = (ptr::null::<u64>(), size_of::<u64>());
    for signal in 1..=64_i32 {
        // SAFETY: the structure lives through the call and installs no function.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                none,
                mask_bytes,
            )
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(limit: usize) -> (Capture, File) {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).unwrap();
        (Capture::new(reader, limit), File::from(writer))
    }

    #[test]
    fn an_output_keeps_its_limit_and_takes_the_rest_without_stalling() {
        let (mut capture, mut writer) = capture(5);
        writer.write_all(b"123").unwrap();
        capture.read();
        assert!(!capture.cut);
        writer.write_all(b"456").unwrap();
        capture.read();
        assert!(capture.cut);
        assert_eq!(capture.kept, b"12345");
    }

    #[test]
    fn an_output_of_exactly_its_limit_is_not_cut() {
        let (mut capture, mut writer) = capture(3);
        writer.write_all(b"123").unwrap();
        drop(writer);
        capture.drain();
        assert!(!capture.cut);
        assert_eq!(capture.kept, b"123");
    }

    #[test]
    fn draining_takes_what_is_there_and_waits_for_no_writer() {
        let (mut capture, mut writer) = capture(100);
        writer.write_all(b"there").unwrap();
        capture.drain();
        assert_eq!(capture.kept, b"there");
        assert!(capture.pipe().is_some());
        capture.drain();
    }

    #[test]
    fn a_closed_output_is_waited_for_no_longer() {
        let (mut capture, writer) = capture(100);
        drop(writer);
        assert_eq!(capture.read(), 0);
        assert!(capture.pipe().is_none());
    }
}
