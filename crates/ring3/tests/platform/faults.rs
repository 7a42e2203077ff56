//! Exceptions: what is told about them, and going on afterwards.

use microvm_ring3::{Access, Exit, Protection};

use crate::fixture::*;

pub fn read_of_an_unmapped_page_tells_address_and_access() {
    let mut program = program(&READ);
    for address in [NOWHERE + 8, 0, 0x7fff_ffff_d000] {
        program.registers.rdi = address;
        program.registers.rax = 0xabcd;
        let fault = program.fault();
        assert_eq!((fault.vector, fault.address), (14, Some(address)));
        assert_eq!(fault.access(), Some(Access::Read));
        assert_eq!(fault.error_code & 1, 0, "{fault:?}");
        assert_eq!(
            (program.registers.rip, program.registers.rax),
            (CODE, 0xabcd)
        );
    }
}

pub fn write_to_a_read_only_page_tells_that_it_is_one() {
    let mut program = program(&WRITE);
    program.registers.rdi = CODE + 0x800;
    let fault = program.fault();
    assert_eq!((fault.vector, fault.address), (14, Some(CODE + 0x800)));
    assert_eq!(fault.access(), Some(Access::Write));
    // The page is present.
    assert_eq!(fault.error_code & 1, 1, "{fault:?}");
}

pub fn execution_of_data_is_a_fault_at_the_instruction() {
    let mut program = program(&READ);
    program.read(DATA);
    program.registers.rip = DATA;
    let Exit::Fault(fault) = program.switch() else {
        panic!("no fault");
    };
    assert_eq!((fault.vector, fault.address), (14, Some(DATA)));
    assert_eq!(fault.access(), Some(Access::Execute));
    assert_eq!(program.registers.rip, DATA);
}

pub fn first_fetch_in_an_empty_space_is_a_fault() {
    let mut program = program(&READ);
    let empty = program.platform.address_space().unwrap();
    let result = program
        .context
        .switch(&empty, &mut program.registers, Default::default());
    let Ok(Exit::Fault(fault)) = result else {
        panic!("{result:?}");
    };
    assert_eq!((fault.vector, fault.address), (14, Some(CODE)));
    assert_eq!(fault.access(), Some(Access::Execute));
}

pub fn fault_is_retried_once_the_page_is_there() {
    let mut program = program(&READ);
    program.memory.write(2 * PAGE, &[9]).unwrap();
    program.registers.rdi = NOWHERE;
    assert_eq!(program.fault().address, Some(NOWHERE));
    let memory = &program.memory;
    program
        .space
        .map(NOWHERE, memory, 2 * PAGE, PAGE, Protection::READ, false)
        .unwrap();
    program.resume_to_call();
    assert_eq!(program.registers.rax, 9);
}

pub fn exceptions_have_their_numbers() {
    let cases: [(&str, &[u8], u8, u64); 6] = [
        // xor ecx, ecx; div ecx
        ("div by 0", &[0x31, 0xc9, 0xf7, 0xf1], 0, 2),
        ("int3", &[0xcc], 3, 1),
        ("ud2", &[0x0f, 0x0b], 6, 0),
        ("hlt", &[0xf4], 13, 0),
        // mov rax, [rdi], of an address in neither half
        ("wild", &READ, 13, 0),
        // The 32-bit call into a kernel.
        ("sysenter", &[0x0f, 0x34], 255, 0),
    ];
    for (name, code, vector, offset) in cases {
        let mut program = program(code);
        program.registers.rdi = 1 << 62;
        let fault = program.fault();
        if vector == 255 {
            assert!(matches!(fault.vector, 6 | 13), "{name}: {fault:?}");
        } else {
            assert_eq!(fault.vector, vector, "{name}: {fault:?}");
        }
        assert_eq!(program.registers.rip, CODE + offset, "{name}");
        assert_eq!(fault.address, None, "{name}");
    }
}

pub fn single_step_stops_behind_the_instruction() {
    // nop; nop; syscall
    let mut program = program(&[0x90, 0x90, 0x0f, 0x05]);
    program.registers.rflags = 0x100;
    let fault = program.fault();
    assert_eq!((fault.vector, program.registers.rip), (1, CODE + 1));
    assert_eq!(program.registers.rflags & 0x100, 0x100);
    program.registers.rflags = 0;
    program.resume_to_call();
    // A step over a system call: the call is what counts.
    program.registers.rip = CODE + 2;
    program.registers.rflags = 0x100;
    let exit = program.switch();
    let stepped =
        exit == Exit::SystemCall || matches!(exit, Exit::Fault(fault) if fault.vector == 1);
    assert!(stepped, "{exit:?}");
}
