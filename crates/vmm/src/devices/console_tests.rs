use std::io::Write;
use std::net::Shutdown;

use vmm_sys_util::eventfd::EventFd;

use super::super::serial::OUTPUT_MAX;
use super::*;
use crate::bus::BusDevice;

const DATA: u64 = 0;
const INTERRUPT_ENABLE: u64 = 1;
const MODEM_CONTROL: u64 = 4;
const LINE_STATUS: u64 = 5;
const LOOPBACK: u8 = 0x10;

/// A UART with its console, the host's end of it, and its interrupt.
struct Bench {
    serial: Arc<Serial>,
    console: Console,
    host: UnixStream,
    interrupt: EventFd,
}

impl Bench {
    fn new() -> Self {
        // Blocking, so that tests wait for an interrupt instead of asking for it.
        let interrupt = EventFd::new(0).unwrap();
        let serial = Arc::new(Serial::new(interrupt.try_clone().unwrap(), true).unwrap());
        let (host, machine) = UnixStream::pair().unwrap();
        let console = Console::start(Arc::clone(&serial), machine.into()).unwrap();
        serial.write(INTERRUPT_ENABLE, &[1]);
        Self {
            serial,
            console,
            host,
            interrupt,
        }
    }

    fn guest_prints(&self, bytes: &[u8]) {
        for byte in bytes {
            self.serial.write(DATA, &[*byte]);
        }
    }

    fn register(&self, register: u64) -> u8 {
        let mut data = [0];
        self.serial.read(register, &mut data);
        data[0]
    }

    /// Reads as a driver does: waits for an interrupt, then takes what is there.
    fn guest_reads(&self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            self.interrupt.read().unwrap();
            while self.register(LINE_STATUS) & 1 != 0 {
                bytes.push(self.register(DATA));
            }
        }
        bytes
    }
}

#[test]
fn what_the_guest_prints_reaches_the_host() {
    let mut bench = Bench::new();
    bench.guest_prints(b"Linux version");
    let mut text = [0; 13];
    bench.host.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"Linux version");
}

#[test]
fn input_larger_than_the_fifo_arrives_whole_and_in_order() {
    let mut bench = Bench::new();
    let input: Vec<u8> = (0..5000u32).map(|n| (n % 251) as u8).collect();
    let mut host = bench.host.try_clone().unwrap();
    let sent = input.clone();
    let writer = std::thread::spawn(move || host.write_all(&sent).unwrap());
    assert_eq!(bench.guest_reads(input.len()), input);
    writer.join().unwrap();
    bench.console.stop();
    assert_eq!(bench.serial.counters().metrics().input_bytes, 5000);
}

#[test]
fn input_that_comes_in_loopback_mode_waits_for_its_end() {
    let mut bench = Bench::new();
    bench.serial.write(MODEM_CONTROL, &[LOOPBACK]);
    bench.host.write_all(b"x").unwrap();
    bench.serial.write(MODEM_CONTROL, &[0]);
    assert_eq!(bench.guest_reads(1), b"x");
}

#[test]
fn a_reader_that_does_not_read_costs_bounded_memory_and_never_stalls_the_guest() {
    let mut bench = Bench::new();
    let flood = 2_000_000;
    for _ in 0..flood / 8 {
        // Only the first of the eight registers is the data register.
        bench.guest_prints(b"........");
    }
    let metrics = bench.serial.counters().metrics();
    assert_eq!(metrics.output_bytes, flood);
    assert!(metrics.dropped_bytes > 0);

    // The reader wakes up: it gets what was kept, in order, and then what follows.
    bench.host.shutdown(Shutdown::Write).unwrap();
    bench.console.stop();
    let mut rest = Vec::new();
    bench.host.read_to_end(&mut rest).unwrap();
    let metrics = bench.serial.counters().metrics();
    assert_eq!(rest.len() as u64 + metrics.dropped_bytes, flood);
    assert!(rest.len() >= OUTPUT_MAX);
}

#[test]
fn output_goes_on_after_the_host_closed_its_writing_half() {
    let mut bench = Bench::new();
    bench.host.shutdown(Shutdown::Write).unwrap();
    bench.guest_prints(b"still here");
    let mut text = [0; 10];
    bench.host.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"still here");
}

#[test]
fn a_host_that_is_gone_is_no_trouble_for_the_guest() {
    let Bench {
        serial,
        mut console,
        host,
        ..
    } = Bench::new();
    drop(host);
    for _ in 0..100_000 {
        serial.write(DATA, b"y");
    }
    console.stop();
    let metrics = serial.counters().metrics();
    assert_eq!(metrics.dropped_bytes, metrics.output_bytes);
}

#[test]
fn what_was_printed_last_is_not_lost_by_a_stop() {
    let mut bench = Bench::new();
    bench.guest_prints(b"Kernel panic");
    bench.console.stop();
    let mut text = String::new();
    bench.host.read_to_string(&mut text).unwrap();
    assert_eq!(text, "Kernel panic");
}

#[test]
fn a_reader_that_is_behind_gets_the_last_words_after_a_stop() {
    let mut bench = Bench::new();
    // Byte by byte, so that the socket fills up long before its memory does.
    let text: Vec<u8> = (0..40_000u32).map(|n| (n % 251) as u8).collect();
    bench.guest_prints(&text);
    bench.console.stop();
    let mut shown = Vec::new();
    bench.host.read_to_end(&mut shown).unwrap();
    assert!(shown == text, "{} of {} bytes", shown.len(), text.len());
}

#[test]
fn odd_accesses_do_no_harm() {
    let bench = Bench::new();
    for offset in 0..9 {
        for length in 0..9 {
            let mut data = vec![0xa5; length];
            bench.serial.read(offset, &mut data);
            bench.serial.write(offset, &data);
        }
    }
}

#[test]
fn a_descriptor_that_is_no_stream_socket_is_refused() {
    let serial = Arc::new(Serial::new(EventFd::new(0).unwrap(), true).unwrap());
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(matches!(
        Console::start(serial, file.into()),
        Err(ConsoleError::NotAStream { .. })
    ));
}
