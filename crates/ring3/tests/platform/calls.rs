//! System calls and the registers around them.

use microvm_ring3::{Error, Exit, Platform, Registers, Restore, SwitchOptions};

use crate::fixture::*;

fn distinct() -> Registers {
    Registers {
        rax: 0x1111_0000_0000_0001,
        rbx: 0x1111_0000_0000_0002,
        rcx: 0x1111_0000_0000_0003,
        rdx: 0x1111_0000_0000_0004,
        rsi: 0x1111_0000_0000_0005,
        rdi: 0x1111_0000_0000_0006,
        rsp: 0x1111_0000_0000_0007,
        rbp: 0x1111_0000_0000_0008,
        r8: 0x1111_0000_0000_0009,
        r9: 0x1111_0000_0000_000a,
        r10: 0x1111_0000_0000_000b,
        r11: 0x1111_0000_0000_000c,
        r12: 0x1111_0000_0000_000d,
        r13: 0x1111_0000_0000_000e,
        r14: 0x1111_0000_0000_000f,
        r15: 0x1111_0000_0000_0010,
        rip: CODE,
        rflags: 0x2d7,
    }
}

pub fn system_call_keeps_all_registers_but_the_two_that_it_uses() {
    let mut program = program(&SYSCALL);
    for _ in 0..3 {
        program.registers = distinct();
        program.call();
        let expected = Registers {
            rip: CODE + 2,
            rcx: CODE + 2,
            r11: 0x2d7,
            ..distinct()
        };
        assert_eq!(program.registers, expected);
    }
}

pub fn full_restore_sets_every_register() {
    // mov rax, rcx; mov rbx, r11; syscall
    let mut program = program(&[0x48, 0x89, 0xc8, 0x4c, 0x89, 0xdb, 0x0f, 0x05]);
    for _ in 0..3 {
        program.registers = distinct();
        program.call();
        assert_eq!(program.registers.rax, distinct().rcx);
        assert_eq!(program.registers.rbx, distinct().r11);
    }
}

pub fn partial_restore_leaves_rip_and_flags_in_rcx_and_r11() {
    // 1: mov rax, rcx; mov rbx, r11; syscall; jmp 1b
    let code = [0x48, 0x89, 0xc8, 0x4c, 0x89, 0xdb, 0x0f, 0x05, 0xeb, 0xf6];
    let mut program = program(&code);
    let options = SwitchOptions {
        restore: Restore::Partial,
        timeout: Some(PATIENCE),
    };
    for _ in 0..3 {
        program.registers = distinct();
        assert_eq!(program.switch_with(options), Ok(Exit::SystemCall));
        assert_eq!(program.registers.rax, CODE);
        assert_eq!(program.registers.rbx, 0x2d7);
        assert_eq!(program.registers.r15, distinct().r15);
        assert_eq!(program.registers.rsp, distinct().rsp);
    }
}

pub fn flags_that_programs_may_not_set_are_dropped() {
    // pushfq; pop rax; syscall
    let mut program = program(&[0x9c, 0x58, 0x0f, 0x05]);
    // Everything but trap and alignment check.
    program.registers.rflags = !0x4_0100;
    program.call();
    // I/O privilege, nested task, virtual 8086 and what came with it.
    assert_eq!(
        program.registers.rax & 0x1a_7000,
        0,
        "{:x?}",
        program.registers
    );
    assert_eq!(
        program.registers.rax & 0xcd5,
        0xcd5,
        "{:x?}",
        program.registers
    );
}

pub fn instruction_pointer_outside_the_lower_half_is_a_general_protection_fault() {
    let mut program = program(&SYSCALL);
    for rip in [1 << 47, 1 << 63, 0xffff_8000_0000_0000, u64::MAX] {
        program.registers.rip = rip;
        let before = program.registers;
        let Exit::Fault(fault) = program.switch() else {
            panic!("no fault");
        };
        assert_eq!(
            (fault.vector, fault.error_code, fault.address),
            (13, 0, None)
        );
        assert_eq!(program.registers, before);
    }
    program.call();
}

pub fn context_of_another_machine_is_refused() {
    let mut one = program(&SYSCALL);
    let other = program_on(&platform_with(1), &SYSCALL);
    let result = one
        .context
        .switch(&other.space, &mut one.registers, SwitchOptions::default());
    assert_eq!(result, Err(Error::OtherMachine));
    let foreign = other.platform.new_memory(PAGE).unwrap();
    let protection = microvm_ring3::Protection::READ;
    let result = one.space.map(NOWHERE, &foreign, 0, PAGE, protection, false);
    assert_eq!(result, Err(Error::OtherMachine));
}
