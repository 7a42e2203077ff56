//! Signals: what a program does about them, and the frames of their handlers (`sigaction(2)`,
//! System V ABI supplement for x86-64; the layout is that of `asm/sigcontext.h`).
//!
//! There is one thread and nobody else: signals come from exceptions and from the program itself.

mod frame;

use microvm_ring3::Fault;
use rustix::io::Errno;

use crate::calls::{PID, int};
use crate::files::Layout;
use crate::outcome::Crash;
use crate::process::{Answer, Ending, Process, Stop};

pub const SIGILL: i32 = 4;
pub const SIGTRAP: i32 = 5;
pub const SIGBUS: i32 = 7;
pub const SIGFPE: i32 = 8;
pub const SIGKILL: i32 = 9;
pub const SIGSEGV: i32 = 11;
pub const SIGPIPE: i32 = 13;
const SIGCHLD: i32 = 17;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;
const SIGTTOU: i32 = 22;
const SIGURG: i32 = 23;
const SIGWINCH: i32 = 28;
/// Highest number.
const LAST: i32 = 64;

const SIG_DFL: u64 = 0;
const SIG_IGN: u64 = 1;

const SA_RESTORER: u64 = 0x0400_0000;
const SA_ONSTACK: u64 = 0x0800_0000;
const SA_NODEFER: u64 = 0x4000_0000;
const SA_RESETHAND: u64 = 0x8000_0000;

const SS_ONSTACK: u32 = 1;
const SS_DISABLE: u32 = 2;
/// Least bytes of another stack: a frame has to fit.
pub const MINSIGSTKSZ: u64 = 4096;

/// What a program does about a signal.
#[derive(Clone, Copy, Debug, Default)]
struct Action {
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

/// A program's signals.
#[derive(Debug)]
pub struct Signals {
    actions: [Action; LAST as usize + 1],
    blocked: u64,
    pending: u64,
    /// The stack for handlers, and its bytes; 0 where there is none.
    stack: u64,
    stack_bytes: u64,
}

impl Default for Signals {
    fn default() -> Self {
        Self {
            actions: [Action::default(); LAST as usize + 1],
            blocked: 0,
            pending: 0,
            stack: 0,
            stack_bytes: 0,
        }
    }
}

/// Why a signal is raised.
#[derive(Clone, Copy, Debug)]
pub struct Cause {
    signal: i32,
    code: i32,
    vector: u8,
    error_code: u32,
    address: Option<u64>,
}

impl Cause {
    /// A page fault, of a page that is there or is not.
    pub fn page(fault: &Fault, there: bool) -> Self {
        Self {
            signal: SIGSEGV,
            // SEGV_ACCERR and SEGV_MAPERR.
            code: if there { 2 } else { 1 },
            vector: fault.vector,
            error_code: fault.error_code,
            address: fault.address,
        }
    }

    /// A file that has become shorter.
    pub fn gone(address: u64) -> Self {
        Self {
            signal: SIGBUS,
            // BUS_ADRERR
            code: 2,
            vector: 14,
            error_code: 4,
            address: Some(address),
        }
    }

    /// Another exception.
    pub fn exception(fault: &Fault, rip: u64) -> Self {
        let (signal, code) = match fault.vector {
            0 => (SIGFPE, 1),
            1 => (SIGTRAP, 2),
            3 => (SIGTRAP, 0x80),
            6 => (SIGILL, 2),
            16 | 19 => (SIGFPE, 3),
            10..=12 => (SIGBUS, 0x80),
            17 => (SIGBUS, 1),
            _ => (SIGSEGV, 0x80),
        };
        Self {
            signal,
            code,
            vector: fault.vector,
            error_code: fault.error_code,
            address: matches!(fault.vector, 0 | 1 | 6 | 16 | 19).then_some(rip),
        }
    }
}

fn bit(signal: i32) -> u64 {
    1u64.checked_shl(signal.cast_unsigned().wrapping_sub(1))
        .unwrap_or(0)
}

/// The signals that nothing can be done about.
fn unblockable() -> u64 {
    bit(SIGKILL) | bit(SIGSTOP)
}

fn valid(signal: u64) -> Result<i32, Errno> {
    // An `int`.
    let signal = i32::try_from(int(signal)).map_err(|_| Errno::INVAL)?;
    if (0..=LAST).contains(&signal) {
        Ok(signal)
    } else {
        Err(Errno::INVAL)
    }
}

impl Signals {
    fn action(&self, signal: i32) -> Action {
        let index = usize::try_from(signal).unwrap_or(0);
        self.actions.get(index).copied().unwrap_or_default()
    }

    fn set_action(&mut self, signal: i32, action: Action) {
        let index = usize::try_from(signal).unwrap_or(0);
        if let Some(place) = self.actions.get_mut(index) {
            *place = action;
        }
    }

    /// Notes a signal that the program sends itself.
    pub fn send(&mut self, signal: i32) {
        self.pending |= bit(signal);
    }

    fn on_stack(&self, rsp: u64) -> bool {
        self.stack_bytes > 0 && rsp.wrapping_sub(self.stack) <= self.stack_bytes
    }

