//! Mapping, unmapping, protecting, releasing.

use std::fs::File;
use std::sync::Arc;
use std::thread;

use microvm_ring3::{Access, Error, Exit, Platform, Protection, SegmentBases, SwitchOptions};

use crate::fixture::*;

pub fn unmapped_page_is_gone_and_the_next_one_is_not() {
    let mut program = program(&READ);
    let place = NOWHERE;
    let memory = &program.memory;
    for page in 0..3 {
        memory
            .write(page * PAGE + 0x500, &[page as u8 + 1])
            .unwrap();
    }
    program
        .space
        .map(place, memory, 0, 3 * PAGE, Protection::READ, false)
        .unwrap();
    for page in 0..3 {
        assert_eq!(program.read(place + page * PAGE + 0x500), page + 1);
    }
    program.space.unmap(place + PAGE, PAGE).unwrap();
    assert_eq!(program.read(place + 0x500), 1);
    assert_eq!(program.read(place + 2 * PAGE + 0x500), 3);
    program.registers.rdi = place + PAGE;
    assert_eq!(program.fault().address, Some(place + PAGE));
    // Nothing there is nothing to complain about.
    program.space.unmap(place, 16 * PAGE).unwrap();
    program.registers.rdi = place;
    assert_eq!(program.fault().address, Some(place));
}

pub fn pages_mapped_one_by_one_are_changed_one_by_one() {
    let mut program = program(&WRITE);
    let (place, memory) = (NOWHERE, &program.memory);
    let map = |page: u64, from: u64, protection| {
        let space = &program.space;
        space
            .map(
                place + page * PAGE,
                memory,
                from * PAGE,
                PAGE,
                protection,
                false,
            )
            .unwrap();
    };
    // The first four go on with each other, the others do not: other memory, and other rights.
    for page in 0..4 {
        map(page, page, Protection::READ_WRITE);
    }
    map(4, 0, Protection::READ_WRITE);
    map(5, 1, Protection::READ);
    program
        .space
        .protect(place + PAGE, PAGE, Protection::READ)
        .unwrap();
    program.space.unmap(place + 2 * PAGE, PAGE).unwrap();
    let found = |page: u64| {
        let found = program.space.lookup(place + page * PAGE + 8);
        found.map(|(_, offset, protection)| (offset, protection))
    };
    let both = Protection::READ_WRITE;
    assert_eq!(found(0), Some((8, both)));
    assert_eq!(found(1), Some((PAGE + 8, Protection::READ)));
    assert_eq!(found(2), None);
    assert_eq!(found(3), Some((3 * PAGE + 8, both)));
    assert_eq!(found(4), Some((8, both)));
    assert_eq!(found(5), Some((PAGE + 8, Protection::READ)));
    for (page, is_writable) in [true, false, false, true, true, false]
        .into_iter()
        .enumerate()
    {
        // Not where its own code is, which the first page shows.
        program.registers.rdi = place + page as u64 * PAGE + 0x800;
        if is_writable {
            program.call();
        } else {
            assert_eq!(program.fault().address, Some(program.registers.rdi));
        }
    }
}

pub fn protection_is_taken_and_given_back() {
    let mut program = program(&WRITE);
    program.registers.rax = 5;
    program.call();
    for _ in 0..20 {
        program.space.protect(DATA, PAGE, Protection::READ).unwrap();
        let fault = program.fault();
        assert_eq!(
            (fault.address, fault.access()),
            (Some(DATA), Some(Access::Write))
        );
        program
            .space
            .protect(DATA, PAGE, Protection::READ_WRITE)
            .unwrap();
        program.call();
    }
}

pub fn page_without_access_keeps_its_contents() {
    let mut program = program(&READ);
    program.memory.write(PAGE, &[77]).unwrap();
    assert_eq!(program.read(DATA), 77);
    program.space.protect(DATA, PAGE, Protection::NONE).unwrap();
    let fault = program.fault();
    assert_eq!(
        (fault.address, fault.access()),
        (Some(DATA), Some(Access::Read))
    );
    program.space.protect(DATA, PAGE, Protection::READ).unwrap();
    assert_eq!(program.read(DATA), 77);
}

