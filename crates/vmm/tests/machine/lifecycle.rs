//! How machines run, pause and end.

use std::io::Write;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use microvm_vmm::{ExitReason, Machine, MachineError, reaper};

use super::guest::Code;
use super::support::{Bench, alone, has_kvm};

/// Skips the test where there is no KVM; otherwise one at a time.
macro_rules! with_kvm {
    () => {
        let _alone = alone();
        if !has_kvm() {
            return;
        }
    };
}

#[track_caller]
fn ends_with(code: &Code, want: &ExitReason) {
    let bench = Bench::start(code);
    assert_eq!(&bench.machine.wait(), want);
    bench.machine.stop();
    assert_eq!(
        &bench.machine.wait(),
        want,
        "a stop does not change the reason"
    );
}

#[test]
fn the_guest_switches_itself_off() {
    with_kvm!();
    ends_with(&Code::new().power_off(), &ExitReason::PowerOff);
}

#[test]
fn the_guest_resets_by_the_keyboard_controller_and_by_acpi() {
    with_kvm!();
    ends_with(&Code::new().out(0x64, 0xfe).halt(), &ExitReason::Reset);
    ends_with(&Code::new().out(0x604, 1).halt(), &ExitReason::Reset);
}

#[test]
fn an_exception_without_a_handler_is_a_triple_fault() {
    with_kvm!();
    ends_with(&Code::new().raw(&[0x0f, 0x0b]), &ExitReason::TripleFault);
}

#[test]
fn code_where_no_memory_is_ends_with_rip_and_registers() {
    with_kvm!();
    // mov ebx, 0x12345678; mov eax, 0xd8000000; jmp eax
    let code = Code::new().raw(&[
        0xbb, 0x78, 0x56, 0x34, 0x12, 0xb8, 0x00, 0x00, 0x00, 0xd8, 0xff, 0xe0,
    ]);
    let bench = Bench::start(&code);
    let ExitReason::InternalError(text) = bench.machine.wait() else {
        panic!("{:?}", bench.machine.wait());
    };
    for want in [
        "on vCPU 0",
        "rip=0xd8000000",
        "rbx=0x12345678",
        "code=[",
        "cr0=",
    ] {
        assert!(text.contains(want), "{want} is not in {text}");
    }
}

#[test]
fn unknown_ports_and_addresses_read_as_all_ones_and_swallow_writes() {
    with_kvm!();
    let code = Code::new()
        // mov dx, 0x1234; in eax, dx
        .raw(&[0x66, 0xba, 0x34, 0x12, 0xed])
        .print_whether_all_ones()
        .raw(&[0x66, 0xba, 0x34, 0x12, 0xef])
        // mov eax, [0xd8000000]
        .raw(&[0xa1, 0x00, 0x00, 0x00, 0xd8])
        .print_whether_all_ones()
        // mov eax, [0xd8000ffe]: unaligned, over the end of a page
        .raw(&[0xa1, 0xfe, 0x0f, 0x00, 0xd8])
        .print_whether_all_ones()
        // mov [0xd8000000], eax
        .raw(&[0xa3, 0x00, 0x00, 0x00, 0xd8])
        .power_off();
    let bench = Bench::start(&code);
    assert_eq!(bench.machine.wait(), ExitReason::PowerOff);
    assert_eq!(bench.finish(), "YYY");
}

#[test]
fn a_string_instruction_reaches_the_console_byte_by_byte() {
    with_kvm!();
    let text =
        "a line that is longer than the UART's FIFO of sixty-four bytes, by a good measure\n";
    let bench = Bench::start(&Code::new().print(text).power_off());
    assert_eq!(bench.machine.wait(), ExitReason::PowerOff);
    assert_eq!(
        bench.machine.metrics().console.output_bytes,
        text.len() as u64
    );
    assert_eq!(bench.finish(), text);
}

#[test]
fn console_input_reaches_the_guest() {
    with_kvm!();
    let mut bench = Bench::start(&Code::new().echo_line().power_off());
    bench.console.write_all(b"hello\n").unwrap();
    assert_eq!(bench.machine.wait(), ExitReason::PowerOff);
    assert_eq!(bench.finish(), "hello\n");
}

