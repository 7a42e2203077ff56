//! SIGHUP, SIGINT and SIGTERM end a process with status 1.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

const ENDING: [libc::c_int; 3] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM];

extern "C" fn end(_: libc::c_int) {
    // SAFETY: async-signal-safe, and takes a number only.
    unsafe { libc::_exit(1) }
}

/// Has the ends of children told, also where this process was started with SIGCHLD ignored.
pub fn tell_of_children() {
    // SAFETY: a constant, and no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Has the signals end this process at once. A handler is needed where the default would do: as the first process of
/// its namespace the server would otherwise be immune to them.
pub fn end_at_once() -> io::Result<()> {
    // SAFETY: all zeroes is a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = end as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in ENDING {
        // SAFETY: the action is complete, and its handler only calls _exit.
        if unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The signals that end a process, and SIGCHLD, held back from this thread: see [`wait`](HeldBack::wait).
#[derive(Debug)]
pub struct HeldBack {
    set: libc::sigset_t,
    before: libc::sigset_t,
}

/// Holds the signals back until [`wait`](HeldBack::wait) takes them or [`release`](HeldBack::release) lets them pass.
pub fn hold_back() -> io::Result<HeldBack> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initializes the set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialized by the line above.
    let mut set = unsafe { set.assume_init() };
    for signal in ENDING.into_iter().chain([libc::SIGCHLD]) {
        // SAFETY: an initialized set and a valid signal.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    let mut before = MaybeUninit::uninit();
    // SAFETY: both sets live through the call.
    let result = unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, before.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(HeldBack {
        set,
        // SAFETY: the successful call has filled it in.
        before: unsafe { before.assume_init() },
    })
}

impl HeldBack {
    /// Blocks until one of the signals arrives, and tells which.
    pub fn wait(&self) -> libc::c_int {
        loop {
            // SAFETY: an initialized set; no information besides the number is asked for.
            let signal = unsafe { libc::sigwaitinfo(&raw const self.set, ptr::null_mut()) };
            // Only EINTR is possible, by a stop and continue.
            if signal > 0 {
                return signal;
            }
        }
    }

    /// Lets the signals through again.
    pub fn release(&self) {
        // SAFETY: the mask that the kernel gave; the old one is not asked for.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }
}
