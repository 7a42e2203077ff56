//! Files of the host through the device, by each way that requests can take.

use super::driver::Driver;
use super::fuse::{Mounted, ROOT};
use super::process::Daemon;

/// Reads what the host wrote, and writes what the host then reads.
fn read_and_write(mounted: &mut Mounted, daemon: &Daemon) {
    std::fs::write(daemon.share().join("given"), "from the host").unwrap();
    let given = mounted.lookup(ROOT, "given").unwrap();
    let handle = mounted.open(given.node, libc::O_RDONLY).unwrap();
    assert_eq!(
        mounted.read(given.node, handle, 0, 4096).unwrap(),
        b"from the host"
    );
    assert_eq!(mounted.read(given.node, handle, 5, 3).unwrap(), b"the");
    let name = format!("taken-{}", mounted.ring);
    let (taken, handle) = mounted.create(ROOT, &name).unwrap();
    assert_eq!(
        mounted
            .write(taken.node, handle, 0, b"from the guest")
            .unwrap(),
        14
    );
    let taken = std::fs::read(daemon.share().join(name)).unwrap();
    assert_eq!(taken, b"from the guest");
    assert_eq!(mounted.lookup(ROOT, "nothing").unwrap_err(), libc::ENOENT);
}

pub fn a_guest_reads_and_writes_files_one_request_after_another() {
    let daemon = Daemon::start(&[]);
    let mut mounted = Mounted::mount(Driver::start(&daemon.socket()));
    read_and_write(&mut mounted, &daemon);
}

pub fn a_guest_reads_and_writes_files_by_a_pool_of_threads() {
    let daemon = Daemon::start(&["--thread-pool-size", "4"]);
    let mut mounted = Mounted::mount(Driver::start_with(&daemon.socket(), 2, true));
    read_and_write(&mut mounted, &daemon);
}

pub fn each_of_several_request_queues_serves_requests_and_suppresses_interrupts_as_asked() {
    let daemon = Daemon::start(&["--request-queues", "3", "--xattr"]);
    let mut mounted = Mounted::mount(Driver::start_with(&daemon.socket(), 4, true));
    for ring in 1..4 {
        mounted.ring = ring;
        read_and_write(&mut mounted, &daemon);
        let file = mounted.lookup(ROOT, "given").unwrap();
        mounted
            .set_xattr(file.node, "user.ring", &[ring as u8])
            .unwrap();
        assert_eq!(
            mounted.get_xattr(file.node, "user.ring").unwrap(),
            [ring as u8]
        );
    }
}

pub fn requests_that_were_offered_before_the_kick_are_all_answered() {
    for args in [&[][..], &["--thread-pool-size", "3"]] {
        let daemon = Daemon::start(args);
        let mut mounted = Mounted::mount(Driver::start(&daemon.socket()));
        let request = super::fuse::message(super::fuse::GETATTR, ROOT, mounted.caller, &[0; 16]);
        let driver = &mut mounted.driver;
        let [table, ..] = Driver::parts(1);
        for index in 0..30u16 {
            let input = super::driver::INPUT + u64::from(index) * 4096;
            let output = super::driver::OUTPUT + u64::from(index) * 4096;
            driver.write(input, &request);
            let head = index * 2;
            let at = table + 16 * u64::from(head);
            let length = u32::try_from(request.len()).unwrap();
            driver.put(at, (input, length, super::driver::NEXT, head + 1));
            driver.put(at + 16, (output, 4096, super::driver::WRITE, 0));
            driver.offer(1, head);
        }
        driver.kick(1);
        assert_eq!(
            driver.outcome(1),
            super::driver::Outcome::Used(16 + 16 + 88)
        );
    }
}

pub fn the_configuration_space_has_the_tag_and_the_number_of_queues() {
    use vhost::vhost_user::VhostUserFrontend;
    use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserProtocolFeatures};
    let daemon = Daemon::start(&["--tag", "my-share", "--request-queues", "5"]);
    let mut driver = super::driver::connect(&daemon.socket(), 6, false);
    assert!(driver.protocol.contains(VhostUserProtocolFeatures::CONFIG));
    assert_eq!(driver.frontend.get_queue_num().unwrap(), 6);
    let mut read = |offset, size: u32| {
        let room = vec![0; size as usize];
        let flags = VhostUserConfigFlags::empty();
        driver
            .frontend
            .get_config(offset, size, flags, &room)
            .unwrap()
            .1
    };
    let mut want = b"my-share".to_vec();
    want.resize(36, 0);
    want.extend([5, 0, 0, 0]);
    assert_eq!(read(0, 40), want);
    assert_eq!(read(36, 8), [5, 0, 0, 0, 0, 0, 0, 0]);
    drop(driver);

    let daemon = Daemon::start(&[]);
    let driver = super::driver::connect(&daemon.socket(), 2, false);
    assert!(!driver.protocol.contains(VhostUserProtocolFeatures::CONFIG));
}