pub fn remapped_page_shows_the_new_memory_two_thousand_times() {
    let mut program = program(&READ);
    let memory = Arc::clone(&program.memory);
    for page in 2..4u64 {
        memory.write(page * PAGE, &[page as u8]).unwrap();
    }
    for round in 0..2_000 {
        let page = 2 + round % 2;
        program
            .space
            .map(DATA, &memory, page * PAGE, PAGE, Protection::READ, false)
            .unwrap();
        assert_eq!(program.read(DATA), page, "round {round}");
    }
}

pub fn remapping_is_seen_by_a_program_that_runs() {
    // 1: inc qword ptr [rsi + 8]; mov rax, [rdi]; cmp rax, [rsi]; jb 1b; syscall
    let code = [
        0x48, 0xff, 0x46, 0x08, 0x48, 0x8b, 0x07, 0x48, 0x3b, 0x06, 0x72, 0xf4, 0x0f, 0x05,
    ];
    let mut program = program(&code);
    let memory = Arc::clone(&program.memory);
    let space = Arc::clone(&program.space);
    memory.write(2 * PAGE, &[1]).unwrap();
    memory.write(3 * PAGE, &[2]).unwrap();
    program.registers.rsi = DATA;
    program.registers.rdi = NOWHERE;
    for round in 0..40 {
        memory.write(PAGE, &[2]).unwrap();
        memory.write(PAGE + 8, &[0; 8]).unwrap();
        space
            .map(NOWHERE, &memory, 2 * PAGE, PAGE, Protection::READ, false)
            .unwrap();
        let runner = thread::spawn(move || {
            program.registers.rip = CODE;
            // While the page is exchanged it may be seen missing.
            let exit = loop {
                match program.switch() {
                    Exit::Fault(fault) if fault.address == Some(NOWHERE) => {}
                    exit => break exit,
                }
            };
            (program, exit)
        });
        // It has read the old page at least once.
        wait_for_count(&memory, PAGE + 8, 2);
        space
            .map(NOWHERE, &memory, 3 * PAGE, PAGE, Protection::READ, false)
            .unwrap();
        let exit;
        (program, exit) = runner.join().unwrap();
        assert_eq!(
            (exit, program.registers.rax),
            (Exit::SystemCall, 2),
            "round {round}"
        );
    }
}

pub fn memory_is_shared_between_spaces() {
    let mut writer = program(&WRITE);
    let mut reader = program_on(&writer.platform, &READ);
    let memory = &writer.memory;
    reader
        .space
        .map(NOWHERE, memory, PAGE, PAGE, Protection::READ, false)
        .unwrap();
    for value in [3, 4] {
        writer.registers.rax = value;
        writer.call();
        assert_eq!(reader.read(NOWHERE), value);
    }
}

pub fn edges_of_the_address_space_are_checked() {
    let mut program = program(&READ);
    let memory = Arc::clone(&program.memory);
    let (min, max) = (
        program.platform.min_user_address(),
        program.platform.max_user_address(),
    );
    let refused = [
        (0, PAGE),
        (max, PAGE),
        (max - PAGE, 2 * PAGE),
        (1 << 47, PAGE),
        (0xffff_8000_0000_0000, PAGE),
        (u64::MAX - PAGE + 1, PAGE),
        (u64::MAX - PAGE + 1, 2 * PAGE),
        (DATA + 1, PAGE),
        (DATA, 0),
        (DATA, 5),
    ];
    for (address, length) in refused {
        let results = [
            program
                .space
                .map(address, &memory, 0, length, Protection::READ, false),
            program.space.unmap(address, length),
            program.space.protect(address, length, Protection::READ),
        ];
        for result in results {
            assert!(
                matches!(result, Err(Error::Range { .. })),
                "{address:#x} {length}: {result:?}"
            );
        }
    }
    memory.write(2 * PAGE, &[8]).unwrap();
    for address in [min, max - PAGE] {
        let offset = 2 * PAGE;
        program
            .space
            .map(address, &memory, offset, PAGE, Protection::READ, false)
            .unwrap();
        assert_eq!(program.read(address), 8);
    }
}

