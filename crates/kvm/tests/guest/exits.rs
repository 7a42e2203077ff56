//! What the guest does arrives as an exit, and answers arrive in the guest.

use microvm_kvm::Exit;

use crate::fixture::{CODE, MEMORY, UNBACKED, guest, machine_with, run_to_halt, runner_of};

pub fn real_mode_guest_prints_through_a_port() {
    // mov si, 0x100f; mov dx, 0x3f8; 1: lodsb; test al, al; jz 2f; out dx, al; jmp 1b; 2: hlt
    let mut code = vec![
        0xbe, 0x0f, 0x10, 0xba, 0xf8, 0x03, 0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8, 0xf4,
    ];
    code.extend_from_slice(b"Hello from real mode\n\0");
    let mut runner = guest(&code);
    let mut printed = Vec::new();
    loop {
        match runner.run().unwrap() {
            Exit::IoOut {
                port: 0x3f8,
                size: 1,
                count: 1,
                data,
            } => printed.extend_from_slice(data),
            Exit::Hlt => break,
            exit => panic!("{exit:?}"),
        }
    }
    assert_eq!(printed, b"Hello from real mode\n");
}

pub fn port_read_gets_its_answer() {
    // in al, 0x42; mov bl, al; mov dx, 0x1234; in ax, dx; hlt
    let mut runner = guest(&[0xe4, 0x42, 0x88, 0xc3, 0xba, 0x34, 0x12, 0xed, 0xf4]);
    match runner.run().unwrap() {
        Exit::IoIn {
            port: 0x42,
            size: 1,
            count: 1,
            data,
        } => data[0] = 0x7e,
        exit => panic!("{exit:?}"),
    }
    match runner.run().unwrap() {
        Exit::IoIn {
            port: 0x1234,
            size: 2,
            count: 1,
            data,
        } => {
            data.copy_from_slice(&0xbeef_u16.to_le_bytes());
        }
        exit => panic!("{exit:?}"),
    }
    run_to_halt(&mut runner);
    let regs = runner.get_regs().unwrap();
    assert_eq!((regs.rbx & 0xff, regs.rax & 0xffff), (0x7e, 0xbeef));
}

pub fn string_output_arrives_in_order() {
    // mov si, 0x1100; mov cx, 5; mov dx, 0x80; rep outsb; hlt
    let (machine, region) = machine_with(&[
        0xbe, 0x00, 0x11, 0xb9, 0x05, 0x00, 0xba, 0x80, 0x00, 0xf3, 0x6e, 0xf4,
    ]);
    region.write(0x100, b"abcde").unwrap();
    let mut runner = runner_of(&machine);
    let mut written = Vec::new();
    loop {
        match runner.run().unwrap() {
            // In how many exits is up to the kernel.
            Exit::IoOut {
                port: 0x80,
                size: 1,
                count,
                data,
            } => {
                assert_eq!(data.len(), count as usize);
                written.extend_from_slice(data);
            }
            Exit::Hlt => break,
            exit => panic!("{exit:?}"),
        }
    }
    assert_eq!(written, b"abcde");
}

pub fn string_input_gets_every_byte() {
    // mov di, 0x1100; mov cx, 5; mov dx, 0x80; rep insb; hlt
    let (machine, region) = machine_with(&[
        0xbf, 0x00, 0x11, 0xb9, 0x05, 0x00, 0xba, 0x80, 0x00, 0xf3, 0x6c, 0xf4,
    ]);
    let mut runner = runner_of(&machine);
    let mut next = b'0';
    let mut largest = 0;
    loop {
        match runner.run().unwrap() {
            Exit::IoIn {
                port: 0x80,
                size: 1,
                count,
                data,
            } => {
                largest = largest.max(count);
                for byte in data {
                    *byte = next;
                    next += 1;
                }
            }
            Exit::Hlt => break,
            exit => panic!("{exit:?}"),
        }
    }
    let mut read = [0; 5];
    region.read(0x100, &mut read).unwrap();
    assert_eq!(&read, b"01234");
    assert!(largest > 1, "no exit carried more than one byte");
}

