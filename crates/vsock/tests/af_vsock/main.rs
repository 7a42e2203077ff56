//! The host's end on a real kernel. Its loopback plays the guest: who connects to the host's own
//! address is context ID 1 there.
//!
//! Needs `/dev/vhost-vsock` and the module `vsock_loopback`, which the lab has. Where something is
//! missing the tests are reported as ignored, and the reason is printed; under
//! `MICROVM_TEST_REQUIRE_LINUX=1` that is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation
)]

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::mpsc::channel;
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use microvm_vsock::{AfVsockError, AfVsockGuest, VhostVsock, VhostVsockError};

/// Who connects over the loopback.
const LOOPBACK: u32 = 1;
/// Where the loopback leads.
const HOST: u32 = 2;
/// A guest that is not there.
const NOBODY: u32 = 4_000_000_001;
const PATIENCE: Duration = Duration::from_secs(60);
const DEVICE: &str = "/dev/vhost-vsock";

const TESTS: [(&str, fn()); 9] = [
    ("megabytes_pass_both_ways", megabytes_pass_both_ways),
    (
        "connections_follow_one_another",
        connections_follow_one_another,
    ),
    (
        "fifty_that_come_at_once_wait_in_the_kernel",
        fifty_that_come_at_once_wait_in_the_kernel,
    ),
    ("strangers_are_closed", strangers_are_closed),
    (
        "a_port_is_closed_with_its_last_listener",
        a_port_is_closed_with_its_last_listener,
    ),
    (
        "a_port_of_another_process_is_taken",
        a_port_of_another_process_is_taken,
    ),
    (
        "a_guest_that_does_not_answer_is_given_up",
        a_guest_that_does_not_answer_is_given_up,
    ),
    (
        "a_guest_that_is_not_there_is_told",
        a_guest_that_is_not_there_is_told,
    ),
    (
        "context_ids_are_held_and_given_back",
        context_ids_are_held_and_given_back,
    ),
];

/// Set for the process that holds a port.
const HOLD: &str = "MICROVM_TEST_HOLD_PORT";

