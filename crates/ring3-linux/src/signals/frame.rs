//! The frames of signal handlers, on the program's stack, and the way back from them.

use rustix::io::Errno;

use super::{
    Action, Cause, SA_NODEFER, SA_ONSTACK, SA_RESETHAND, SA_RESTORER, SIGSEGV, bit, unblockable,
};
use crate::calls::PID;
use crate::files::{Layout, USER};
use crate::process::{Answer, Ending, Process, Stop};

/// Bytes of the extended state that are saved in a frame: x87, SSE, AVX and AVX-512.
const EXTENDED: usize = 2696;
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
/// Bytes of `struct rt_sigframe` without the extended state.
const CONTEXT: usize = 304;
const FRAME: usize = 8 + CONTEXT + 128;
/// Flags that a handler begins without: trap, direction, resume.
const CLEARED: u64 = 0x1_0500;

impl Process<'_> {
    /// Makes the program go on in a handler.
    pub(super) fn enter_handler(
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
        let initial = initial_state();
        let part = state.get(..EXTENDED).unwrap_or(&initial);
        top = top.wrapping_sub(EXTENDED as u64 + 8) & !63;
        let extended = top;
        self.memory.write(top, &saved_state(part))?;
        let frame = (top.wrapping_sub(FRAME as u64) & !15).wrapping_sub(8);
        let bytes = self.frame(signal, action, cause, extended);
        self.memory.write(frame, &bytes)?;

        // Handlers begin with it as programs do.
        self.context
            .set_extended_state(&[])
            .map_err(|_| Errno::FAULT)?;
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
        out.u64(8, 7);
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
                out.u32(info + 16, PID);
                out.u32(info + 20, USER);
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
}

/// The extended state as it is at first: control words, and nothing else.
fn initial_state() -> [u8; EXTENDED] {
    let mut out = Layout([0; EXTENDED]);
    out.bytes(0, &0x37fu16.to_le_bytes());
    out.u32(24, 0x1f80);
    out.0
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
