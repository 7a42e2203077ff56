//! A stock Linux guest against the vhost-user host: QEMU emulates the machine, the kernel's own
//! vsock driver is the driver.
//!
//! Needs `qemu-system-x86_64`, `rustc`, and a kernel with its modules as set-up caches them, under
//! `$MICROVM_CACHE` or `~/.cache/microvm`: `guest/current/{vmlinuz,modules/<release>/}`. Where
//! something is missing the tests are reported as ignored, and the reason is printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation
)]

mod machine;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use libtest_mimic::{Arguments, Failed, Trial};
use machine::Machine;

type Test = fn(&mut Machine);

const TESTS: [(&str, Test); 6] = [
    (
        "megabytes_come_back_from_the_guests_echo",
        megabytes_come_back_from_the_guests_echo,
    ),
    (
        "sixty_connections_at_once_are_echoed",
        sixty_connections_at_once_are_echoed,
    ),
    (
        "a_guest_port_where_nobody_listens_ends_the_stream",
        a_guest_port_where_nobody_listens_ends_the_stream,
    ),
    (
        "a_host_port_where_nobody_listens_resets_the_dial",
        a_host_port_where_nobody_listens_resets_the_dial,
    ),
    (
        "what_a_guest_sent_before_it_closed_arrives",
        what_a_guest_sent_before_it_closed_arrives,
    ),
    (
        "what_the_host_sent_before_it_closed_arrives",
        what_the_host_sent_before_it_closed_arrives,
    ),
];

fn main() {
    let mut arguments = Arguments::from_args();
    // They share one guest.
    arguments.test_threads = Some(1);
    let machine = if arguments.list {
        Err("only listed".to_owned())
    } else {
        Machine::start()
    };
    let guest = match machine {
        Ok(machine) => Some(Arc::new(Mutex::new(machine))),
        Err(reason) => {
            eprintln!("The guest's tests cannot run: {reason}");
            None
        }
    };
    let trials = TESTS
        .iter()
        .map(|(name, test)| {
            let shared = guest.clone();
            Trial::test(*name, move || run(shared, *test)).with_ignored_flag(guest.is_none())
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Some(guest) = guest {
        let machine = Arc::into_inner(guest).unwrap();
        let machine = machine.into_inner().unwrap_or_else(PoisonError::into_inner);
        machine.power_off();
    }
    conclusion.exit();
}

fn run(guest: Option<Arc<Mutex<Machine>>>, test: Test) -> Result<(), Failed> {
    let guest = guest.ok_or("no guest")?;
    test(&mut guest.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(())
}

fn megabytes_come_back_from_the_guests_echo(machine: &mut Machine) {
    let mut stream = machine.dial(7000).expect("the echo accepts");
    let bytes = pattern(4 << 20);
    let start = Instant::now();
    let mut writer = stream.try_clone().unwrap();
    let sent = bytes.clone();
    let thread = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    thread.join().unwrap();
    assert!(got == bytes);
    eprintln!("4 MiB there and back in {:?}", start.elapsed());
}

fn sixty_connections_at_once_are_echoed(machine: &mut Machine) {
    let streams: Vec<_> = (0..60)
        .map(|_| machine.dial(7000).expect("the echo accepts"))
        .collect();
    for (index, mut stream) in streams.iter().enumerate() {
        stream.write_all(&(index as u32).to_le_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    }
    for (index, mut stream) in streams.into_iter().enumerate() {
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        assert_eq!(got, (index as u32).to_le_bytes());
    }
}

fn a_guest_port_where_nobody_listens_ends_the_stream(machine: &mut Machine) {
    assert!(machine.dial(7999).is_none());
}

fn a_host_port_where_nobody_listens_resets_the_dial(machine: &mut Machine) {
    assert_eq!(
        machine.order("dial 7998"),
        format!("errno {}", libc::ECONNRESET)
    );
}

fn what_a_guest_sent_before_it_closed_arrives(machine: &mut Machine) {
    let listener = machine.listen(7100);
    machine.start_order("send 7100 1000000");
    let (mut stream, _) = listener.accept().unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert!(got == pattern(1_000_000));
    assert_eq!(machine.answer(), "sent");
}

fn what_the_host_sent_before_it_closed_arrives(machine: &mut Machine) {
    let listener = machine.listen(7200);
    machine.start_order("receive 7200");
    let (mut stream, _) = listener.accept().unwrap();
    let bytes = pattern(1_000_000);
    stream.write_all(&bytes).unwrap();
    drop(stream);
    let sum = bytes.iter().fold(0u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
    });
    assert_eq!(machine.answer(), format!("1000000 {sum}"));
}

fn pattern(count: u32) -> Vec<u8> {
    (0..count)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}
