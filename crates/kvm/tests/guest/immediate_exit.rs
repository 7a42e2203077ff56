//! Requests to leave the guest are seen whenever they are made, and once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use microvm_kvm::{Exit, block_other_signals};

use crate::fixture::{CODE, guest, run_to_halt};

/// jmp to itself
const ENDLESS: [u8; 2] = [0xeb, 0xfe];
/// Longer than any of this takes; a lost request fails the test instead of hanging it.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn request_before_a_run_ends_that_run_once() {
    let mut runner = guest(&[0xf4]);
    let handle = runner.immediate_exit();
    handle.request().unwrap();
    handle.request().unwrap();
    assert_eq!(runner.run().unwrap(), Exit::Interrupted);
    assert_eq!(runner.get_regs().unwrap().rip, CODE);
    run_to_halt(&mut runner);
}

pub fn request_from_another_thread_ends_an_endless_loop() {
    let mut runner = guest(&ENDLESS);
    let handle = runner.immediate_exit();
    let requester = thread::spawn(move || handle.request().unwrap());
    assert_eq!(runner.run().unwrap(), Exit::Interrupted);
    requester.join().unwrap();
}

pub fn request_works_on_a_thread_that_blocks_all_signals() {
    let mut runner = guest(&ENDLESS);
    let handle = runner.immediate_exit();
    let (done, wait) = mpsc::channel();
    let thread = thread::spawn(move || {
        // SAFETY: all zeros is a set of signals.
        let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: fills the set that lives here.
        unsafe { libc::sigfillset(&raw mut all) };
        // SAFETY: reads the set that lives here.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut()) };
        for _ in 0..2 {
            let exit = runner.run().map(|exit| exit == Exit::Interrupted);
            done.send(exit).unwrap();
        }
    });
    for _ in 0..2 {
        handle.request().unwrap();
        assert_eq!(wait.recv_timeout(PATIENCE).unwrap(), Ok(true));
    }
    thread.join().unwrap();
}

pub fn request_behind_an_exit_waits_for_the_next_run() {
    // hlt; hlt
    let mut runner = guest(&[0xf4, 0xf4]);
    run_to_halt(&mut runner);
    runner.immediate_exit().request().unwrap();
    assert_eq!(runner.run().unwrap(), Exit::Interrupted);
    run_to_halt(&mut runner);
}

pub fn no_request_of_many_is_lost() {
    // 1: out 0x80, al; jmp 1b: the guest leaves by itself all the time, so that requests meet
    // every state of the runner.
    let mut runner = guest(&[0xe6, 0x80, 0xeb, 0xfc]);
    let handle = runner.immediate_exit();
    let (interrupted, wait) = mpsc::channel();
    const REQUESTS: usize = 2_000;
    let made = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&made);
    let thread = thread::spawn(move || {
        for answered in 0..REQUESTS {
            while runner.run().unwrap() != Exit::Interrupted {}
            assert_eq!(seen.load(Ordering::SeqCst), answered + 1);
            interrupted.send(()).unwrap();
        }
    });
    for _ in 0..REQUESTS {
        made.fetch_add(1, Ordering::SeqCst);
        handle.request().unwrap();
        wait.recv_timeout(PATIENCE).unwrap();
    }
    thread.join().unwrap();
}

pub fn no_request_is_lost_to_the_completion_of_an_exit() {
    // 1: out 0x80, al; jmp 1b
    let mut runner = guest(&[0xe6, 0x80, 0xeb, 0xfc]);
    let handle = runner.immediate_exit();
    let (interrupted, wait) = mpsc::channel();
    const REQUESTS: usize = 500;
    let thread = thread::spawn(move || {
        for _ in 0..REQUESTS {
            while runner.run().unwrap() != Exit::Interrupted {
                assert_eq!(runner.complete_exit().unwrap(), Exit::Interrupted);
            }
            interrupted.send(()).unwrap();
        }
    });
    for _ in 0..REQUESTS {
        handle.request().unwrap();
        wait.recv_timeout(PATIENCE).unwrap();
    }
    thread.join().unwrap();
}

pub fn request_after_the_runner_is_gone_does_nothing() {
    let runner = guest(&[0xf4]);
    let handle = runner.immediate_exit();
    drop(runner);
    handle.request().unwrap();
    assert!(format!("{handle:?}").contains("connected: false"));
}

pub fn withdrawn_request_ends_no_run() {
    let mut runner = guest(&[0xf4]);
    let handle = runner.immediate_exit();
    assert!(!handle.withdraw());
    handle.request().unwrap();
    assert!(handle.withdraw());
    run_to_halt(&mut runner);
}

pub fn request_works_on_a_thread_that_blocks_other_signals() {
    let mut runner = guest(&ENDLESS);
    let handle = runner.immediate_exit();
    let (done, wait) = mpsc::channel();
    let thread = thread::spawn(move || {
        block_other_signals().unwrap();
        let exit = runner.run().map(|exit| exit == Exit::Interrupted);
        done.send(exit).unwrap();
    });
    handle.request().unwrap();
    assert_eq!(wait.recv_timeout(PATIENCE).unwrap(), Ok(true));
    thread.join().unwrap();
}

pub fn completing_an_exit_keeps_a_request() {
    // out 0x80, al; hlt
    let mut runner = guest(&[0xe6, 0x80, 0xf4]);
    assert!(matches!(runner.run().unwrap(), Exit::IoOut { .. }));
    runner.immediate_exit().request().unwrap();
    assert_eq!(runner.complete_exit().unwrap(), Exit::Interrupted);
    assert_eq!(runner.run().unwrap(), Exit::Interrupted);
    run_to_halt(&mut runner);
}

pub fn runner_moves_between_threads() {
    let mut runner = guest(&[0xf4, 0xeb, 0xfe]);
    run_to_halt(&mut runner);
    let handle = runner.immediate_exit();
    let (done, wait) = mpsc::channel();
    let thread = thread::spawn(move || done.send(runner.run().unwrap() == Exit::Interrupted));
    handle.request().unwrap();
    assert!(wait.recv_timeout(PATIENCE).unwrap());
    thread.join().unwrap().unwrap();
}
