//! Instructions that are none of a program's business.

use microvm_ring3_linux::{ExitStatus, Sandbox};

use crate::assembled::*;
use crate::fixture::*;

/// SIGILL, SIGTRAP, SIGBUS and SIGSEGV: what an exception becomes.
const EXCEPTIONS: [i32; 4] = [4, 5, 7, 11];

/// `mov rax, cr0` and its like: from and to each control and debug register.
fn registers() -> Vec<Vec<u8>> {
    let mut codes = Vec::new();
    for register in 0..8 {
        for operation in 0x20..=0x23 {
            codes.push(vec![0x0f, operation, 0xc0 | register << 3]);
        }
    }
    // CR8 needs a prefix, or on AMD a lock.
    codes.push(vec![0x44, 0x0f, 0x20, 0xc0]);
    codes.push(vec![0x44, 0x0f, 0x22, 0xc0]);
    codes.push(vec![0xf0, 0x0f, 0x22, 0xc0]);
    codes
}

/// Privileged on every processor, or not there at all: each has to end in a signal. RDI points to the
/// page of data, and so does RSI.
const PRIVILEGED: &[&[u8]] = &[
    &[0xf4],                         // hlt
    &[0xfa],                         // cli
    &[0xfb],                         // sti
    &[0x0f, 0x06],                   // clts
    &[0x0f, 0x01, 0xf0],             // lmsw ax
    &[0x0f, 0x01, 0x37],             // lmsw [rdi]
    &[0x0f, 0x01, 0x17],             // lgdt [rdi]
    &[0x0f, 0x01, 0x1f],             // lidt [rdi]
    &[0x0f, 0x00, 0xd0],             // lldt ax
    &[0x0f, 0x00, 0xd8],             // ltr ax
    &[0x0f, 0x01, 0x3f],             // invlpg [rdi]
    &[0x66, 0x0f, 0x38, 0x82, 0x07], // invpcid rax, [rdi]
    &[0x0f, 0x30],                   // wrmsr
    &[0x0f, 0x32],                   // rdmsr
    &[0x0f, 0x01, 0xd1],             // xsetbv
    &[0x0f, 0x01, 0xf8],             // swapgs
    &[0x0f, 0x01, 0xca],             // clac
    &[0x0f, 0x01, 0xcb],             // stac
    &[0x0f, 0x07],                   // sysretl
    &[0x48, 0x0f, 0x07],             // sysretq
    &[0x0f, 0x35],                   // sysexitl
    &[0x48, 0x0f, 0x35],             // sysexitq
    &[0x0f, 0xaa],                   // rsm
    &[0xe4, 0x10],                   // in al, 0x10
    &[0xe5, 0x10],                   // in eax, 0x10
    &[0xec],                         // in al, dx
    &[0xed],                         // in eax, dx
    &[0xe6, 0x10],                   // out 0x10, al
    &[0xe7, 0x10],                   // out 0x10, eax
    &[0xee],                         // out dx, al
    &[0xef],                         // out dx, eax
    &[0x6c],                         // insb
    &[0x6d],                         // insd
    &[0x6e],                         // outsb
    &[0x6f],                         // outsd
    &[0xf3, 0x6c],                   // rep insb
    &[0xf3, 0x6d],                   // rep insd
    &[0xf3, 0x6e],                   // rep outsb
    &[0xf3, 0x6f],                   // rep outsd
];

/// Those that hosts answer differently: by an exception, or by nothing that matters.
const DIFFERENT: &[&[u8]] = &[
    &[0x0f, 0x01, 0xc1], // vmcall: KVM says that ring 3 may not
    &[0x0f, 0x01, 0xd9], // vmmcall: the same
    &[0x0f, 0x01, 0xd4], // vmfunc
    // Of one maker's processors only; the other's, and emulated ones, may know others by these bytes.
    &[0x0f, 0x01, 0xc2],             // vmlaunch
    &[0x0f, 0x01, 0xc3],             // vmresume
    &[0x0f, 0x01, 0xc4],             // vmxoff
    &[0xf3, 0x0f, 0xc7, 0x37],       // vmxon [rdi]
    &[0x0f, 0xc7, 0x37],             // vmptrld [rdi]
    &[0x0f, 0xc7, 0x3f],             // vmptrst [rdi]
    &[0x66, 0x0f, 0xc7, 0x37],       // vmclear [rdi]
    &[0x0f, 0x78, 0xc0],             // vmread rax, rax
    &[0x0f, 0x79, 0xc0],             // vmwrite rax, rax
    &[0x66, 0x0f, 0x38, 0x80, 0x07], // invept rax, [rdi]
    &[0x66, 0x0f, 0x38, 0x81, 0x07], // invvpid rax, [rdi]
    &[0x0f, 0x01, 0xd8],             // vmrun
    &[0x0f, 0x01, 0xda],             // vmload
    &[0x0f, 0x01, 0xdb],             // vmsave
    &[0x0f, 0x01, 0xdc],             // stgi
    &[0x0f, 0x01, 0xdd],             // clgi
    &[0x0f, 0x01, 0xde],             // skinit
    &[0x0f, 0x01, 0xdf],             // invlpga
    &[0x0f, 0x33],                   // rdpmc: the kernel of a native ring 3 may let it
    &[0x0f, 0x01, 0xc8],             // monitor
    &[0x0f, 0x01, 0xc9],             // mwait
    &[0x0f, 0x01, 0xfa],             // monitorx
    &[0x0f, 0x01, 0xfb],             // mwaitx
    &[0xf3, 0x0f, 0xae, 0xf7],       // umonitor rdi
    &[0x0f, 0x08],                   // invd: emulated processors leave caches to KVM
    &[0x0f, 0x09],                   // wbinvd: the same
    &[0x0f, 0x34],                   // sysenter
    &[0x0f, 0x01, 0xf9],             // rdtscp
    &[0x0f, 0x01, 0xd0],             // xgetbv
    &[0x0f, 0x01, 0xee],             // rdpkru
    &[0x0f, 0x01, 0xef],             // wrpkru
    &[0x0f, 0x01, 0x07],             // sgdt [rdi]
    &[0x0f, 0x01, 0x0f],             // sidt [rdi]
    &[0x0f, 0x00, 0xc0],             // sldt eax
    &[0x0f, 0x00, 0xc8],             // str eax
    &[0x0f, 0x01, 0xe0],             // smsw eax
    &[0x9d],                         // popfq, with all flags set
    &[0xcf],                         // iretd
    &[0xcb],                         // lret
    &[0x8e, 0xd8],                   // mov ds, ax
    &[0x8e, 0xd0],                   // mov ss, ax
    &[0x8e, 0xe8],                   // mov gs, ax
];

