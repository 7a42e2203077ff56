//! Signals: what a program does about them, and the frames of their handlers (`sigaction(2)`,
//! System V ABI supplement for x86-64; the layout is that of `asm/sigcontext.h`).
//!
//! There is one thread and nobody else: signals come from exceptions and from the program itself.

use microvm_ring3::Fault;
use rustix::io::Errno;

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

const SS_ONSTACK: u64 = 1;
const SS_DISABLE: u64 = 2;
/// Least bytes of another stack: a frame has to fit.
pub const MINSIGSTKSZ: u64 = 4096;

/// Bytes of the extended state that are saved in a frame: x87, SSE, AVX and AVX-512.
const EXTENDED: usize = 2696;
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
/// Bytes of `struct rt_sigframe` without the extended state.
const CONTEXT: usize = 304;
const FRAME: usize = 8 + CONTEXT + 128;
/// Flags that a handler begins without: trap, direction, resume.
const CLEARED: u64 = 0x1_0500;

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
            address: matches!(fault.vector, 0 | 6 | 16 | 19).then_some(rip),
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
    let signal = i32::try_from(signal & 0xffff_ffff).map_err(|_| Errno::INVAL)?;
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
        out.u64(8, flags);
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

    /// Makes the program go on in a handler.
    fn enter_handler(
        &mut self,
        signal: i32,
        action: Action,
        cause: Option<&Cause>,
    ) -> Result<(), Errno> {
        if action.flags & SA_RESTORER == 0 {
            return Err(Errno::FAULT);
        }
        let own = self.registers.rsp;
        let other = action.flags & SA_ONSTACK != 0
            && self.signals.stack_bytes > 0
            && !self.signals.on_stack(own);
        let mut top = if other {
            self.signals.stack.wrapping_add(self.signals.stack_bytes)
        } else {
            // What leaf functions use below their stack pointer.
            own.wrapping_sub(128)
        };
        let state = self.context.extended_state().map_err(|_| Errno::FAULT)?;
        let mut extended = 0;
        if let Some(part) = state.get(..EXTENDED) {
            top = top.wrapping_sub(EXTENDED as u64 + 8) & !63;
            extended = top;
            self.memory.write(top, &saved_state(part))?;
        }
        let frame = (top.wrapping_sub(FRAME as u64) & !15).wrapping_sub(8);
        let bytes = self.frame(signal, action, cause, extended);
        self.memory.write(frame, &bytes)?;

        let registers = &mut self.registers;
        registers.rsp = frame;
        registers.rip = action.handler;
        registers.rdi = u64::from(signal.cast_unsigned());
        registers.rsi = frame + 8 + CONTEXT as u64;
        registers.rdx = frame + 8;
        registers.rax = 0;
        registers.rflags &= !CLEARED;
        self.full = true;
        self.signals.blocked |= action.mask & !unblockable();
        if action.flags & SA_NODEFER == 0 {
            self.signals.blocked |= bit(signal);
        }
        if action.flags & SA_RESETHAND != 0 {
            self.signals.set_action(signal, Action::default());
        }
        Ok(())
    }

    /// `struct rt_sigframe`
    fn frame(
        &self,
        signal: i32,
        action: Action,
        cause: Option<&Cause>,
        extended: u64,
    ) -> [u8; FRAME] {
        let registers = &self.registers;
        let mut out = Layout([0; FRAME]);
        out.u64(0, action.restorer);
        // UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS
        out.u64(8, if extended == 0 { 6 } else { 7 });
        out.bytes(24, &self.signals.stack(registers.rsp));
        let general = [
            registers.r8,
            registers.r9,
            registers.r10,
            registers.r11,
            registers.r12,
            registers.r13,
            registers.r14,
            registers.r15,
            registers.rdi,
            registers.rsi,
            registers.rbp,
            registers.rbx,
            registers.rdx,
            registers.rax,
            registers.rcx,
            registers.rsp,
            registers.rip,
            registers.rflags,
        ];
        for (index, value) in general.into_iter().enumerate() {
            out.u64(48 + 8 * index, value);
        }
        // Selectors of code and stack.
        out.u64(192, 0x33 | 0x2b << 48);
        let (error, vector, address) = cause.map_or((0, 0, 0), |cause| {
            let vector = u64::from(cause.vector);
            (
                u64::from(cause.error_code),
                vector,
                cause.address.unwrap_or(0),
            )
        });
        out.u64(200, error);
        out.u64(208, vector);
        out.u64(216, self.signals.blocked);
        out.u64(224, if vector == 14 { address } else { 0 });
        out.u64(232, extended);
        out.u64(304, self.signals.blocked);
        let info = 8 + CONTEXT;
        out.u32(info, signal.cast_unsigned());
        match cause {
            Some(cause) => {
                out.u32(info + 8, cause.code.cast_unsigned());
                out.u64(info + 16, address);
            }
            None => {
                // SI_TKILL, from itself.
                out.u32(info + 8, (-6i32).cast_unsigned());
                out.u32(info + 16, super::calls::PID);
                out.u32(info + 20, crate::files::USER);
            }
        }
        out.0
    }

    /// `rt_sigreturn`
    pub fn rt_sigreturn(&mut self) -> Answer {
        let end = || Stop::End(Ending::Signaled(SIGSEGV));
        let at = self.registers.rsp;
        let bytes: [u8; CONTEXT] = self.memory.read_array(at).map_err(|_| end())?;
        let word = |offset: usize| {
            let bytes = bytes.get(offset..).and_then(|bytes| bytes.first_chunk());
            bytes.copied().map_or(0, u64::from_le_bytes)
        };
        let general: [u64; 18] = std::array::from_fn(|index| word(40 + 8 * index));
        let [
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            rdi,
            rsi,
            rbp,
            rbx,
            rdx,
            rax,
            rcx,
            rsp,
            rip,
            rflags,
        ] = general;
        self.registers = microvm_ring3::Registers {
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rsp,
            rbp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            rip,
            rflags,
        };
        self.full = true;
        self.signals.blocked = word(296) & !unblockable();
        let extended = word(224);
        let state = if extended == 0 {
            Vec::new()
        } else {
            let saved: [u8; EXTENDED] = self.memory.read_array(extended).map_err(|_| end())?;
            let mut state = self.context.extended_state().map_err(|_| end())?;
            if state.is_empty() {
                state.resize(4096, 0);
            }
            restore_state(&mut state, &saved);
            state
        };
        self.context.set_extended_state(&state).map_err(|_| end())?;
        Err(Stop::Resume)
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
            self.signals.blocked = match how & 0xffff_ffff {
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
            match flags & 0xffff_ffff {
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
        // Process 0 and -1 are the group and everybody.
        let target = target & 0xffff_ffff;
        if ![u64::from(super::calls::PID), 0, 0xffff_ffff].contains(&target) {
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

/// The extended state as frames have it.
fn saved_state(state: &[u8]) -> Vec<u8> {
    let mut saved = Layout([0; EXTENDED + 8]);
    saved.bytes(0, state);
    let components = state.get(512..520).and_then(|bytes| bytes.first_chunk());
    let components = components.copied().map_or(3, u64::from_le_bytes);
    saved.u32(464, MAGIC1);
    saved.u32(468, u32::try_from(EXTENDED + 4).unwrap_or(0));
    saved.u64(472, components | 3);
    saved.u32(480, u32::try_from(EXTENDED).unwrap_or(0));
    saved.u32(EXTENDED, MAGIC2);
    saved.0.to_vec()
}

/// Puts what a frame has in place of the state. What the processor would refuse, it refuses.
fn restore_state(state: &mut [u8], saved: &[u8; EXTENDED]) {
    // The bytes for software, and of the header all but the set of components, stay as they are.
    for (range, from) in [(0..464, 0), (512..520, 512), (576..EXTENDED, 576)] {
        let length = range.len();
        let from = saved.get(from..from + length);
        if let (Some(to), Some(from)) = (state.get_mut(range), from) {
            to.copy_from_slice(from);
        }
    }
}
