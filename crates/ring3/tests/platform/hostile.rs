//! Programs that try to break out, or to break the machine.

use microvm_ring3::{Access, Exit, Platform, Protection, Registers};

use crate::fixture::*;

const KERNEL: u64 = 0xffff_8000_0000_0000;

/// The machine is as it was: another program runs in it, and this one does.
fn assert_unharmed(program: &mut Program) {
    program.write_code(&READ);
    program.memory.write(PAGE, &[42]).unwrap();
    program.registers.rflags = 0;
    assert_eq!(program.read(DATA), 42);
    let mut other = program_on(&program.platform, &SYSCALL);
    other.call();
}

pub fn kernel_half_is_closed_to_reads_writes_and_jumps() {
    let mut program = program(&READ);
    for page in 0..8 {
        let address = KERNEL + page * PAGE;
        for (code, access) in [(READ, Access::Read), (WRITE, Access::Write)] {
            program.write_code(&code);
            program.registers.rdi = address;
            let fault = program.fault();
            assert_eq!((fault.vector, fault.address), (14, Some(address)));
            assert_eq!(fault.access(), Some(access));
        }
        // jmp rdi
        program.write_code(&[0xff, 0xe7]);
        program.registers.rdi = address;
        let fault = program.fault();
        assert_eq!((fault.vector, fault.address), (14, Some(address)));
        assert_eq!(program.registers.rip, address);
    }
    assert_unharmed(&mut program);
}

pub fn privileged_instructions_are_faults() {
    let codes: [&[u8]; 22] = [
        &[0x0f, 0x00, 0xd0], // lldt ax
        &[0x0f, 0x00, 0xd8], // ltr ax
        &[0x0f, 0x01, 0x17], // lgdt [rdi]
        &[0x0f, 0x01, 0x1f], // lidt [rdi]
        &[0x0f, 0x01, 0xf0], // lmsw ax
        &[0x0f, 0x06],       // clts
        &[0x0f, 0x08],       // invd
        &[0x0f, 0x09],       // wbinvd
        &[0x0f, 0x01, 0x3f], // invlpg [rdi]
        &[0x0f, 0x20, 0xc0], // mov rax, cr0
        &[0x0f, 0x22, 0xd8], // mov cr3, rax
        &[0x0f, 0x22, 0xe0], // mov cr4, rax
        &[0x0f, 0x21, 0xf8], // mov rax, dr7
        &[0x0f, 0x23, 0xf8], // mov dr7, rax
        &[0x0f, 0x30],       // wrmsr
        &[0x0f, 0x32],       // rdmsr
        &[0x0f, 0x01, 0xf8], // swapgs
        &[0xfa],             // cli
        &[0xfb],             // sti
        &[0x48, 0x0f, 0x07], // sysretq
        &[0x0f, 0x01, 0xd1], // xsetbv
        &[0xf4],             // hlt
    ];
    let mut program = program(&[]);
    for code in codes {
        program.write_code(&[code, &SYSCALL].concat());
        program.registers.rip = CODE;
        let fault = match program.switch() {
            Exit::Fault(fault) => fault,
            // Emulated processors leave flushing caches to KVM, which does nothing.
            Exit::SystemCall if matches!(code, [0x0f, 0x08 | 0x09]) => continue,
            exit => panic!("{code:x?}: {exit:?}"),
        };
        assert!(matches!(fault.vector, 6 | 13), "{code:x?}: {fault:?}");
        assert_eq!(program.registers.rip, CODE, "{code:x?}");
    }
    // Ports: in al, 0x10; out 0x10, al; in eax, dx; rep outsb
    for code in [&[0xe4, 0x10][..], &[0xe6, 0x10], &[0xed], &[0xf3, 0x6e]] {
        program.write_code(code);
        program.registers.rdx = 0x10;
        program.registers.rsi = DATA;
        program.registers.rcx = 3;
        let fault = program.fault();
        assert_eq!(fault.vector, 13, "{code:x?}: {fault:?}");
    }
    assert_unharmed(&mut program);
}

