//! Makes a vCPU leave the guest, from any thread.
//!
//! Two things are needed, and their order decides. `kvm_run.immediate_exit` makes the *next*
//! `KVM_RUN` return at once; a signal makes the *current* one return. The request stores the flag
//! first and then signals the thread that is announced as running; the runner announces itself
//! first and then enters `KVM_RUN`, which looks at the flag. Whoever comes second sees the other,
//! so no request is lost.

use std::cell::Cell;
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::error::{Errno, Error};

/// Ends the current run of a vCPU, or its next one if it is not running.
///
/// Clones reach the same vCPU. A handle does not keep the vCPU: once the runner is gone, requests
/// do nothing.
#[derive(Clone)]
pub struct ImmediateExit {
    shared: Arc<Mutex<State>>,
}

struct State {
    /// `kvm_run.immediate_exit`, as long as the runner has it mapped.
    flag: Option<NonNull<u8>>,
    /// Whether a request waits for a run to end.
    requested: bool,
    /// Kernel thread number of the thread that is in `run`.
    running: Option<libc::pid_t>,
    /// Whether the thread in `run` has been signalled already.
    signalled: bool,
}

// SAFETY: `flag` is only used under the lock, as an atomic, and taken away before it is unmapped;
// it means the same on every thread.
unsafe impl Send for State {}

impl ImmediateExit {
    /// Prepares to interrupt the vCPU whose flag is at `flag`.
    ///
    /// # Safety
    ///
    /// `flag` stays valid for atomic access until [`ImmediateExit::disconnect`] returns.
    pub(crate) unsafe fn new(flag: NonNull<u8>) -> Result<Self, Error> {
        kick_signal()?;
        Ok(Self {
            shared: Arc::new(Mutex::new(State {
                flag: Some(flag),
                requested: false,
                running: None,
                signalled: false,
            })),
        })
    }

    /// Makes the vCPU leave the guest with [`Exit::Interrupted`](crate::Exit::Interrupted): the
    /// run that is under way, or else the next one. Requests that arrive before the vCPU has left
    /// count as one. What was written before the request is seen by the thread of the runner
    /// after the run.
    ///
    /// # Errors
    ///
    /// Where the thread cannot be signalled (`tgkill`). That takes a process in which somebody
    /// else uses `SIGSTKFLT`, and a user whose pending signals are at their limit. The request
    /// still holds for the next run.
    pub fn request(&self) -> Result<(), Error> {
        let mut state = self.lock();
        state.requested = true;
        state.set_flag(true);
        if let Some(thread) = state.running
            && !state.signalled
        {
            signal_thread(thread, kick_signal()?)?;
            state.signalled = true;
        }
        Ok(())
    }

    /// Takes a request back that has not ended a run yet, and tells whether there was one.
    pub fn withdraw(&self) -> bool {
        let mut state = self.lock();
        let requested = std::mem::take(&mut state.requested);
        state.set_flag(false);
        requested
    }

    /// Announces that this thread is about to run the vCPU.
    pub(crate) fn enter(&self) -> Result<(), Error> {
        let thread = this_thread(kick_signal()?)?;
        let mut state = self.lock();
        state.running = Some(thread);
        state.signalled = false;
        Ok(())
    }

    /// Ends what [`ImmediateExit::enter`] announced. Where the run was `interrupted` this consumes
    /// the request, if there is one.
    pub(crate) fn leave(&self, interrupted: bool) {
        let mut state = self.lock();
        state.running = None;
        if interrupted {
            state.requested = false;
            state.set_flag(false);
        }
    }

    /// Makes the next `KVM_RUN` return at once, by no request.
    pub(crate) fn hold_back(&self) {
        self.lock().set_flag(true);
    }

    /// Ends what [`ImmediateExit::hold_back`] began; requests, old or new, stay.
    pub(crate) fn release(&self) {
        let state = self.lock();
        state.set_flag(state.requested);
    }

    /// Ends all access to the flag.
    pub(crate) fn disconnect(&self) {
        self.lock().flag = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn set_flag(&self, leave_at_once: bool) {
        if let Some(flag) = self.flag {
            // SAFETY: valid as long as it is there, and everybody in this process uses it as an
            // atomic.
            let flag = unsafe { AtomicU8::from_ptr(flag.as_ptr()) };
            flag.store(leave_at_once.into(), Ordering::SeqCst);
        }
    }
}

impl fmt::Debug for ImmediateExit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        formatter
            .debug_struct("ImmediateExit")
            .field("connected", &state.flag.is_some())
            .field("running", &state.running)
            .finish()
    }
}

/// Number of this thread, which afterwards does not block the kick signal.
fn this_thread(signal: libc::c_int) -> Result<libc::pid_t, Error> {
    thread_local! {
        static THREAD: Cell<Option<libc::pid_t>> = const { Cell::new(None) };
    }
    if let Some(thread) = THREAD.get() {
        return Ok(thread);
    }
    // A thread inherits the mask of its maker, who may block all signals.
    unblock(signal)?;
    // SAFETY: the call takes nothing and cannot fail.
    let thread = unsafe { libc::gettid() };
    THREAD.set(Some(thread));
    Ok(thread)
}

