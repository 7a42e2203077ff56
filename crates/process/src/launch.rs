//! Creation of the process, and its life up to `execve`.
//!
//! The child shares this process's memory and holds a copy of its descriptors. Until it executes its program it may
//! only make system calls: other threads may hold the allocator's lock, and whatever it wrote would stay written.

use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use crate::error::{SetUpStep, SpawnError};
use crate::prepare::Prepared;

const STACK_BYTES: usize = 64 * 1024;
const EXIT_CODE_NOT_STARTED: c_int = 127;

/// A stack for the child; used by one child at a time, as the parent waits for its `execve`.
#[derive(Debug)]
pub(crate) struct ChildStack(*mut c_void);

// SAFETY: the mapping belongs to this value alone and is not tied to a thread.
unsafe impl Send for ChildStack {}

impl ChildStack {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: an anonymous mapping at a place of the kernel's choice touches no memory of ours.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                STACK_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(Self(base))
        }
    }

    fn top(&self) -> *mut c_void {
        // The address one past the mapping is page-aligned, as a stack's start has to be 16-aligned.
        self.0.wrapping_byte_add(STACK_BYTES)
    }
}

impl Drop for ChildStack {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and no child runs on it: the parent waits for each.
        unsafe { libc::munmap(self.0, STACK_BYTES) };
    }
}

/// A process whose program runs.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) pid: libc::pid_t,
    pub(crate) pidfd: OwnedFd,
}

/// What the child reads, and the two words that it writes.
struct ChildPlan<'a> {
    parent: libc::pid_t,
    candidates: &'a [CString],
    args: *const *const c_char,
    env: *const *const c_char,
    cwd: *const c_char,
    fds: &'a [(OwnedFd, RawFd)],
    end_signal: c_int,
    failure: Option<Failure>,
}

#[derive(Debug, Clone, Copy)]
struct Failure {
    /// `None` is the `execve` itself.
    step: Option<SetUpStep>,
    errno: c_int,
}

/// Creates the process and waits until its program runs or it has failed.
///
/// The calling thread must have all signals blocked (the child inherits that, so no handler of this process can run in
/// it) and must live as long as the child is wanted.
pub(crate) fn launch(prepared: &Prepared, stack: &ChildStack) -> Result<Launched, SpawnError> {
    let mut plan = ChildPlan {
        // SAFETY: the call has no preconditions.
        parent: unsafe { libc::getpid() },
        candidates: &prepared.candidates,
        args: prepared.args.as_ptr(),
        env: prepared.env.as_ptr(),
        cwd: prepared
            .cwd
            .as_ref()
            .map_or(ptr::null(), |folder| folder.as_ptr()),
        fds: &prepared.fds,
        end_signal: prepared.end_signal,
        failure: None,
    };
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: the stack is ours and unused; CLONE_VFORK stops this thread until the child has left this memory, so
    // `plan`, the stack and `pidfd` outlive its use of them and nothing here reads `plan` meanwhile.
    let pid = unsafe {
        libc::clone(
            run_child,
            stack.top(),
            flags,
            (&raw mut plan).cast::<c_void>(),
            &raw mut pidfd,
        )
    };
    if pid < 0 {
        let source = io::Error::last_os_error();
        return Err(SpawnError::Clone {
            program: prepared.program.clone(),
            source,
        });
    }
    // SAFETY: CLONE_PIDFD stored a new descriptor (with O_CLOEXEC) that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    // SAFETY: `plan` is a live local. The child wrote to it through a pointer that the compiler saw escape; the
    // volatile read keeps that true whatever it concludes about a call that returns once.
    let failure = unsafe { ptr::read_volatile(&raw const plan.failure) };
    let Some(Failure { step, errno }) = failure else {
        return Ok(Launched { pid, pidfd });
    };
    discard(&pidfd);
    let program = prepared.program.clone();
    let source = io::Error::from_raw_os_error(errno);
    Err(match step {
        Some(step) => SpawnError::SetUp {
            program,
            step,
            source,
        },
        None => SpawnError::Execute { program, source },
    })
}