pub fn parts_outside_of_a_memory_are_refused() {
    let program = program(&READ);
    let memory = &program.memory;
    for (offset, length) in [
        (0, 5 * PAGE),
        (4 * PAGE, PAGE),
        (1, PAGE),
        (u64::MAX - 4095, PAGE),
    ] {
        let result = program
            .space
            .map(NOWHERE, memory, offset, length, Protection::READ, false);
        assert!(
            matches!(result, Err(Error::Offset { .. })),
            "{offset}: {result:?}"
        );
    }
    for length in [0, 1, u64::MAX] {
        assert!(program.platform.new_memory(length).is_err());
    }
}

pub fn protecting_a_hole_changes_nothing() {
    let mut program = program(&WRITE);
    let result = program.space.protect(DATA, 2 * PAGE, Protection::READ);
    assert_eq!(
        result,
        Err(Error::NotMapped {
            address: DATA + PAGE
        })
    );
    let result = program
        .space
        .protect(DATA - PAGE, 2 * PAGE, Protection::READ);
    assert_eq!(
        result,
        Err(Error::NotMapped {
            address: DATA - PAGE
        })
    );
    program.call();
}

pub fn lookup_tells_what_is_mapped() {
    let program = program(&READ);
    let (memory, offset, protection) = program.space.lookup(DATA + 5).unwrap();
    assert!(Arc::ptr_eq(&memory, &program.memory));
    assert_eq!((offset, protection), (PAGE + 5, Protection::READ_WRITE));
    assert!(program.space.lookup(DATA + PAGE).is_none());
    assert!(program.space.lookup(0).is_none());
}

pub fn whole_unit_can_be_mapped_ahead() {
    let mut program = program(&READ);
    let unit = program.platform.map_unit();
    let memory = program.platform.new_memory(unit).unwrap();
    program
        .space
        .map(0x1000_0000, &memory, 0, unit, Protection::READ_WRITE, true)
        .unwrap();
    memory.write(unit - 8, &[6]).unwrap();
    assert_eq!(program.read(0x1000_0000 + unit - 8), 6);
    program.space.unmap(0x1000_0000, unit).unwrap();
    assert_eq!(program.fault().address, Some(0x1000_0000 + unit - 8));
}

/// A file of zeros that nothing leads to.
fn file(length: u64) -> File {
    let region = std::env::temp_dir().join(format!("microvm-ring3-{}", std::process::id()));
    let options = || {
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        options
    };
    let file = options().open(&region).unwrap();
    std::fs::remove_file(&region).unwrap();
    file.set_len(length).unwrap();
    file
}

pub fn write_to_a_mapped_file_reaches_it() {
    use std::os::unix::fs::FileExt;
    let mut program = program(&WRITE);
    let file = file(3 * PAGE);
    let copy = file.try_clone().unwrap();
    let memory = program
        .platform
        .memory_of_file(copy, PAGE, PAGE, true)
        .unwrap();
    program
        .space
        .map(NOWHERE, &memory, 0, PAGE, Protection::READ_WRITE, false)
        .unwrap();
    program.registers.rdi = NOWHERE + 8;
    program.registers.rax = 0x1122;
    program.call();
    let mut bytes = [0; 2];
    file.read_at(&mut bytes, PAGE + 8).unwrap();
    assert_eq!(bytes, [0x22, 0x11]);
    assert!(memory.read(0, &mut bytes).is_err());
}

