//! Several threads, vCPUs and machines.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use microvm_ring3::{Exit, Interrupter, KvmPlatform, Protection, SwitchOptions};

use crate::fixture::*;

pub fn more_threads_than_vcpus_all_finish() {
    // 1: inc rax; syscall; jmp 1b
    const CODE: [u8; 7] = [0x48, 0xff, 0xc0, 0x0f, 0x05, 0xeb, 0xf9];
    let platform = platform_with(2);
    let threads: Vec<_> = (0..6u64)
        .map(|number| {
            let platform = Arc::clone(&platform);
            thread::spawn(move || {
                let mut program = program_on(&platform, &CODE);
                program.registers.rax = number << 32;
                for _ in 0..50 {
                    program.resume_to_call();
                }
                program.registers.rax
            })
        })
        .collect();
    for (thread, number) in threads.into_iter().zip(0..) {
        assert_eq!(thread.join().unwrap(), (number << 32) + 50);
    }
    assert!(platform.vcpus() <= 2);
}

pub fn thread_gets_its_own_vcpu_again() {
    let platform = platform_with(4);
    assert_eq!((platform.vcpus(), platform.most_vcpus()), (0, 4));
    for _ in 0..3 {
        program_on(&platform, &SYSCALL).call();
    }
    assert_eq!(platform.vcpus(), 1);
    let other = Arc::clone(&platform);
    thread::spawn(move || program_on(&other, &SYSCALL).call())
        .join()
        .unwrap();
    assert_eq!(platform.vcpus(), 2);
}

/// Takes the only vCPU of a machine until it is interrupted, and tells once it has it.
fn occupy(
    platform: &Arc<KvmPlatform>,
    hold: impl FnOnce(&mut Program) -> Exit + Send + 'static,
) -> (thread::JoinHandle<Exit>, Interrupter) {
    let mut program = program_on(platform, &COUNT);
    let interrupter = program.context.interrupter();
    let memory = Arc::clone(&program.memory);
    let thread = thread::spawn(move || hold(&mut program));
    wait_for_count(&memory, PAGE, 1);
    (thread, interrupter)
}

pub fn wait_for_a_vcpu_ends_with_the_time_or_an_interrupt() {
    let platform = platform_with(1);
    let (busy, stop) = occupy(&platform, Program::switch);
    let mut program = program_on(&platform, &SYSCALL);
    let before = program.registers;
    let short = SwitchOptions {
        timeout: Some(Duration::from_millis(10)),
        ..SwitchOptions::default()
    };
    assert_eq!(program.switch_with(short), Ok(Exit::TimedOut));
    assert_eq!(program.registers, before);
    let interrupter = program.context.interrupter();
    let (started, start) = mpsc::channel();
    let waiting = thread::spawn(move || {
        started.send(()).unwrap();
        let exit = program.switch();
        (program, exit)
    });
    start.recv().unwrap();
    interrupter.interrupt().unwrap();
    let (mut program, exit) = waiting.join().unwrap();
    assert_eq!(exit, Exit::Interrupted);
    assert_eq!(program.registers, before);
    stop.interrupt().unwrap();
    assert_eq!(busy.join().unwrap(), Exit::Interrupted);
    program.call();
}

pub fn vcpu_goes_to_who_waits_before_its_thread_gets_it_again() {
    let platform = platform_with(1);
    // It would take the vCPU again at once, and for ever.
    let (turns, turn) = mpsc::channel();
    let (busy, stop) = occupy(&platform, move |program| {
        loop {
            let exit = program.switch_with(SwitchOptions {
                timeout: Some(Duration::from_millis(1)),
                ..SwitchOptions::default()
            });
            match exit.unwrap() {
                Exit::TimedOut if turns.send(()).is_ok() => {}
                exit => break exit,
            }
        }
    });
    let mut program = program_on(&platform, &SYSCALL);
    for _ in 0..20 {
        program.call();
    }
    drop(turn);
    // It has ended by itself unless this was faster.
    stop.interrupt().unwrap();
    busy.join().unwrap();
}

pub fn context_moves_between_threads_with_its_state() {
    // mov rax, fs:[0]; syscall
    let code = [0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0x0f, 0x05];
    let platform = platform_with(3);
    let mut program = program_on(&platform, &code);
    program.memory.write(PAGE, &[21]).unwrap();
    let bases = microvm_ring3::SegmentBases { fs: DATA, gs: 5 };
    program.context.set_segment_bases(bases).unwrap();
    for _ in 0..8 {
        let platform = Arc::clone(&platform);
        program = thread::spawn(move || {
            // Takes a vCPU away from whoever was there.
            program_on(&platform, &SYSCALL).call();
            program.call();
            assert_eq!(program.registers.rax, 21);
            program
        })
        .join()
        .unwrap();
    }
    assert_eq!(program.context.segment_bases(), Ok(bases));
}

pub fn two_machines_alternate_on_one_thread() {
    let mut programs = [program(&READ), program_on(&platform_with(1), &READ)];
    for (program, value) in programs.iter().zip([11, 12]) {
        program.memory.write(PAGE, &[value]).unwrap();
    }
    for _ in 0..50 {
        for (program, value) in programs.iter_mut().zip([11, 12]) {
            assert_eq!(program.read(DATA), value);
        }
    }
}

pub fn atomic_additions_of_two_programs_all_count() {
    // 1: lock inc qword ptr [rdi]; inc qword ptr [rsi]; cmp qword ptr [rdi + 8], 0; je 1b; syscall
    let code = [
        0xf0, 0x48, 0xff, 0x07, 0x48, 0xff, 0x06, 0x48, 0x83, 0x7f, 0x08, 0x00, 0x74, 0xf2, 0x0f,
        0x05,
    ];
    const EACH: u64 = 20_000;
    const STOP: u64 = PAGE + 8;
    const OWN: [u64; 2] = [PAGE + 16, PAGE + 24];
    let platform = platform_with(2);
    let mut programs = [program_on(&platform, &code), program_on(&platform, &code)];
    let shared = Arc::clone(&programs[0].memory);
    let all = Protection::READ_WRITE;
    programs[1]
        .space
        .map(DATA, &shared, PAGE, PAGE, all, false)
        .unwrap();
    for (program, own) in programs.iter_mut().zip(OWN) {
        program.registers.rsi = DATA + own - PAGE;
    }
    let threads = programs
        .map(|mut program| thread::spawn(move || assert_eq!(program.switch(), Exit::SystemCall)));
    // None of them stops before it is told to: they run at the same time.
    for own in OWN {
        wait_for_count(&shared, own, 1);
    }
    for own in OWN {
        wait_for_count(&shared, own, EACH);
    }
    shared.write(STOP, &[1]).unwrap();
    for thread in threads {
        thread.join().unwrap();
    }
    let counted: u64 = OWN.iter().map(|own| word(&shared, *own)).sum();
    assert_eq!(word(&shared, PAGE), counted);
}