fn main() -> ExitCode {
    if let Ok(port) = std::env::var(HOLD) {
        hold_port(port.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    // They share one context ID: the end of one test would end the connections of another.
    arguments.test_threads = Some(1);
    let missing = if arguments.list {
        Some("only listed".to_owned())
    } else {
        missing()
    };
    if let Some(reason) = &missing {
        eprintln!("The tests of the host's own vsock cannot run: {reason}");
        if !arguments.list && std::env::var_os("MICROVM_TEST_REQUIRE_LINUX").is_some() {
            return ExitCode::FAILURE;
        }
    }
    let trials = TESTS
        .iter()
        .map(|(name, test)| {
            let test = *test;
            let run = move || {
                test();
                Ok(())
            };
            Trial::test(*name, run).with_ignored_flag(missing.is_some())
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// What this host lacks for the tests.
fn missing() -> Option<String> {
    if let Err(error) = VhostVsock::open(Path::new(DEVICE), None) {
        return Some(error.to_string());
    }
    let guest = AfVsockGuest::new(LOOPBACK).unwrap();
    let listener = match guest.listen(900_000, 1) {
        Ok(listener) => listener,
        Err(error) => return Some(error.to_string()),
    };
    match dial(HOST, 900_000).and_then(|_| listener.accept(Duration::from_secs(2))) {
        Ok(_) => None,
        Err(error) => Some(format!("there is no loopback (vsock_loopback): {error}")),
    }
}

fn dial_within(cid: u32, port: u32, timeout: Duration) -> Result<UnixStream, AfVsockError> {
    let guest = AfVsockGuest::new(cid).unwrap();
    let (sender, result) = channel();
    guest.connect(port, timeout, move |result| sender.send(result).unwrap())?;
    let stream = result.recv_timeout(PATIENCE).unwrap()?;
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The guest's end would end its connections: they are to outlive this call.
    std::mem::forget(guest);
    Ok(stream)
}

fn dial(cid: u32, port: u32) -> Result<UnixStream, AfVsockError> {
    dial_within(cid, port, PATIENCE)
}

fn is_closed(mut stream: UnixStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn megabytes_pass_both_ways() {
    let guest = AfVsockGuest::new(LOOPBACK).unwrap();
    let listener = guest.listen(900_001, 1).unwrap();
    let mut dialled = dial(HOST, 900_001).unwrap();
    let mut accepted = listener.accept(PATIENCE).unwrap();
    let bytes: Vec<u8> = (0..8u32 << 20).map(|at| (at % 251) as u8).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut echo = accepted.try_clone().unwrap();
            std::io::copy(&mut accepted, &mut echo).unwrap();
            echo.shutdown(Shutdown::Write).unwrap();
        });
        let (mut writer, bytes) = (dialled.try_clone().unwrap(), &bytes);
        scope.spawn(move || {
            writer.write_all(bytes).unwrap();
            // The end of one direction: the echo goes on.
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut echoed = Vec::new();
        dialled.read_to_end(&mut echoed).unwrap();
        assert!(echoed == *bytes);
    });
}

fn connections_follow_one_another() {
    let guest = AfVsockGuest::new(LOOPBACK).unwrap();
    let listener = guest.listen(900_002, 1).unwrap();
    for number in 0..200u8 {
        let mut dialled = dial(HOST, 900_002).unwrap();
        dialled.write_all(&[number]).unwrap();
        let mut accepted = listener.accept(PATIENCE).unwrap();
        let mut byte = [0];
        accepted.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [number]);
        drop(accepted);
        assert!(is_closed(dialled));
    }
}

fn fifty_that_come_at_once_wait_in_the_kernel() {
    let guest = AfVsockGuest::new(LOOPBACK).unwrap();
    let agents = guest.listen(900_006, 1).unwrap();
    let programs = guest.listen(900_007, 128).unwrap();
    let _held_at = guest.listen(900_008, 1).unwrap();
    // The host's thread, held where it tells of a connection: nothing is accepted meanwhile.
    let outside = AfVsockGuest::new(HOST).unwrap();
    let ((held, is_held), (go_on, going_on)) = (channel(), channel());
    let hold = move |_| {
        held.send(()).unwrap();
        going_on.recv().unwrap();
    };
    outside.connect(900_008, PATIENCE, hold).unwrap();
    is_held.recv_timeout(PATIENCE).unwrap();
    let mut talks: Vec<_> = (0..50).map(|_| dial_by_hand(900_007).unwrap()).collect();
    let heard = (0..50).filter(|_| dial_by_hand(900_006).is_ok()).count();
    go_on.send(()).unwrap();
    // Linux takes one more than it was told.
    assert_eq!(heard, 2);
    for (talk, word) in talks.iter_mut().zip(0u8..) {
        talk.write_all(&[word]).unwrap();
    }
    for word in 0..50 {
        let mut byte = [0];
        let mut accepted = programs.accept(PATIENCE).unwrap();
        accepted.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [word]);
    }
    drop(agents);
}

/// A connection to a port of the host without the host's thread. It is made when it waits in the
/// queue, and need not be accepted for that.
fn dial_by_hand(port: u32) -> std::io::Result<File> {
    let address = libc::sockaddr_vm {
        svm_family: libc::AF_VSOCK as libc::sa_family_t,
        svm_reserved1: 0,
        svm_port: port,
        svm_cid: HOST,
        svm_zero: [0; 4],
    };
    // SAFETY: it has no precondition.
    let descriptor =
        unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if descriptor < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: it was opened just now, and nobody else knows it.
    let socket = unsafe { File::from_raw_fd(descriptor) };
    let length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of the address during the call; the descriptor is
    // open.
    let answer = unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if answer < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(socket)
}

fn strangers_are_closed() {
    let guest = AfVsockGuest::new(NOBODY).unwrap();
    let listener = guest.listen(900_003, 1).unwrap();
    for _ in 0..20 {
        assert!(is_closed(dial(HOST, 900_003).unwrap()));
    }
    assert!(listener.take().is_none());
}

fn a_port_is_closed_with_its_last_listener() {
    let (guest, other) = (
        AfVsockGuest::new(LOOPBACK).unwrap(),
        AfVsockGuest::new(NOBODY).unwrap(),
    );
    let first = guest.listen(900_004, 1).unwrap();
    let second = other.listen(900_004, 1).unwrap();
    drop(first);
    assert!(is_closed(dial(HOST, 900_004).unwrap()), "a stranger by now");
    drop(second);
    let refused = dial(HOST, 900_004).unwrap_err();
    assert!(
        matches!(refused, AfVsockError::Refused { port: 900_004, .. }),
        "{refused:?}"
    );
    let again = guest.listen(900_004, 1).unwrap();
    let dialled = dial(HOST, 900_004).unwrap();
    drop(again.accept(PATIENCE).unwrap());
    assert!(is_closed(dialled));
}

fn a_port_of_another_process_is_taken() {
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .env(HOLD, "900005")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0];
    holder
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut ready)
        .unwrap();
    let guest = AfVsockGuest::new(LOOPBACK).unwrap();
    let taken = guest.listen(900_005, 1).unwrap_err();
    assert!(
        matches!(taken, AfVsockError::PortTaken(900_005)),
        "{taken:?}"
    );
    drop(holder.stdin.take());
    holder.wait().unwrap();
    guest.listen(900_005, 1).unwrap();
}

/// Listens until its standard input ends.
fn hold_port(port: u32) {
    let guest = AfVsockGuest::new(NOBODY).unwrap();
    let _listener = guest.listen(port, 1).unwrap();
    std::io::stdout().write_all(b"!").unwrap();
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

fn a_guest_that_does_not_answer_is_given_up() {
    // It has its context ID, but nothing runs.
    let device = VhostVsock::open(Path::new(DEVICE), None).unwrap();
    let error = dial_within(device.cid(), 7, Duration::from_millis(300)).unwrap_err();
    assert!(
        matches!(
            error,
            AfVsockError::TimedOut {
                milliseconds: 300,
                ..
            }
        ),
        "{error:?}"
    );
}

fn a_guest_that_is_not_there_is_told() {
    let error = dial(NOBODY, 7).unwrap_err();
    assert!(
        matches!(error, AfVsockError::Connect { cid: NOBODY, .. }),
        "{error:?}"
    );
}

fn context_ids_are_held_and_given_back() {
    let open = |cid| VhostVsock::open(Path::new(DEVICE), cid);
    let (one, other) = (open(None).unwrap(), open(None).unwrap());
    assert_ne!(one.cid(), other.cid());
    let cid = one.cid();
    assert!(matches!(open(Some(cid)), Err(VhostVsockError::Taken(taken)) if taken == cid));
    drop(one);
    assert_eq!(open(Some(cid)).unwrap().cid(), cid);
}