/// Blocks every signal on this thread except the one that ends runs: for threads that do nothing
/// but run vCPUs, so that no handler of the program runs there, and a run is only interrupted by
/// request.
///
/// # Errors
///
/// Where no signal is free to end runs, or the mask cannot be set (`pthread_sigmask`).
pub fn block_other_signals() -> Result<(), Error> {
    let kick = kick_signal()?;
    // SAFETY: all zeros is a set of signals.
    let mut others: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: fills the set that lives here.
    unsafe { libc::sigfillset(&raw mut others) };
    // SAFETY: changes the set that lives here.
    unsafe { libc::sigdelset(&raw mut others, kick) };
    let before = std::ptr::null_mut();
    // SAFETY: reads the set that lives here; the mask before is not asked for.
    let result = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const others, before) };
    if result != 0 {
        return Err(Error::of("pthread_sigmask")(Errno::new(result)));
    }
    Ok(())
}

fn unblock(signal: libc::c_int) -> Result<(), Error> {
    vmm_sys_util::signal::unblock_signal(signal)
        .map_err(|_| Error::of("pthread_sigmask")(Errno::new(libc::EINVAL)))
}

fn signal_thread(thread: libc::pid_t, signal: libc::c_int) -> Result<(), Error> {
    // SAFETY: the call takes integers and touches no memory.
    let process = unsafe { libc::getpid() };
    // SAFETY: as above. `thread` is alive: it is in `run` until it gets the lock that we hold.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
    if result < 0 {
        return Err(Error::of("tgkill")(Errno::last()));
    }
    Ok(())
}

/// The signal that kicks vCPUs; its handler is installed at the first call.
fn kick_signal() -> Result<libc::c_int, Error> {
    static SIGNAL: OnceLock<Option<libc::c_int>> = OnceLock::new();
    SIGNAL.get_or_init(install).ok_or(Error::NoFreeSignal)
}

/// Installs the handler for the first signal that nobody in this process uses: `SIGSTKFLT`, which
/// no kernel sends, or else a realtime signal, from the highest down (runtimes and profilers start
/// at the lowest).
///
/// The kernel refuses to send a realtime signal (`EAGAIN`) when the user has as many pending ones
/// as `RLIMIT_SIGPENDING` allows, in whatever process: a guest that spins could not be stopped. A
/// standard signal is sent all the same.
fn install() -> Option<libc::c_int> {
    std::iter::once(libc::SIGSTKFLT)
        .chain((libc::SIGRTMIN()..=libc::SIGRTMAX()).rev())
        .find(|&signal| is_free(signal) && install_for(signal))
}

fn is_free(signal: libc::c_int) -> bool {
    exchange(signal, None).is_some_and(|action| action.sa_sigaction == libc::SIG_DFL)
}

fn install_for(signal: libc::c_int) -> bool {
    extern "C" fn wake(_signal: libc::c_int) {}
    // SAFETY: all zeros is an action: default, without flags, with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = wake as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // Without SA_RESTART, for the signal has to end KVM_RUN. On the alternate stack where a
    // thread has one, as runtimes with small stacks want it.
    action.sa_flags = libc::SA_ONSTACK;
    match exchange(signal, Some(&action)) {
        Some(before) if before.sa_sigaction == libc::SIG_DFL => true,
        Some(before) => {
            // Somebody was faster: give it back, and take another.
            exchange(signal, Some(&before));
            false
        }
        None => false,
    }
}

/// Sets the action of `signal` if one is given, and answers with the one before.
fn exchange(signal: libc::c_int, action: Option<&libc::sigaction>) -> Option<libc::sigaction> {
    // SAFETY: all zeros is an action.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    let action = action.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both point to actions that live here, or to none; the handler does nothing, so it
    // is safe in any place of the program.
    let result = unsafe { libc::sigaction(signal, action, &raw mut before) };
    (result == 0).then_some(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kick_signal_is_one_that_nobody_sends_whose_handler_does_not_restart_calls() {
        let signal = kick_signal().unwrap();
        assert_eq!(signal, libc::SIGSTKFLT);
        let action = exchange(signal, None).unwrap();
        assert_ne!(action.sa_sigaction, libc::SIG_DFL);
        assert_eq!(action.sa_flags & libc::SA_RESTART, 0);
        assert_eq!(kick_signal(), Ok(signal));
    }

    #[test]
    fn thread_is_signalled_though_the_user_may_have_no_more_pending_signals() {
        let thread = this_thread(kick_signal().unwrap()).unwrap();
        let set = |limit: &libc::rlimit| {
            // SAFETY: reads the limits that live in the caller.
            let result = unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, limit) };
            assert_eq!(result, 0);
        };
        // SAFETY: all zeros is a pair of limits.
        let mut before: libc::rlimit = unsafe { std::mem::zeroed() };
        // SAFETY: fills the limits that live here.
        let result = unsafe { libc::getrlimit(libc::RLIMIT_SIGPENDING, &raw mut before) };
        assert_eq!(result, 0);
        set(&libc::rlimit {
            rlim_cur: 0,
            ..before
        });
        let standard = signal_thread(thread, kick_signal().unwrap());
        let other = libc::SIGRTMIN() + 5;
        assert!(install_for(other));
        let realtime = signal_thread(thread, other);
        set(&before);
        assert_eq!(standard, Ok(()));
        assert_eq!(realtime.unwrap_err().errno(), libc::EAGAIN);
    }

    #[test]
    fn signal_that_has_a_handler_is_not_taken() {
        extern "C" fn other(_signal: libc::c_int) {}
        let signal = libc::SIGRTMIN() + 3;
        assert!(is_free(signal));
        // SAFETY: all zeros is an action.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = other as extern "C" fn(libc::c_int) as libc::sighandler_t;
        exchange(signal, Some(&action)).unwrap();
        assert!(!is_free(signal));
        assert!(!install_for(signal));
        let now = exchange(signal, None).unwrap();
        assert_eq!(now.sa_sigaction, action.sa_sigaction);
    }
}
