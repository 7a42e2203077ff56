//! Guests and front ends that mean harm. The daemon answers or takes the queue out of service, and serves the next.

use std::os::fd::{FromRawFd, IntoRawFd};

use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vmm_sys_util::eventfd::EventFd;

use super::driver::{
    Descriptor, Driver, INDIRECT, INPUT, MEMORY, NEXT, OUTPUT, Outcome, SIZE, WRITE, connect,
};
use super::fuse::{self, GETATTR, LOOKUP, Mounted, ROOT, me, message, u32_at};
use super::process::Daemon;

/// The daemon still serves a guest that behaves.
fn assert_serves(daemon: &Daemon) {
    let mut mounted = Mounted::mount(Driver::start(&daemon.socket()));
    assert_eq!(mounted.lookup(ROOT, "none").unwrap_err(), libc::ENOENT);
}

fn getattr() -> Vec<u8> {
    message(GETATTR, ROOT, me(), &[0; 16])
}

pub fn chains_that_are_no_requests_take_their_queue_out_of_service_and_nothing_else() {
    let far = 1u64 << 40;
    let cases: &[(&str, &[Descriptor])] = &[
        (
            "outside memory",
            &[(far, 56, NEXT, 1), (OUTPUT, 4096, WRITE, 0)],
        ),
        (
            "across the end of memory",
            &[(MEMORY - 8, 56, NEXT, 1), (OUTPUT, 4096, WRITE, 0)],
        ),
        (
            "an answer outside memory",
            &[(INPUT, 56, NEXT, 1), (far, 4096, WRITE, 0)],
        ),
        (
            "address that wraps around",
            &[(u64::MAX - 3, 56, NEXT, 1), (OUTPUT, 4096, WRITE, 0)],
        ),
        (
            "a header cut short",
            &[(INPUT, 39, NEXT, 1), (OUTPUT, 4096, WRITE, 0)],
        ),
        ("no header at all", &[(OUTPUT, 4096, WRITE, 0)]),
        (
            "no room for an answer",
            &[(INPUT, 56, NEXT, 1), (OUTPUT, 15, WRITE, 0)],
        ),
        ("nothing", &[(INPUT, 0, 0, 0)]),
        ("indirect in indirect", &[(0x20_0000, 32, INDIRECT, 0)]),
    ];
    for args in [
        &["--reconnect"][..],
        &["--reconnect", "--thread-pool-size", "2"],
    ] {
        let daemon = Daemon::start(args);
        for (what, chain) in cases {
            let mut driver = Driver::start(&daemon.socket());
            driver.write(INPUT, &getattr());
            // For the last case: a table that leads to another.
            driver.put(0x20_0000, (0x20_1000, 32, INDIRECT, 0));
            driver.put(0x20_1000, (INPUT, 56, NEXT, 1));
            assert_eq!(driver.submit(1, chain), Outcome::Failed, "{what}");
            // The other queue goes on, and this one when the driver starts anew.
            let answer = driver.request(0, &getattr(), 4096);
            assert!(answer.len() >= 16, "{what}");
            driver.frontend.get_vring_base(1).unwrap();
            drop(driver);
            assert_serves(&daemon);
        }
    }
}

pub fn a_loop_of_descriptors_comes_to_an_end() {
    let daemon = Daemon::start(&["--reconnect"]);
    let mut driver = Driver::start(&daemon.socket());
    driver.write(INPUT, &getattr());
    // Readable for ever: there is never room for an answer.
    let looped = [(INPUT, 56, NEXT, 1), (INPUT, 56, NEXT, 0)];
    assert_eq!(driver.submit(1, &looped), Outcome::Failed);
    drop(driver);
    let mut driver = Driver::start(&daemon.socket());
    driver.write(INPUT, &getattr());
    let writable = [(INPUT, 56, NEXT, 1), (OUTPUT, 4096, NEXT | WRITE, 1)];
    assert!(matches!(driver.submit(1, &writable), Outcome::Used(_)));
    drop(driver);
    assert_serves(&daemon);
}

