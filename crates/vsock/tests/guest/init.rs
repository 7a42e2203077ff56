//! PID 1 of the guest that tests the device: it is compiled by the test, static, without crates.
//!
//! It loads the modules, serves an echo on port 7000 and takes orders from the host's port 7001,
//! a line each, with a line as answer.

use std::fs::File;
use std::io::{BufRead, BufReader, Error, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};

const AF_VSOCK: i32 = 40;
const SOCK_STREAM: i32 = 1;
const HOST: u32 = 2;
const ANY: u32 = u32::MAX;
const SYS_FINIT_MODULE: i64 = 313;
const SHUT_WR: i32 = 1;
const POWER_OFF: i32 = 0x4321_fedc;

#[repr(C)]
struct Address {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    flags: u8,
    zero: [u8; 3],
}

unsafe extern "C" {
    fn socket(domain: i32, kind: i32, protocol: i32) -> i32;
    fn bind(fd: i32, address: *const Address, len: u32) -> i32;
    fn listen(fd: i32, backlog: i32) -> i32;
    fn accept(fd: i32, address: *mut Address, len: *mut u32) -> i32;
    fn connect(fd: i32, address: *const Address, len: u32) -> i32;
    fn shutdown(fd: i32, how: i32) -> i32;
    fn syscall(number: i64, ...) -> i64;
    fn reboot(command: i32) -> i32;
}

/// An address; all of its 16 bytes are set.
fn address(cid: u32, port: u32) -> Address {
    Address {
        family: AF_VSOCK as u16,
        reserved: 0,
        port,
        cid,
        flags: 0,
        zero: [0; 3],
    }
}

fn vsock() -> File {
    // SAFETY: plain numbers go in, a descriptor comes out.
    let fd = unsafe { socket(AF_VSOCK, SOCK_STREAM, 0) };
    assert!(fd >= 0, "socket: {}", Error::last_os_error());
    // SAFETY: the descriptor is new, and nobody else's.
    unsafe { File::from_raw_fd(fd) }
}

fn dial(port: u32) -> Result<File, Error> {
    let file = vsock();
    // SAFETY: the address lives until the call is over and is 16 bytes long.
    match unsafe { connect(file.as_raw_fd(), &address(HOST, port), 16) } {
        0 => Ok(file),
        _ => Err(Error::last_os_error()),
    }
}

fn load_modules() {
    let mut names: Vec<_> = std::fs::read_dir("/modules")
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    names.sort();
    for name in names {
        let file = File::open(&name).unwrap();
        // SAFETY: the call reads an open file and an empty string that ends in a NUL.
        let result = unsafe { syscall(SYS_FINIT_MODULE, file.as_raw_fd(), c"".as_ptr(), 0) };
        assert!(
            result == 0,
            "{}: {}",
            name.display(),
            Error::last_os_error()
        );
    }
}

fn serve_echo() {
    let listener = vsock();
    // SAFETY: the address lives until the call is over and is 16 bytes long.
    let bound = unsafe { bind(listener.as_raw_fd(), &address(ANY, 7000), 16) };
    // SAFETY: plain numbers.
    let listening = unsafe { listen(listener.as_raw_fd(), 128) };
    assert_eq!((bound, listening), (0, 0));
    std::thread::spawn(move || {
        loop {
            // SAFETY: null says that nobody wants the peer's address.
            let fd = unsafe {
                accept(
                    listener.as_raw_fd(),
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                )
            };
            assert!(fd >= 0, "accept: {}", Error::last_os_error());
            // SAFETY: the descriptor is new, and nobody else's.
            let file = unsafe { File::from_raw_fd(fd) };
            std::thread::Builder::new()
                .stack_size(256 << 10)
                .spawn(move || echo(file))
                .unwrap();
        }
    });
}

/// Sends all back, then ends its own side.
fn echo(mut file: File) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                if file.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
    // SAFETY: plain numbers.
    unsafe { shutdown(file.as_raw_fd(), SHUT_WR) };
}

/// `send PORT BYTES`: sends that many bytes, closes at once; `dial PORT`: says how it went;
/// `receive PORT`: counts and sums what comes until the end.
fn obey(order: &str) -> String {
    let words: Vec<&str> = order.split_whitespace().collect();
    let number = |index: usize| words[index].parse::<u32>().unwrap();
    match words[0] {
        "dial" => match dial(number(1)) {
            Ok(_) => "connected".to_owned(),
            Err(error) => format!("errno {}", error.raw_os_error().unwrap()),
        },
        "send" => {
            let mut file = dial(number(1)).unwrap();
            let bytes: Vec<u8> = (0..number(2))
                .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
                .collect();
            file.write_all(&bytes).unwrap();
            "sent".to_owned()
        }
        "receive" => {
            let mut file = dial(number(1)).unwrap();
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            let sum = bytes.iter().fold(0u64, |sum, byte| {
                sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
            });
            format!("{} {sum}", bytes.len())
        }
        other => format!("unknown order {other}"),
    }
}

fn power_off() {
    // SAFETY: it ends the machine, and with it all that could be unsound.
    unsafe { reboot(POWER_OFF) };
}

fn main() {
    // Without this a panic of PID 1 would only show as a kernel panic.
    std::panic::set_hook(Box::new(|info| {
        eprintln!("guest: {info}");
        power_off();
    }));
    load_modules();
    serve_echo();
    let mut control = dial(7001).unwrap();
    writeln!(control, "ready").unwrap();
    let orders = BufReader::new(control.try_clone().unwrap());
    for order in orders.lines() {
        let Ok(order) = order else { break };
        writeln!(control, "{}", obey(&order)).unwrap();
    }
    power_off();
}