pub fn read_only_file_cannot_be_mapped_for_writing() {
    let mut program = program(&READ);
    let file = file(PAGE);
    let memory = program
        .platform
        .memory_of_file(file, 0, PAGE, false)
        .unwrap();
    let result = program
        .space
        .map(NOWHERE, &memory, 0, PAGE, Protection::READ_WRITE, false);
    assert_eq!(result, Err(Error::ReadOnlyMemory));
    program
        .space
        .map(NOWHERE, &memory, 0, PAGE, Protection::READ, true)
        .unwrap();
    let result = program.space.protect(NOWHERE, PAGE, Protection::ALL);
    assert_eq!(result, Err(Error::ReadOnlyMemory));
    assert_eq!(program.read(NOWHERE), 0);
    program.write_code(&WRITE);
    assert_eq!(program.fault().access(), Some(Access::Write));
}

pub fn file_that_became_shorter_is_a_bus_error() {
    for writable in [true, false] {
        let mut program = program(&READ);
        let file = file(2 * PAGE);
        let copy = file.try_clone().unwrap();
        let memory = program
            .platform
            .memory_of_file(copy, 0, 2 * PAGE, writable)
            .unwrap();
        program
            .space
            .map(NOWHERE, &memory, 0, 2 * PAGE, Protection::READ, false)
            .unwrap();
        assert_eq!(program.read(NOWHERE + PAGE), 0);
        file.set_len(PAGE).unwrap();
        program.registers.rip = CODE;
        let exit = program.switch();
        let Exit::BusError { address } = exit else {
            panic!("{exit:?}");
        };
        // Not all kernels that have KVM_CAP_MEMORY_FAULT_INFO tell it for this.
        assert!(matches!(address, None | Some(0x1234_6000)), "{address:x?}");
        assert_eq!(program.registers.rip, CODE);
        // It is the program's trouble, not the machine's.
        assert_eq!(program.read(NOWHERE), 0);
        file.set_len(2 * PAGE).unwrap();
        assert_eq!(program.read(NOWHERE + PAGE), 0);
        // Ahead of time it is an error.
        file.set_len(PAGE).unwrap();
        let space = &program.space;
        let ahead = space.map(NOWHERE, &memory, 0, 2 * PAGE, Protection::READ, true);
        assert!(matches!(ahead, Err(Error::Kvm { .. })), "{ahead:?}");
    }
}

pub fn released_space_refuses_everything() {
    let mut program = program(&READ);
    program.call();
    program.space.release().unwrap();
    program.space.release().unwrap();
    let memory = &program.memory;
    let map = program
        .space
        .map(NOWHERE, memory, 0, PAGE, Protection::READ, false);
    assert_eq!(map, Err(Error::Released));
    assert_eq!(program.space.unmap(DATA, PAGE), Err(Error::Released));
    assert!(program.space.lookup(DATA).is_none());
    let before = program.registers;
    let bases = SegmentBases { fs: DATA, gs: CODE };
    program.context.set_segment_bases(bases).unwrap();
    assert_eq!(
        program.switch_with(SwitchOptions::default()),
        Err(Error::Released)
    );
    // What the run would have set is not lost.
    assert_eq!(program.context.segment_bases(), Ok(bases));
    assert_eq!(program.registers, before);
}

pub fn space_is_released_while_a_program_runs_in_it() {
    let platform = platform_with(2);
    for _ in 0..20 {
        let mut program = program_on(&platform, &COUNT);
        let space = Arc::clone(&program.space);
        let memory = Arc::clone(&program.memory);
        let runner = thread::spawn(move || {
            program.switch_with(SwitchOptions {
                timeout: Some(PATIENCE),
                ..SwitchOptions::default()
            })
        });
        wait_for_count(&memory, PAGE, 1);
        space.release().unwrap();
        assert_eq!(runner.join().unwrap(), Err(Error::Released));
    }
    program_on(&platform, &SYSCALL).call();
}