/// Sets the registers that the instructions use, runs one, and ends with 0. A page holds what they
/// load or go to; a word of it is at the stack pointer.
fn code(instruction: &[u8]) -> Vec<u8> {
    let mut code = Vec::new();
    // mov rdi, DATA; mov rsi, DATA; mov rsp, DATA + 0x800; push -1
    for register in [0xbf, 0xbe, 0xbc] {
        let offset = if register == 0xbc { 0x800 } else { 0 };
        code.extend([0x48, register]);
        code.extend((DATA + offset).to_le_bytes());
    }
    code.extend([0x6a, 0xff]);
    // mov eax, 8; mov ecx, 1; mov edx, 0x10
    code.extend([0xb8, 8, 0, 0, 0, 0xb9, 1, 0, 0, 0, 0xba, 0x10, 0, 0, 0]);
    code.extend(instruction);
    code.extend([0x31, 0xc0]);
    code.extend(EXIT_WITH_RAX);
    code
}

/// The sandbox has its memory and its calls, and so has another one.
fn assert_unharmed(sandbox: &mut Sandbox) {
    for sandbox in [sandbox, &mut sandbox_with(Default::default())] {
        assert_eq!(text(busybox(sandbox, &["echo", "x"])), "x\n");
    }
}

pub fn privileged_instructions_are_signals() {
    let mut sandbox = sandbox();
    let privileged = PRIVILEGED.iter().map(|code| code.to_vec());
    for instruction in privileged.chain(registers()) {
        let outcome = run_code(&mut sandbox, &code(&instruction));
        let signals = [4, 7, 11].map(ExitStatus::Signaled);
        assert!(
            signals.contains(&outcome.exit),
            "{instruction:x?} {outcome:?}"
        );
    }
    assert_unharmed(&mut sandbox);
}

pub fn instructions_that_hosts_answer_differently_harm_nobody() {
    let mut sandbox = sandbox();
    for instruction in DIFFERENT {
        let outcome = run_code(&mut sandbox, &code(instruction));
        let ended = match outcome.exit {
            ExitStatus::Exited(0) => true,
            ExitStatus::Exited(_) => false,
            ExitStatus::Signaled(signal) => EXCEPTIONS.contains(&signal),
        };
        assert!(ended && !outcome.timed_out, "{instruction:x?} {outcome:?}");
        // The next run has the state of a new program.
        assert_eq!(
            run_code(&mut sandbox, &code(&[0x90])).exit,
            ExitStatus::Exited(0),
            "{instruction:x?}"
        );
    }
    assert_unharmed(&mut sandbox);
}

/// Returns to other rings, by way of each selector that there may be.
pub fn returns_to_any_selector_stay_in_ring_3() {
    let mut sandbox = sandbox();
    // push 0x10 (SS); push rsp; push 2 (flags); push CS; lea rax, [rip + behind]; push rax; iretq
    // or push CS; ...; lretq; behind: mov rax, cs; and al, 3; exit
    for selector in (0..0x80u8).chain([0xf8, 0xff]) {
        for far in [false, true] {
            let mut instruction = Vec::new();
            if !far {
                instruction.extend([0x6a, (selector & !3).wrapping_add(8) & 0x7f, 0x54, 0x6a, 2]);
            }
            instruction.extend([0x6a, selector & 0x7f]);
            // lea rax, [rip + 3]; push rax; and the return
            instruction.extend([0x48, 0x8d, 0x05, 3, 0, 0, 0, 0x50, 0x48]);
            instruction.push(if far { 0xcb } else { 0xcf });
            // behind: mov eax, cs; and eax, 3; xor eax, 3; exit
            instruction.extend([0x8c, 0xc8, 0x83, 0xe0, 3, 0x83, 0xf0, 3]);
            instruction.extend(EXIT_WITH_RAX);
            let outcome = run_code(&mut sandbox, &code(&instruction));
            let ended = match outcome.exit {
                ExitStatus::Exited(ring_0) => ring_0 == 0,
                ExitStatus::Signaled(signal) => EXCEPTIONS.contains(&signal),
            };
            assert!(ended, "{selector:x} {far} {outcome:?}");
        }
    }
    assert_unharmed(&mut sandbox);
}

pub fn interrupt_vectors_are_signals_or_ignored() {
    let mut sandbox = sandbox();
    for vector in 0..=255 {
        let outcome = run_code(&mut sandbox, &code(&[0xcd, vector]));
        let exits = EXCEPTIONS.map(ExitStatus::Signaled);
        assert!(
            exits.contains(&outcome.exit) || outcome.exit == ExitStatus::Exited(0),
            "{vector} {outcome:?}"
        );
    }
    assert_unharmed(&mut sandbox);
}