pub fn unbacked_memory_is_written_and_read_as_mmio() {
    // mov word [0x8000], 0xcafe; mov al, [0x8003]; hlt
    let mut runner = guest(&[0xc7, 0x06, 0x00, 0x80, 0xfe, 0xca, 0xa0, 0x03, 0x80, 0xf4]);
    let address = u64::from(UNBACKED);
    assert_eq!(
        runner.run().unwrap(),
        Exit::MmioWrite {
            address,
            data: &[0xfe, 0xca]
        }
    );
    match runner.run().unwrap() {
        Exit::MmioRead { address: at, data } if at == address + 3 => data.copy_from_slice(&[0x5a]),
        exit => panic!("{exit:?}"),
    }
    run_to_halt(&mut runner);
    assert_eq!(runner.get_regs().unwrap().rax & 0xff, 0x5a);
}

pub fn halt_leaves_the_guest() {
    run_to_halt(&mut guest(&[0xf4]));
}

pub fn triple_fault_is_a_shutdown() {
    // ud2, with an interrupt table of length 0
    let mut runner = guest(&[0x0f, 0x0b]);
    runner
        .vcpu()
        .modify_sregs(|sregs| {
            sregs.idt.base = 0;
            sregs.idt.limit = 0;
        })
        .unwrap();
    assert_eq!(runner.run().unwrap(), Exit::Shutdown);
}

pub fn unemulatable_code_is_an_internal_error() {
    // jmp to where no memory is: KVM would have to emulate code that it cannot fetch
    let target = UNBACKED.wrapping_sub(CODE as u16 + 3).to_le_bytes();
    let mut runner = guest(&[0xe9, target[0], target[1]]);
    match runner.run().unwrap() {
        Exit::InternalError(error) => {
            assert_eq!(error.suberror, 1);
            assert!(error.data.len() <= 16);
        }
        exit => panic!("{exit:?}"),
    }
    assert_eq!(runner.get_regs().unwrap().rip, u64::from(UNBACKED));
}

pub fn completed_exit_has_reached_the_registers() {
    // in al, 0x42; hlt
    let mut runner = guest(&[0xe4, 0x42, 0xf4]);
    match runner.run().unwrap() {
        Exit::IoIn { data, .. } => data.fill(0x99),
        exit => panic!("{exit:?}"),
    }
    assert_eq!(runner.complete_exit().unwrap(), Exit::Interrupted);
    let regs = runner.get_regs().unwrap();
    assert_eq!((regs.rip, regs.rax & 0xff), (CODE + 2, 0x99));
    // It used no run up, and left nothing for the next.
    run_to_halt(&mut runner);
}

pub fn last_exit_can_be_answered_later() {
    // in al, 0x42; hlt
    let mut runner = guest(&[0xe4, 0x42, 0xf4]);
    assert_eq!(runner.last_exit().unwrap(), Exit::Interrupted);
    assert!(matches!(runner.run().unwrap(), Exit::IoIn { .. }));
    match runner.last_exit().unwrap() {
        Exit::IoIn {
            port: 0x42, data, ..
        } => data.fill(0x77),
        exit => panic!("{exit:?}"),
    }
    runner.immediate_exit().request().unwrap();
    assert_eq!(runner.run().unwrap(), Exit::Interrupted);
    assert_eq!(runner.last_exit().unwrap(), Exit::Interrupted);
    assert_eq!(runner.get_regs().unwrap().rax & 0xff, 0x77);
    run_to_halt(&mut runner);
}

pub fn raw_run_state_tells_the_exit() {
    let mut runner = guest(&[0xf4]);
    runner.run_raw().unwrap();
    let reason = runner.with_raw_run_state(|run| run.exit_reason);
    assert_eq!(reason, kvm_bindings::KVM_EXIT_HLT);
    assert_eq!(runner.get_regs().unwrap().rsp, CODE + MEMORY);
}
