//! Ending a switch from outside.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use microvm_ring3::{Exit, SwitchOptions};

use crate::fixture::*;

fn timeout(time: Duration) -> SwitchOptions {
    SwitchOptions {
        timeout: Some(time),
        ..SwitchOptions::default()
    }
}

pub fn interrupt_before_a_switch_returns_at_once() {
    let mut program = program(&ENDLESS);
    let interrupter = program.context.interrupter();
    interrupter.interrupt().unwrap();
    interrupter.interrupt().unwrap();
    let before = program.registers;
    assert_eq!(program.switch(), Exit::Interrupted);
    assert_eq!(program.registers, before);
    // Two that came before one switch are one.
    let exit = program.switch_with(timeout(Duration::from_millis(1)));
    assert_eq!(exit, Ok(Exit::TimedOut));
}

pub fn interrupt_that_is_withdrawn_ends_no_switch() {
    let mut program = program(&ENDLESS);
    let interrupter = program.context.interrupter();
    assert!(!interrupter.withdraw());
    interrupter.interrupt().unwrap();
    assert!(interrupter.withdraw());
    let exit = program.switch_with(timeout(Duration::from_millis(1)));
    assert_eq!(exit, Ok(Exit::TimedOut));
}

pub fn interrupt_ends_an_endless_loop() {
    let mut program = program(&COUNT);
    let interrupter = program.context.interrupter();
    let memory = Arc::clone(&program.memory);
    let thread = thread::spawn(move || {
        let exit = program.switch();
        (program, exit)
    });
    wait_for_count(&memory, PAGE, 1);
    interrupter.interrupt().unwrap();
    let (program, exit) = thread.join().unwrap();
    assert_eq!(exit, Exit::Interrupted);
    assert!((CODE..CODE + 6).contains(&program.registers.rip));
}

/// Numbers that look random.
fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

pub fn none_of_a_thousand_interrupts_is_lost() {
    // It never leaves the guest by itself: only the interrupt can end it.
    let mut program = program(&COUNT);
    let interrupter = program.context.interrupter();
    let memory = Arc::clone(&program.memory);
    const ROUNDS: usize = 1_000;
    let (answer, answered) = mpsc::channel();
    let thread = thread::spawn(move || {
        for _ in 0..ROUNDS {
            assert_eq!(program.switch(), Exit::Interrupted);
            answer.send(()).unwrap();
        }
    });
    let mut seed = 0x2545_f491_4f6c_dd1d;
    let mut counted = 0;
    for _ in 0..ROUNDS {
        wait_for_count(&memory, PAGE, counted + 1);
        for _ in 0..random(&mut seed) % 2_000 {
            std::hint::spin_loop();
        }
        interrupter.interrupt().unwrap();
        answered.recv_timeout(PATIENCE).unwrap();
        counted = word(&memory, PAGE);
    }
    thread.join().unwrap();
}

pub fn interrupts_among_calls_and_faults_all_arrive() {
    // 1: syscall; mov rax, [rsi]; jmp 1b: interrupts meet calls, faults, and what is in between.
    let mut program = program(&[0x0f, 0x05, 0x48, 0x8b, 0x06, 0xeb, 0xf9]);
    let interrupter = program.context.interrupter();
    const ROUNDS: usize = 1_000;
    let (answer, answered) = mpsc::channel();
    let thread = thread::spawn(move || {
        program.registers.rsi = NOWHERE;
        for _ in 0..ROUNDS {
            loop {
                match program.switch() {
                    Exit::SystemCall => assert_eq!(program.registers.rip, CODE + 2),
                    Exit::Fault(fault) => {
                        assert_eq!(fault.address, Some(NOWHERE));
                        assert_eq!(program.registers.rip, CODE + 2);
                        program.registers.rip = CODE + 5;
                    }
                    Exit::Interrupted => break,
                    exit => panic!("{exit:?}"),
                }
            }
            answer.send(()).unwrap();
        }
    });
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..ROUNDS {
        for _ in 0..random(&mut seed) % 2_000 {
            std::hint::spin_loop();
        }
        interrupter.interrupt().unwrap();
        answered.recv_timeout(PATIENCE).unwrap();
    }
    thread.join().unwrap();
}

pub fn interrupt_among_system_calls_is_seen_by_the_next_switch() {
    let mut program = program(&SYSCALL);
    program.call();
    program.context.interrupter().interrupt().unwrap();
    program.registers.rip = CODE;
    assert_eq!(program.switch(), Exit::Interrupted);
    program.call();
}

pub fn timeout_ends_an_endless_loop() {
    let mut program = program(&ENDLESS);
    for time in [0, 1, 5].map(Duration::from_millis) {
        let start = Instant::now();
        assert_eq!(program.switch_with(timeout(time)), Ok(Exit::TimedOut));
        assert!(start.elapsed() >= time);
        assert_eq!(program.registers.rip, CODE);
    }
}

pub fn timeout_that_was_not_needed_does_not_end_the_next_switch() {
    let mut program = program(&[0x0f, 0x05, 0xeb, 0xfe]);
    let short = Duration::from_millis(20);
    for _ in 0..50 {
        program.registers.rip = CODE;
        let exit = program.switch_with(timeout(short)).unwrap();
        assert!(
            matches!(exit, Exit::SystemCall | Exit::TimedOut),
            "{exit:?}"
        );
    }
    let start = Instant::now();
    let long = Duration::from_millis(60);
    program.registers.rip = CODE + 2;
    assert_eq!(program.switch_with(timeout(long)), Ok(Exit::TimedOut));
    assert!(start.elapsed() >= long);
}