/// Reaps a child that ended before its program ran.
fn discard(pidfd: &OwnedFd) {
    let Ok(id) = libc::id_t::try_from(pidfd.as_raw_fd()) else {
        return;
    };
    loop {
        // SAFETY: waitid permits a null pointer for a result that nobody wants.
        let result = unsafe { libc::waitid(libc::P_PIDFD, id, ptr::null_mut(), libc::WEXITED) };
        if result == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

extern "C" fn run_child(argument: *mut c_void) -> c_int {
    let plan = argument.cast::<ChildPlan<'_>>();
    // SAFETY: `launch` passes a pointer to its own `plan`, and sleeps until this function has ended.
    let plan = unsafe { &mut *plan };
    plan.failure = Some(set_up_and_execute(plan));
    // SAFETY: _exit ends this process only: it is no thread of the parent's group.
    unsafe { libc::_exit(EXIT_CODE_NOT_STARTED) }
}

/// Returns only when something failed.
fn set_up_and_execute(plan: &ChildPlan<'_>) -> Failure {
    let failed = |step| Failure {
        step: Some(step),
        errno: errno(),
    };

    // SAFETY: prctl takes numbers only here.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, plan.end_signal) } != 0 {
        return failed(SetUpStep::TieToParent);
    }
    // The parent may have died before the line above: then nobody would ever send the signal.
    // SAFETY: the call has no preconditions.
    if unsafe { libc::getppid() } != plan.parent {
        return Failure {
            step: Some(SetUpStep::TieToParent),
            errno: libc::ESRCH,
        };
    }
    // SAFETY: the call takes numbers only.
    if unsafe { libc::setpgid(0, 0) } != 0 {
        return failed(SetUpStep::ProcessGroup);
    }
    reset_dispositions();

    for (source, target) in plan.fds {
        // SAFETY: the call takes numbers only; the child has its own descriptor table.
        if unsafe { libc::dup2(source.as_raw_fd(), *target) } < 0 {
            return failed(SetUpStep::PassDescriptor);
        }
    }
    if !close_all_except(plan.fds) {
        return failed(SetUpStep::CloseDescriptors);
    }
    // SAFETY: the string is NUL-terminated and alive in the waiting parent.
    if !plan.cwd.is_null() && unsafe { libc::chdir(plan.cwd) } != 0 {
        return failed(SetUpStep::CurrentFolder);
    }
    // Last, so that no signal can meet a half-made process.
    if !clear_signal_mask() {
        return failed(SetUpStep::SignalMask);
    }
    execute(plan)
}

/// Tries each candidate as `execvp` does: a file that may not be executed is remembered while others are tried.
fn execute(plan: &ChildPlan<'_>) -> Failure {
    let mut result = libc::ENOENT;
    for candidate in plan.candidates {
        // SAFETY: the path and both arrays are NUL- and NULL-terminated and alive in the waiting parent.
        unsafe { libc::execve(candidate.as_ptr(), plan.args, plan.env) };
        match errno() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => result = libc::EACCES,
            other => {
                return Failure {
                    step: None,
                    errno: other,
                };
            }
        }
    }
    Failure {
        step: None,
        errno: result,
    }
}

fn errno() -> c_int {
    // No allocation: this reads errno and wraps the number. The child uses the errno of the waiting parent thread.
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Ignored signals stay ignored across `execve`; Node and Rust ignore SIGPIPE, for one.
fn reset_dispositions() {
    // The kernel's own structure (handler, flags, restorer, mask): all zeroes is SIG_DFL. Its size is the same on x86-64
    // and arm64. libc's function would leave out the two signals that libc keeps for itself.
    let default = [0_u64; 4];
    let mask_bytes = size_of::<u64>();
    for signal in 1..=64_i32 {
        // SIGKILL and SIGSTOP answer EINVAL, which is right: they cannot be ignored.
        // SAFETY: the structure lives through the call and installs no function. The child has its own table, as
        // CLONE_SIGHAND is not set.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null::<u64>(),
                mask_bytes,
            )
        };
    }
}

fn clear_signal_mask() -> bool {
    // SAFETY: an all-zero sigset_t is the empty set on Linux.
    let empty: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set lives through the call; no old mask is asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, ptr::null_mut()) == 0 }
}

/// Closes every descriptor that is not a target; `fds` is sorted by target.
fn close_all_except(fds: &[(OwnedFd, RawFd)]) -> bool {
    let mut first: libc::c_uint = 0;
    for (_, target) in fds {
        let target = target.unsigned_abs();
        if target > first && !close_range(first, target.saturating_sub(1)) {
            return false;
        }
        first = target.saturating_add(1);
    }
    close_range(first, libc::c_uint::MAX)
}

fn close_range(first: libc::c_uint, last: libc::c_uint) -> bool {
    // SAFETY: the child's descriptor table is its own, and it runs no destructors: whatever owns these numbers in the
    // parent's memory keeps the parent's descriptors.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) == 0 }
}