pub fn an_available_index_beyond_the_ring_takes_it_out_of_service() {
    let daemon = Daemon::start(&["--reconnect"]);
    let driver = Driver::start(&daemon.socket());
    let [_, available, _] = Driver::parts(1);
    driver.write(available + 2, &(SIZE + 1).to_le_bytes());
    driver.kick(1);
    // Not even one request was offered, so the ring's end is the only thing to wait for.
    driver.write(Driver::parts(1)[2] + 2, &7u16.to_le_bytes());
    assert_eq!(driver.outcome(1), Outcome::Failed);
    drop(driver);
    assert_serves(&daemon);
}

pub fn a_queue_that_was_out_of_service_is_good_again_after_a_new_start() {
    let daemon = Daemon::start(&[]);
    let mut driver = Driver::start(&daemon.socket());
    assert_eq!(
        driver.submit(1, &[(INPUT, 3, NEXT, 1), (OUTPUT, 64, WRITE, 0)]),
        Outcome::Failed
    );
    // More kicks change nothing.
    driver.kick(1);
    let base = driver.frontend.get_vring_base(1).unwrap();
    assert_eq!(base, 1);
    let (kick, call) = (EventFd::new(0).unwrap(), EventFd::new(0).unwrap());
    let addresses = driver.addresses(1, SIZE);
    driver.write(Driver::parts(1)[1], &[0; 512]);
    driver.write(Driver::parts(1)[2], &[0; 512]);
    driver.frontend.set_vring_num(1, SIZE).unwrap();
    driver.frontend.set_vring_addr(1, &addresses).unwrap();
    driver.frontend.set_vring_base(1, 0).unwrap();
    driver.frontend.set_vring_call(1, &call).unwrap();
    driver.frontend.set_vring_kick(1, &kick).unwrap();
    driver.write(INPUT, &getattr());
    driver.put(0x1_0000, (INPUT, 56, NEXT, 1));
    driver.put(0x1_0010, (OUTPUT, 4096, WRITE, 0));
    driver.write(Driver::parts(1)[1] + 2, &1u16.to_le_bytes());
    kick.write(1).unwrap();
    // Blocks until the interrupt.
    call.read().unwrap();
    assert_eq!(driver.read(Driver::parts(1)[2] + 2, 2), 1u16.to_le_bytes());
}

pub fn requests_that_make_no_sense_are_answered_with_an_error() {
    let daemon = Daemon::start(&[]);
    std::fs::write(daemon.folder.path().join("secret"), "secret").unwrap();
    let mut mounted = Mounted::mount(Driver::start(&daemon.socket()));
    assert_eq!(mounted.call(4242, ROOT, &[]).unwrap_err(), libc::ENOSYS);
    assert_eq!(
        mounted.call(GETATTR, 99, &[0; 16]).unwrap_err(),
        libc::EBADF
    );
    assert_eq!(
        mounted.call(GETATTR, ROOT, &[0; 3]).unwrap_err(),
        libc::EINVAL
    );
    for name in [&b"no end"[..], b"a\0b\0", b"\0", b""] {
        let error = mounted.call(LOOKUP, ROOT, name).unwrap_err();
        assert!([libc::EINVAL, libc::ENOENT].contains(&error), "{error}");
    }
    for name in ["..", "../secret", "share/../../secret", "/etc/passwd", "/"] {
        match mounted.lookup(ROOT, name) {
            Err(error) => assert!([libc::EINVAL, libc::ENOENT].contains(&error), "{error}"),
            // The parent of the root is the root.
            Ok(entry) => assert_eq!((name, entry.node), ("..", ROOT)),
        }
        let created = mounted.create(ROOT, name).unwrap_err();
        assert_eq!(created, libc::EINVAL);
    }
    std::fs::write(daemon.share().join("file"), "content").unwrap();
    let file = mounted.lookup(ROOT, "file").unwrap();
    let handle = mounted.open(file.node, libc::O_RDONLY).unwrap();
    // 4 GiB: no more is read than there is room for.
    let read = mounted.read(file.node, handle, 0, u32::MAX).unwrap();
    assert_eq!(read, b"content");
    assert_eq!(
        mounted.read(file.node, handle + 1, 0, 16).unwrap_err(),
        libc::EBADF
    );
    assert!(mounted.read(file.node, handle, u64::MAX - 4, 16).is_err());
    // A header that says more than there is, and one that says less than itself.
    for length in [u32::MAX, 1 << 21, 12] {
        let mut request = message(LOOKUP, ROOT, me(), b"file\0");
        request[..4].copy_from_slice(&length.to_le_bytes());
        let answer = mounted.driver.request(1, &request, 4096);
        assert!((u32_at(&answer, 4) as i32) < 0, "{length}");
    }
    // FORGET has no answer, be it nonsense.
    let forget = message(fuse::FORGET, 12345, me(), &[1, 2]);
    assert_eq!(mounted.driver.request(0, &forget, 64).len(), 0);
    assert!(mounted.lookup(ROOT, "file").is_ok());
}