pub fn port_access_ends_with_the_program_that_began_it() {
    let platform = platform_with(1);
    let mut other = program_on(&platform, &READ);
    // A page at each place where an access may still want to write.
    let pages = [3, 4].map(|page| page * PAGE);
    let victim = platform.new_memory(5 * PAGE).unwrap();
    for page in pages {
        victim.write(page, &[0xa5; PAGE as usize]).unwrap();
    }
    for (place, page) in [NOWHERE, DATA].into_iter().zip(pages) {
        let all = Protection::READ_WRITE;
        other
            .space
            .map(place, &victim, page, PAGE, all, false)
            .unwrap();
    }
    let mut program = program_on(&platform, &[]);
    // rep insb; rep insd; rep outsb; rep outsd; in al, 0x10; in eax, dx; out 0x10, al;
    // out dx, eax
    let codes: [&[u8]; 8] = [
        &[0xf3, 0x6c],
        &[0xf3, 0x6d],
        &[0xf3, 0x6e],
        &[0xf3, 0x6f],
        &[0xe4, 0x10],
        &[0xed],
        &[0xe6, 0x10],
        &[0xef],
    ];
    for code in codes {
        // Where nothing is mapped the access ends with a second exception.
        for place in [DATA, DATA + PAGE - 1, NOWHERE] {
            for count in [1, 2, 3_000, 1 << 40, u64::MAX] {
                program.write_code(code);
                program.registers.rflags = 0;
                program.registers.rcx = count;
                program.registers.rdx = 0x10;
                program.registers.rdi = place;
                program.registers.rsi = place;
                program.registers.rax = 0x1111;
                let fault = program.fault();
                let name = format!("{code:x?} {place:x} {count:x}");
                // The first store of `ins` is looked at before the port is.
                assert!(matches!(fault.vector, 13 | 14), "{name}: {fault:?}");
                assert_eq!(program.registers.rax, 0x1111, "{name}");
                other.registers = Registers {
                    rbx: 0xb,
                    rcx: 0xc,
                    rdx: 0xd,
                    rsi: NOWHERE,
                    rsp: 0x1234,
                    ..Registers::default()
                };
                assert_eq!(other.read(DATA) & 0xff, 0xa5, "{name}");
                let after = other.registers;
                let found = [after.rbx, after.rdx, after.rsi, after.rdi, after.rsp];
                assert_eq!(found, [0xb, 0xd, NOWHERE, DATA, 0x1234], "{name}");
                for page in pages {
                    let mut bytes = [0; PAGE as usize];
                    victim.read(page, &mut bytes).unwrap();
                    assert!(bytes.iter().all(|byte| *byte == 0xa5), "{name}");
                }
            }
        }
    }
    assert_unharmed(&mut program);
    assert_eq!(platform.vcpus(), 1);
}

pub fn all_interrupt_vectors_are_faults_or_ignored() {
    let mut program = program(&[]);
    for vector in 0..=255u8 {
        // int vector; syscall
        program.write_code(&[0xcd, vector, 0x0f, 0x05]);
        program.registers.rip = CODE;
        match program.switch() {
            Exit::Fault(fault) => {
                assert!(
                    matches!(fault.vector, 3 | 4 | 6 | 13),
                    "{vector}: {fault:?}"
                );
            }
            // One host takes one of them as CPUID, which a program may use anyway.
            Exit::SystemCall => assert_eq!(program.registers.rip, CODE + 4, "{vector}"),
            exit => panic!("{vector}: {exit:?}"),
        }
    }
    assert_unharmed(&mut program);
}

pub fn jumps_into_the_last_page_harm_nobody() {
    let last = 0x7fff_ffff_f000;
    let mut program = program(&READ);
    for address in [last, last + 1, last + 2, last + 0xfff] {
        for rcx in [CODE, 1 << 47, u64::MAX] {
            program.registers.rip = address;
            program.registers.rcx = rcx;
            program.registers.r11 = u64::MAX;
            // Where the page is there, this is a system call with registers of the program's
            // choice, and nothing else.
            let exit = program.switch();
            assert!(
                matches!(exit, Exit::SystemCall | Exit::Fault(_)),
                "{exit:?}"
            );
            let exit = program.switch();
            assert!(
                matches!(exit, Exit::SystemCall | Exit::Fault(_)),
                "{exit:?}"
            );
            program.registers.rflags = 0;
        }
    }
    program.write_code(&WRITE);
    program.registers.rdi = last;
    assert_eq!(program.fault().access(), Some(Access::Write));
    assert_unharmed(&mut program);
}

pub fn wild_stack_pointers_harm_nobody() {
    let mut program = program(&[]);
    for rsp in [0, 8, 1 << 47, KERNEL + 0x1000, KERNEL + 0x4ff0, u64::MAX] {
        program.registers.rsp = rsp;
        program.write_code(&SYSCALL);
        program.call();
        assert_eq!(program.registers.rsp, rsp);
        // ud2
        program.write_code(&[0x0f, 0x0b]);
        assert_eq!(program.fault().vector, 6);
        assert_eq!(program.registers.rsp, rsp);
        // mov rax, cr0: still in ring 3, however the host got there
        program.write_code(&SYSCALL);
        program.call();
        program.write_code(&[0x0f, 0x20, 0xc0]);
        assert_eq!(program.fault().vector, 13);
        program.registers.rsp = rsp;
        // push rax
        program.write_code(&[0x50]);
        let fault = program.fault();
        assert!(matches!(fault.vector, 12..=14), "{rsp:#x}: {fault:?}");
    }
    program.registers.rsp = DATA + PAGE;
    assert_unharmed(&mut program);
}

pub fn code_that_changes_itself_runs_as_changed() {
    // mov byte ptr [rip + 1], 7; mov al, 0; syscall
    let code = [0xc6, 0x05, 1, 0, 0, 0, 7, 0xb0, 0, 0x0f, 0x05];
    let mut program = program(&code);
    program.space.protect(CODE, PAGE, Protection::ALL).unwrap();
    for value in 0..50 {
        program.memory.write(6, &[value]).unwrap();
        program.call();
        assert_eq!(program.registers.rax & 0xff, u64::from(value));
    }
}
