//! What goes into the guest and comes out of it: registers and the reason of an exit.

use kvm_bindings::kvm_regs;

use crate::layout::{FIXED_FLAGS, USER_FLAGS};

/// The general registers of a program, with its instruction pointer and flags.
///
/// Segment bases and the extended state (x87, SSE, AVX) stay with the
/// [`Context`](crate::Context).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
// As KVM has them, so that they are copied by the largest pieces.
#[repr(C)]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    /// Bits that a program may not set are ignored on the way in. On the way out interrupts are
    /// shown as enabled, as an operating system would have them.
    pub rflags: u64,
}

/// Copies the fields that both structures name alike.
macro_rules! same_fields {
    ($from:expr => $to:ident { $($field:ident),* $(,)? }) => {
        $to { $($field: $from.$field),* }
    };
}

impl Registers {
    /// Writes them where KVM takes them.
    pub(crate) fn store(&self, regs: &mut kvm_regs) {
        *regs = same_fields!(self => kvm_regs {
            rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip,
            rflags,
        });
        regs.rflags = user_flags(self.rflags);
    }

    pub(crate) fn from_kvm(regs: &kvm_regs) -> Self {
        let mut own = same_fields!(regs => Self {
            rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip,
            rflags,
        });
        own.rflags = user_flags(regs.rflags);
        own
    }
}

/// The flags as ring 3 has them: what it may set, and what is always set.
pub(crate) fn user_flags(flags: u64) -> u64 {
    flags & USER_FLAGS | FIXED_FLAGS
}

/// Bases of the segments that programs use for thread-local storage, in bytes. The default is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentBases {
    /// Base of FS.
    pub fs: u64,
    /// Base of GS.
    pub gs: u64,
}

/// How registers are set when a program goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restore {
    /// All of them.
    #[default]
    Full,
    /// All but RCX and R11, which the program finds with its RIP and RFLAGS, as after any system
    /// call.
    Partial,
}

/// Why a program stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// It made a system call (SYSCALL). The number is in RAX, RIP is behind the instruction, and
    /// RCX and R11 hold RIP and RFLAGS, as the processor leaves them.
    SystemCall,
    /// It raised an exception. RIP is at the instruction; behind it for breakpoints and other
    /// traps, and on some hosts for a port access.
    Fault(Fault),
    /// It touched memory that the host cannot give it: a mapped file has become shorter. The
    /// address is told where the kernel tells it.
    BusError {
        /// The page's address in the program's address space.
        address: Option<u64>,
    },
    /// [`Interrupter::interrupt`](crate::Interrupter::interrupt) was called.
    Interrupted,
    /// The time given to the switch is over.
    TimedOut,
}

/// An exception of the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its number: 14 for a page fault, 13 for a general protection fault, 6 for an undefined
    /// instruction.
    pub vector: u8,
    /// The processor's error code; 0 for exceptions without one.
    pub error_code: u32,
    /// The address, of a page fault.
    pub address: Option<u64>,
}

/// Kind of memory access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// Fetching an instruction.
    Execute,
}

impl Fault {
    /// What a page fault was for; `None` for other exceptions.
    #[must_use]
    pub fn access(&self) -> Option<Access> {
        self.address?;
        Some(if self.error_code & 0x10 != 0 {
            Access::Execute
        } else if self.error_code & 0x2 != 0 {
            Access::Write
        } else {
            Access::Read
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_the_kernel_do_not_pass() {
        let registers = Registers {
            rflags: u64::MAX,
            ..Registers::default()
        };
        let mut regs = kvm_regs::default();
        registers.store(&mut regs);
        let flags = regs.rflags;
        // I/O privilege, nested task, resume, virtual 8086, virtual interrupts.
        assert_eq!(flags & 0x1b_7000, 0);
        assert_eq!(flags & FIXED_FLAGS, FIXED_FLAGS);
    }

    #[test]
    fn registers_survive_the_way_there_and_back() {
        let registers = Registers {
            rax: 1,
            rbx: 2,
            rcx: 3,
            rdx: 4,
            rsi: 5,
            rdi: 6,
            rsp: 7,
            rbp: 8,
            r8: 9,
            r9: 10,
            r10: 11,
            r11: 12,
            r12: 13,
            r13: 14,
            r14: 15,
            r15: 16,
            rip: 17,
            rflags: 0x202,
        };
        let mut regs = kvm_regs::default();
        registers.store(&mut regs);
        assert_eq!(Registers::from_kvm(&regs), registers);
    }

    #[test]
    fn access_is_told_by_the_error_code_of_page_faults_only() {
        let fault = |error_code, address| Fault {
            vector: 14,
            error_code,
            address,
        };
        assert_eq!(fault(0x4, Some(1)).access(), Some(Access::Read));
        assert_eq!(fault(0x7, Some(1)).access(), Some(Access::Write));
        assert_eq!(fault(0x15, Some(1)).access(), Some(Access::Execute));
        assert_eq!(fault(0x7, None).access(), None);
    }
}