#[test]
fn a_guest_that_spins_or_halts_is_stopped_at_once() {
    with_kvm!();
    for code in [Code::new().print(">").spin(), Code::new().print(">").halt()] {
        let mut bench = Bench::start_with(&code, |config| config.cpus = 4);
        bench.expect(">");
        bench.machine.stop();
        assert_eq!(bench.machine.wait(), ExitReason::Stopped);
    }
}

#[test]
fn processor_time_and_memory_are_told_while_it_runs_and_what_is_left_after() {
    with_kvm!();
    const TIME: Duration = Duration::from_millis(20);
    let mut bench = Bench::start_with(&Code::new().print(">").spin(), |config| {
        config.cpus = 2;
        config.rng = true;
    });
    bench.expect(">");
    let patience = Instant::now() + Duration::from_secs(60);
    while bench.machine.metrics().vcpu_times[0] < TIME {
        assert!(Instant::now() < patience, "a guest that spins takes time");
        thread::yield_now();
    }
    bench.machine.pause().unwrap();
    let paused = bench.machine.metrics();
    // The other one waits for the first to start it.
    assert!(paused.vcpu_times[1] < paused.vcpu_times[0]);
    assert!(!paused.device_time.is_zero());
    assert!((4096..32 << 20).contains(&paused.ram_bytes));
    let types: Vec<_> = paused.devices.iter().map(|it| it.device_type).collect();
    assert_eq!(types, [4]);
    bench.machine.stop();
    reaper::wait_idle();
    let ended = bench.machine.metrics();
    assert!(ended.vcpu_times[0] >= paused.vcpu_times[0]);
    assert_eq!(ended.ram_bytes, 0, "nothing keeps its memory");
}

#[test]
fn a_machine_may_have_sixty_four_vcpus() {
    with_kvm!();
    let mut bench = Bench::start_with(&Code::new().print(">").spin(), |config| config.cpus = 64);
    bench.expect(">");
    bench.machine.pause().unwrap();
    bench.machine.resume().unwrap();
    bench.machine.stop();
    assert_eq!(bench.machine.wait(), ExitReason::Stopped);
}

#[test]
fn a_machine_that_never_ran_can_be_stopped() {
    with_kvm!();
    let bench = Bench::build(&Code::new().spin(), |_| ());
    bench.machine.stop();
    assert_eq!(bench.machine.wait(), ExitReason::Stopped);
    assert!(matches!(
        bench.machine.start(),
        Err(MachineError::State { .. })
    ));
}

#[test]
fn many_threads_may_stop_and_wait_at_the_same_time() {
    with_kvm!();
    let bench = Bench::start(&Code::new().spin());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(bench.machine.wait(), ExitReason::Stopped));
            scope.spawn(|| bench.machine.stop());
        }
    });
}

#[test]
fn a_stop_right_after_the_start_ends_every_vcpu() {
    with_kvm!();
    for _ in 0..20 {
        let bench = Bench::start_with(&Code::new().spin(), |config| config.cpus = 3);
        bench.machine.stop();
    }
}

#[test]
fn a_paused_guest_does_nothing_until_it_is_resumed() {
    with_kvm!();
    // Asks the UART for input without end: an exit each time.
    let mut bench = Bench::start_with(&Code::new().echo_line().power_off(), |config| {
        config.cpus = 2;
        config.rng = true;
    });
    bench.console.write_all(b"a").unwrap();
    bench.expect("a");
    for _ in 0..50 {
        bench.machine.pause().unwrap();
        let before = bench.machine.metrics().exits;
        bench.machine.pause().unwrap();
        thread::yield_now();
        assert_eq!(bench.machine.metrics().exits, before);
        bench.machine.resume().unwrap();
    }
    bench.machine.resume().unwrap();
    bench.console.write_all(b"b\n").unwrap();
    bench.expect("b\n");
    assert_eq!(bench.machine.wait(), ExitReason::PowerOff);
    assert!(matches!(
        bench.machine.pause(),
        Err(MachineError::State { .. })
    ));
    assert!(matches!(
        bench.machine.resume(),
        Err(MachineError::State { .. })
    ));
}