pub fn a_front_end_that_breaks_the_protocol_is_refused_and_the_next_one_served() {
    let daemon = Daemon::start(&["--reconnect"]);
    for size in [0u16, 65_535] {
        let driver = connect(&daemon.socket(), 2, false);
        // The front end's library refuses some of it itself.
        assert!(driver.frontend.set_vring_num(1, size).is_err(), "{size}");
    }
    let driver = connect(&daemon.socket(), 2, false);
    let mut outside = driver.addresses(1, SIZE);
    outside.desc_table_addr = 0x1000;
    assert!(driver.frontend.set_vring_addr(1, &outside).is_err());
    drop(driver);

    // A regular file counts no events, so it is no kick.
    let mut driver = connect(&daemon.socket(), 2, false);
    let file = tempfile::tempfile().unwrap();
    // SAFETY: the file gives its descriptor up.
    let wrong = unsafe { EventFd::from_raw_fd(file.into_raw_fd()) };
    let _ = driver.frontend.set_vring_enable(1, true);
    let _ = driver.frontend.set_vring_kick(1, &wrong);
    drop(driver);
    assert_serves(&daemon);
}

pub fn a_kick_before_the_enabling_is_not_lost() {
    let daemon = Daemon::start(&[]);
    let mut driver = connect(&daemon.socket(), 2, false);
    driver.add_ring(0, SIZE);
    driver.add_ring(1, SIZE);
    driver.frontend.set_vring_enable(1, false).unwrap();
    driver.write(INPUT, &getattr());
    driver.put(0x1_0000, (INPUT, 56, NEXT, 1));
    driver.put(0x1_0010, (OUTPUT, 4096, WRITE, 0));
    driver.offer(1, 0);
    driver.kick(1);
    driver.frontend.set_vring_enable(1, true).unwrap();
    assert!(matches!(driver.outcome(1), Outcome::Used(_)));
}

pub fn a_connection_that_breaks_off_in_a_request_leaves_the_daemon_well() {
    let daemon = Daemon::start(&["--reconnect", "--thread-pool-size", "2"]);
    std::fs::write(daemon.share().join("big"), vec![7; 8 << 20]).unwrap();
    for _ in 0..10 {
        let mut mounted = Mounted::mount(Driver::start(&daemon.socket()));
        let big = mounted.lookup(ROOT, "big").unwrap();
        let handle = mounted.open(big.node, libc::O_RDONLY).unwrap();
        let mut body = handle.to_le_bytes().to_vec();
        body.extend([0; 8]);
        body.extend((1u32 << 20).to_le_bytes());
        body.resize(40, 0);
        let request = message(fuse::READ, big.node, me(), &body);
        let driver = &mut mounted.driver;
        driver.write(INPUT, &request);
        driver.put(0x1_0000, (INPUT, request.len() as u32, NEXT, 1));
        driver.put(0x1_0010, (OUTPUT, (1 << 20) + 16, WRITE, 0));
        driver.offer(1, 0);
        driver.kick(1);
    }
    assert_serves(&daemon);
}

pub fn a_guest_that_opens_without_end_is_refused_in_time() {
    // 509 for memory regions, 100 and one for the daemon: what is left is the guest's.
    let daemon = Daemon::start(&["--reconnect", "--rlimit-nofile", "700"]);
    let mut mounted = Mounted::mount(Driver::start(&daemon.socket()));
    std::fs::write(daemon.share().join("file"), "").unwrap();
    let file = mounted.lookup(ROOT, "file").unwrap();
    let refused = (0..200).find_map(|_| mounted.open(file.node, libc::O_RDONLY).err());
    assert_eq!(refused, Some(libc::ENFILE));
    assert!(mounted.lookup(ROOT, "file").is_ok());
    drop(mounted);
    assert_serves(&daemon);
}
