//! Signals as events: all that matter are blocked and read from a descriptor.

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::power::Ending;

/// What a signal asks of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Children have ended.
    Reap,
    /// Somebody in the guest wants the machine to end.
    End(Ending),
}

/// Follows what `poweroff`, `halt` and `reboot` send to PID 1 (the conventions of busybox and sysvinit) and what the
/// kernel sends for Ctrl-Alt-Del (SIGINT) and a failing power supply.
const MEANINGS: [(Signal, Request); 6] = [
    (Signal::SIGCHLD, Request::Reap),
    (Signal::SIGUSR1, Request::End(Ending::PowerOff)),
    (Signal::SIGUSR2, Request::End(Ending::PowerOff)),
    (Signal::SIGPWR, Request::End(Ending::PowerOff)),
    (Signal::SIGTERM, Request::End(Ending::Restart)),
    (Signal::SIGINT, Request::End(Ending::Restart)),
];

/// Blocks the signals above for this process and opens the descriptor that tells of them.
pub(crate) fn open() -> Result<SignalFd, Errno> {
    let set: SigSet = MEANINGS.iter().map(|(signal, _)| *signal).collect();
    set.thread_block()?;
    // A host that closes the channel while a reply is written is an ordinary error there.
    // SAFETY: SIG_IGN installs no function.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) }?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// The next request that is there; `None` when all were read.
pub(crate) fn next(signals: &SignalFd) -> Option<Request> {
    loop {
        match signals.read_signal() {
            Ok(Some(info)) => {
                let known = MEANINGS
                    .iter()
                    .find(|(signal, _)| i64::from(*signal as i32) == i64::from(info.ssi_signo));
                if let Some((_, request)) = known {
                    return Some(*request);
                }
            }
            Err(Errno::EINTR) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}