#[test]
fn a_pause_completes_the_instruction_that_was_under_way() {
    with_kvm!();
    // A long string instruction: it exits again and again, and each pause falls into the middle.
    let text = "0123456789abcdef".repeat(200);
    let bench = Bench::start(&Code::new().print(&text).power_off());
    while bench.machine.pause().is_ok() {
        if bench.machine.resume().is_err() {
            break;
        }
    }
    assert_eq!(bench.machine.wait(), ExitReason::PowerOff);
    let metrics = bench.machine.metrics();
    let shown = bench.finish();
    assert!(
        shown == text,
        "{} of {} bytes; {metrics:?}",
        shown.len(),
        text.len()
    );
}

#[test]
fn a_paused_machine_can_be_stopped() {
    with_kvm!();
    let bench = Bench::start_with(&Code::new().spin(), |config| config.cpus = 2);
    bench.machine.pause().unwrap();
    bench.machine.stop();
    assert_eq!(bench.machine.wait(), ExitReason::Stopped);
}

#[test]
fn pauses_resumes_and_a_stop_from_many_threads_do_not_deadlock() {
    with_kvm!();
    let bench = Bench::start_with(&Code::new().spin(), |config| config.cpus = 2);
    thread::scope(|scope| {
        for number in 0..4 {
            let machine = &bench.machine;
            scope.spawn(move || {
                for _ in 0..25 {
                    let _ = if number % 2 == 0 {
                        machine.pause()
                    } else {
                        machine.resume()
                    };
                }
            });
        }
        scope.spawn(|| bench.machine.stop());
    });
    assert_eq!(bench.machine.wait(), ExitReason::Stopped);
}

#[test]
fn the_power_button_needs_a_machine_that_runs() {
    with_kvm!();
    let bench = Bench::build(&Code::new().spin(), |_| ());
    assert!(matches!(
        bench.machine.press_power_button(),
        Err(MachineError::State { .. })
    ));
    bench.machine.start().unwrap();
    bench.machine.press_power_button().unwrap();
    bench.machine.stop();
    assert!(matches!(
        bench.machine.press_power_button(),
        Err(MachineError::State { .. })
    ));
}

#[test]
fn a_press_of_the_power_button_shows_in_the_event_register() {
    with_kvm!();
    // wait: mov dx, 0x602; in al, dx; test al, 1; jz wait
    let code = Code::new()
        .print("?")
        .raw(&[0x66, 0xba, 0x02, 0x06, 0xec, 0xa8, 0x01, 0x74, 0xf7])
        .power_off();
    let mut bench = Bench::start(&code);
    bench.expect("?");
    bench.machine.press_power_button().unwrap();
    assert_eq!(bench.machine.wait(), ExitReason::PowerOff);
}

#[test]
fn the_guest_s_end_wakes_a_waiter_of_another_thread() {
    with_kvm!();
    let mut bench = Bench::start(&Code::new().print("!").echo_line().power_off());
    bench.expect("!");
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| sender.send(bench.machine.wait()).unwrap());
        (&bench.console).write_all(b"\n").unwrap();
        assert_eq!(receiver.recv().unwrap(), ExitReason::PowerOff);
    });
}

#[test]
fn a_guest_that_floods_the_console_is_not_held_up_by_a_reader_that_does_not_read() {
    with_kvm!();
    // mov ecx, 80000; again: mov dx, 0x3f8; out dx, al; loop again
    let code = Code::new()
        .raw(&[0xb9, 0x80, 0x38, 0x01, 0x00])
        .raw(&[0x66, 0xba, 0xf8, 0x03, 0xee, 0xe2, 0xfd])
        .power_off();
    let bench = Bench::start(&code);
    assert_eq!(bench.machine.wait(), ExitReason::PowerOff);
    let console = bench.machine.metrics().console;
    assert_eq!(console.output_bytes, 80_000);
    bench.machine.stop();
    let dropped = bench.machine.metrics().console.dropped_bytes;
    let kept = bench.finish().len() as u64;
    assert_eq!(kept + dropped, 80_000);
}

#[test]
fn machines_may_be_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Machine>();
}
