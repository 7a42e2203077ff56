//! The start of a shell for a command line.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;

/// As a shell has them: found, but cannot be executed; and not found.
pub(crate) const EXIT_NOT_EXECUTABLE: u8 = 126;
pub(crate) const EXIT_NOT_FOUND: u8 = 127;

const SHELL: &CStr = c"/bin/sh";
const ENVIRONMENT: [&CStr; 2] = [
    c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    c"HOME=/root",
];

/// The kernel takes no longer single argument (`MAX_ARG_STRLEN`, with the NUL at its end).
pub(crate) const ARGUMENT_LIMIT: usize = 128 * 1024;
/// libc's constant is too narrow for the value.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// What distributions give: few at once by default, and as many as a server may ask for.
static OPEN_FILES: libc::rlimit = libc::rlimit {
    rlim_cur: 1024,
    rlim_max: 524_288,
};
/// Whether children get these limits; an agent that is run by hand hands on what it was given.
static LIMITS_FILES: AtomicBool = AtomicBool::new(false);

/// Lets this process have as many files open as commands may ask for: it has several for each of hundreds of commands.
/// Children begin with the usual limit.
pub(crate) fn limit_open_files() -> io::Result<()> {
    let own = libc::rlimit {
        rlim_cur: OPEN_FILES.rlim_max,
        ..OPEN_FILES
    };
    // SAFETY: the structure lives through the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const own) } != 0 {
        return Err(io::Error::last_os_error());
    }
    LIMITS_FILES.store(true, Ordering::Relaxed);
    Ok(())
}

/// A command line too long for an argument, as a file, and the short line that makes a shell read it.
pub(crate) fn script_of(line: &CStr) -> io::Result<(OwnedFd, CString)> {
    let script = memfd_create(c"command", MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(script);
    file.write_all(line.to_bytes())?;
    let path = format!(". /proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    Ok((file.into(), CString::new(path)?))
}

/// Makes a child in its own session that runs the shell with these standard streams.
///
/// It is in the control group from its first instant, where there is one: moving a process later waits for an RCU grace
/// period, which costs milliseconds on several CPUs.
pub(crate) fn spawn(
    line: &CStr,
    streams: [RawFd; 3],
    group: Option<BorrowedFd<'_>>,
) -> io::Result<Pid> {
    let arguments = [SHELL.as_ptr(), c"-c".as_ptr(), line.as_ptr(), ptr::null()];
    let environment = ENVIRONMENT.map(CStr::as_ptr);
    let environment: Vec<_> = environment.into_iter().chain([ptr::null()]).collect();

    match fork_into(group)? {
        Some(pid) => Ok(pid),
        None => run_shell(&arguments, &environment, streams),
    }
}

/// Like `fork`, into a control group where that works. `None` in the child, which may make system calls only.
pub(crate) fn fork_into(group: Option<BorrowedFd<'_>>) -> io::Result<Option<Pid>> {
    IGNORED.get_or_init(ignored);
    let mut pid = -1;
    if let Some(group) = group {
        pid = clone(Some(group));
    }
    if pid < 0 {
        pid = clone(None);
    }
    match pid {
        0 => Ok(None),
        pid if pid > 0 => Ok(Some(Pid::from_raw(
            i32::try_from(pid).map_err(io::Error::other)?,
        ))),
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
    reset_for_program();
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

/// Gives a child what programs expect: default signals, for what is ignored or blocked stays so across `execve` and the
/// agent does both; and the usual limit of open files.
pub(crate) fn reset_for_program() {
    if LIMITS_FILES.load(Ordering::Relaxed) {
        // SAFETY: the structure lives through the call. To lower one's own limit never fails.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const OPEN_FILES) };
    }
    reset_dispositions();
    // SAFETY: an all-zero sigset_t is the empty set on Linux.
    let empty: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: the set lives through the call; no old mask is asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, ptr::null_mut()) };
}

/// The signals that this process ignores, a bit for each, as it was at the first child: what the agent follows it blocks. To
/// look at all 64 in each child would be half of the system calls that it takes to start a program.
static IGNORED: OnceLock<u64> = OnceLock::new();

/// The kernel's own structure (handler, flags, restorer, mask), whose size is the same on x86-64 and arm64: all zeroes is
/// SIG_DFL. libc's function would leave out the two signals that libc keeps for itself.
type Disposition = [u64; 4];
const SIG_IGN: u64 = 1;

fn disposition(signal: i32, new: Option<&Disposition>, old: Option<&mut Disposition>) {
    let new = new.map_or(ptr::null(), ptr::from_ref);
    let old = old.map_or(ptr::null_mut(), ptr::from_mut);
    // SAFETY: the structures live through the call, and no function is installed: the callers set the default only.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, new, old, size_of::<u64>()) };
}

fn ignored() -> u64 {
    (1..=64).fold(0, |ignored, signal| {
        let mut now = Disposition::default();
        disposition(signal, None, Some(&mut now));
        let [handler, ..] = now;
        ignored | u64::from(handler == SIG_IGN) << (signal - 1)
    })
}

/// `execve` does the rest: what is handled is the default behind it.
fn reset_dispositions() {
    let mut ignored = IGNORED.get().copied().unwrap_or(u64::MAX);
    while ignored != 0 {
        let signal = ignored.trailing_zeros();
        ignored &= ignored - 1;
        disposition(
            signal.cast_signed() + 1,
            Some(&Disposition::default()),
            None,
        );
    }
}
