//! Descriptors of a front end's that are not what they should be.

use std::fs::File;
use std::io::pipe;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{VhostTransferStateDirection, VhostTransferStatePhase};
use vhost::{VhostBackend, VhostUserDirtyLogRegion, VhostUserMemoryRegionInfo};
use vmm_sys_util::eventfd::EventFd;

use super::driver::{Driver, INPUT, MEMORY, NEXT, OUTPUT, WRITE};
use super::fuse::{GETATTR, ROOT, me, message};
use super::guest::mount;
use super::process::Daemon;

/// Descriptors that are no event, no memory and no pipe with somebody at its other end.
const KINDS: [&str; 7] = [
    "a file",
    "a file to read",
    "a folder",
    "the end of a pipe to read from",
    "the end of a pipe to write to",
    "a socket",
    "nothing",
];

/// A descriptor of that kind. Whoever had the other end has gone.
fn wrong(kind: &str) -> OwnedFd {
    match kind {
        "a file" => tempfile::tempfile().unwrap().into(),
        "a file to read" => File::open(std::env::current_exe().unwrap()).unwrap().into(),
        "a folder" => File::open("/").unwrap().into(),
        "the end of a pipe to read from" => pipe().unwrap().0.into(),
        "the end of a pipe to write to" => pipe().unwrap().1.into(),
        "a socket" => UnixStream::pair().unwrap().0.into(),
        _ => {
            let mut options = File::options();
            options
                .read(true)
                .write(true)
                .open("/dev/null")
                .unwrap()
                .into()
        }
    }
}

/// As the library wants an event.
fn event(kind: &str) -> EventFd {
    // SAFETY: the descriptor is given up, whatever it is.
    unsafe { EventFd::from_raw_fd(std::os::fd::IntoRawFd::into_raw_fd(wrong(kind))) }
}

/// Offers a request that takes no time, and one that puts the ring out of service; then waits until the daemon has been
/// there, of which only the other ring tells.
fn use_ring(driver: &mut Driver) {
    let getattr = message(GETATTR, ROOT, me(), &[0; 16]);
    driver.write(INPUT, &getattr);
    let [descriptors, ..] = Driver::parts(1);
    driver.put(descriptors, (INPUT, 56, NEXT, 1));
    driver.put(descriptors + 16, (OUTPUT, 4096, WRITE, 0));
    driver.put(descriptors + 32, (INPUT, 3, 0, 0));
    driver.offer(1, 0);
    driver.offer(1, 2);
    driver.kick(1);
    // The same thread serves both.
    for _ in 0..2 {
        driver.request(0, &getattr, 4096);
    }
}

fn as_call(driver: &mut Driver, kind: &str) {
    let _ = driver.frontend.set_vring_call(1, &event(kind));
    use_ring(driver);
}

fn as_error(driver: &mut Driver, kind: &str) {
    let _ = driver.frontend.set_vring_err(1, &event(kind));
    use_ring(driver);
}

fn as_kick(driver: &mut Driver, kind: &str) {
    driver.frontend.get_vring_base(1).unwrap();
    let _ = driver.frontend.set_vring_kick(1, &event(kind));
    let _ = driver.frontend.set_vring_enable(1, true);
}

fn region(file: &OwnedFd) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: 1 << 32,
        memory_size: MEMORY,
        userspace_addr: 1 << 46,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    }
}

/// Whether it could be memory, if it were long enough. Too short a file is memory that was cut off.
fn maps(kind: &str) -> bool {
    kind == "a file"
}

fn as_memory(driver: &mut Driver, kind: &str) {
    let told = driver.frontend.set_mem_table(&[region(&wrong(kind))]);
    assert_eq!(told.is_ok(), maps(kind), "{kind}");
}

fn as_more_memory(driver: &mut Driver, kind: &str) {
    let told = driver.frontend.add_mem_region(&region(&wrong(kind)));
    assert_eq!(told.is_ok(), maps(kind), "{kind}");
}

fn as_log(driver: &mut Driver, kind: &str) {
    let file = wrong(kind);
    let log = VhostUserDirtyLogRegion {
        mmap_size: MEMORY / 4096 / 8,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    };
    let told = driver.frontend.set_log_base(0, Some(log));
    assert_eq!(told.is_ok(), maps(kind), "{kind}");
}

fn transfer(driver: &mut Driver, kind: &str, direction: VhostTransferStateDirection) -> bool {
    let stopped = VhostTransferStatePhase::STOPPED;
    let frontend = &driver.frontend;
    let begun = frontend.set_device_state_fd(direction, stopped, wrong(kind));
    begun.is_ok() && frontend.check_device_state().is_ok()
}

fn as_state_to_load(driver: &mut Driver, kind: &str) {
    let taken = transfer(driver, kind, VhostTransferStateDirection::LOAD);
    assert!(!taken, "{kind}");
}

fn as_state_to_save(driver: &mut Driver, kind: &str) {
    let taken = transfer(driver, kind, VhostTransferStateDirection::SAVE);
    // What takes any bytes takes a state.
    assert_eq!(taken, ["a file", "nothing"].contains(&kind), "{kind}");
}

/// What a descriptor is sent as, and what sends one of a kind.
type Place = (&'static str, fn(&mut Driver, &str));

pub fn descriptors_of_another_kind_are_refused_or_do_nothing_and_none_stays_open() {
    let daemon = Daemon::start(&["--reconnect"]);
    let server = daemon.server();
    let open = || {
        let _mounted = mount(&daemon);
        let folder = format!("/proc/{server}/fd");
        std::fs::read_dir(folder).unwrap().count()
    };
    open();
    let before = open();
    let places: [Place; 8] = [
        ("call", as_call),
        ("error", as_error),
        ("kick", as_kick),
        ("memory", as_memory),
        ("more memory", as_more_memory),
        ("log", as_log),
        ("state to load", as_state_to_load),
        ("state to save", as_state_to_save),
    ];
    for (place, put) in places {
        for kind in KINDS {
            let mut mounted = mount(&daemon);
            put(&mut mounted.driver, kind);
            drop(mounted);
            assert_eq!(open(), before, "{kind} as {place}");
            assert_eq!(daemon.server(), server, "{kind} as {place}");
        }
    }
}