    fn stack(&self, rsp: u64) -> [u8; 24] {
        let mut out = Layout([0; 24]);
        out.u64(0, self.stack);
        let flags = match self.stack_bytes {
            0 => SS_DISABLE,
            _ if self.on_stack(rsp) => SS_ONSTACK,
            _ => 0,
        };
        out.u32(8, flags);
        out.u64(16, self.stack_bytes);
        out.0
    }
}

/// What happens by default, where it is not the program's end.
fn is_harmless(signal: i32) -> bool {
    // Nobody could make a stopped program go on.
    matches!(signal, SIGCHLD | SIGCONT | SIGURG | SIGWINCH) || (SIGSTOP..=SIGTTOU).contains(&signal)
}

impl Process<'_> {
    /// Raises the signal of an exception.
    pub fn raise(&mut self, cause: &Cause) -> Result<(), Ending> {
        let action = self.signals.action(cause.signal);
        let blocked = self.signals.blocked & bit(cause.signal) != 0;
        let handled = !blocked && !matches!(action.handler, SIG_DFL | SIG_IGN);
        if handled
            && self
                .enter_handler(cause.signal, action, Some(cause))
                .is_ok()
        {
            return Ok(());
        }
        self.crash = Some(Crash {
            vector: cause.vector,
            address: cause.address,
            rip: self.registers.rip,
        });
        Err(Ending::Signaled(cause.signal))
    }

    /// Does what is to be done about signals that the program has sent itself.
    pub fn deliver_pending(&mut self) -> Result<(), Ending> {
        loop {
            let ready = self.signals.pending & !self.signals.blocked;
            if ready == 0 {
                return Ok(());
            }
            let signal = i32::try_from(ready.trailing_zeros() + 1).unwrap_or(SIGKILL);
            self.signals.pending &= !bit(signal);
            let action = self.signals.action(signal);
            match action.handler {
                SIG_IGN => {}
                SIG_DFL if is_harmless(signal) => {}
                SIG_DFL => return Err(Ending::Signaled(signal)),
                _ => {
                    if self.enter_handler(signal, action, None).is_err() {
                        return Err(Ending::Signaled(SIGSEGV));
                    }
                }
            }
        }
    }

    /// `rt_sigaction`
    pub fn rt_sigaction(&mut self, args: [u64; 6]) -> Answer {
        let [signal, new, old, size, ..] = args;
        let signal = valid(signal)?;
        if size != 8 || signal == 0 {
            return Err(Errno::INVAL.into());
        }
        let before = self.signals.action(signal);
        if new != 0 {
            if unblockable() & bit(signal) != 0 {
                return Err(Errno::INVAL.into());
            }
            let bytes: [u8; 32] = self.memory.read_array(new)?;
            let (words, _) = bytes.as_chunks::<8>();
            let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
            if let [handler, flags, restorer, mask] = words[..] {
                let action = Action {
                    handler,
                    flags,
                    restorer,
                    mask,
                };
                self.signals.set_action(signal, action);
                if handler == SIG_IGN || handler == SIG_DFL && is_harmless(signal) {
                    self.signals.pending &= !bit(signal);
                }
            }
        }
        if old != 0 {
            let mut out = Layout([0; 32]);
            let words = [before.handler, before.flags, before.restorer, before.mask];
            for (index, word) in words.into_iter().enumerate() {
                out.u64(8 * index, word);
            }
            self.memory.write(old, &out.0)?;
        }
        Ok(0)
    }

    /// `rt_sigprocmask`
    pub fn rt_sigprocmask(&mut self, args: [u64; 6]) -> Answer {
        let [how, set, old, size, ..] = args;
        if size != 8 {
            return Err(Errno::INVAL.into());
        }
        let before = self.signals.blocked;
        if set != 0 {
            let set = self.memory.read_u64(set)? & !unblockable();
            self.signals.blocked = match int(how) {
                0 => before | set,
                1 => before & !set,
                2 => set,
                _ => return Err(Errno::INVAL.into()),
            };
        }
        if old != 0 {
            self.memory.write(old, &before.to_le_bytes())?;
        }
        Ok(0)
    }

    /// `rt_sigpending`
    pub fn rt_sigpending(&mut self, args: [u64; 6]) -> Answer {
        let [set, size, ..] = args;
        if size != 8 {
            return Err(Errno::INVAL.into());
        }
        let pending = self.signals.pending & self.signals.blocked;
        self.memory.write(set, &pending.to_le_bytes())?;
        Ok(0)
    }

    /// `sigaltstack`
    pub fn sigaltstack(&mut self, args: [u64; 6]) -> Answer {
        let [new, old, ..] = args;
        let rsp = self.registers.rsp;
        let before = self.signals.stack(rsp);
        if new != 0 {
            let bytes: [u8; 24] = self.memory.read_array(new)?;
            let (words, _) = bytes.as_chunks::<8>();
            let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
            let [stack, flags, length] = words[..] else {
                return Err(Errno::INVAL.into());
            };
            if self.signals.on_stack(rsp) {
                return Err(Errno::PERM.into());
            }
            match int(flags) {
                SS_DISABLE => (self.signals.stack, self.signals.stack_bytes) = (0, 0),
                0 | SS_ONSTACK if length < MINSIGSTKSZ => return Err(Errno::NOMEM.into()),
                0 | SS_ONSTACK => (self.signals.stack, self.signals.stack_bytes) = (stack, length),
                _ => return Err(Errno::INVAL.into()),
            }
        }
        if old != 0 {
            self.memory.write(old, &before)?;
        }
        Ok(0)
    }

    /// `kill`, `tkill` and `tgkill`: there is nobody but the program itself.
    pub fn kill(&mut self, target: u64, signal: u64) -> Answer {
        let signal = valid(signal)?;
        // 0, -1 and -PID are the group, everybody, and the group again.
        let target = int(target).cast_signed();
        let own = PID.cast_signed();
        if ![own, 0, -1, -own].contains(&target) {
            return Err(Errno::SRCH.into());
        }
        if signal != 0 {
            self.signals.send(signal);
        }
        Ok(0)
    }

    /// The error of writing what nobody will read.
    pub fn broken_pipe(&mut self) -> Stop {
        self.signals.send(SIGPIPE);
        Stop::Error(Errno::PIPE)
    }
}
