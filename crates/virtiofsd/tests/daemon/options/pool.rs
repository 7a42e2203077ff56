//! How many requests are worked on at a time.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use microvm_test_support::{skip, threads_of};

use super::super::driver::{Driver, INPUT, NEXT, OUTPUT, WRITE};
use super::super::fuse::{GETATTR, OPEN, ROOT, me, message, words};
use super::super::guest::mount;
use super::super::process::Daemon;

/// fcntl(2), on Linux.
const F_SETSIG: libc::c_int = 10;

/// Keeps a file from being opened for writing: who tries waits until this is dropped, or for three quarters of a minute.
struct Held {
    _file: File,
}

impl Held {
    fn new(path: &Path) -> Self {
        std::fs::write(path, "").unwrap();
        let file = File::open(path).unwrap();
        let number = file.as_raw_fd();
        // What tells of somebody who waits, and would end this process otherwise, is a signal that is ignored.
        for (command, value) in [(F_SETSIG, libc::SIGURG), (libc::F_SETLEASE, libc::F_RDLCK)] {
            // SAFETY: an open descriptor and constants.
            if unsafe { libc::fcntl(number, command, value) } != 0 {
                let error = std::io::Error::last_os_error();
                skip(format!("no leases on files here: {error}"));
            }
        }
        Self { _file: file }
    }
}

pub fn a_pool_has_as_many_threads_as_were_asked_for() {
    for (args, pool, rings) in [
        (&[][..], 0, 1),
        (&["--thread-pool-size", "0"], 0, 1),
        (&["--thread-pool-size", "1"], 1, 1),
        (&["--thread-pool-size", "5"], 5, 1),
        (&["--request-queues", "3"], 0, 3),
        // The pool works on the requests of all queues, which one thread hands to it.
        (&["--thread-pool-size", "4", "--request-queues", "3"], 4, 1),
    ] {
        let daemon = Daemon::start(args);
        let _mounted = mount(&daemon);
        let count = |name: &str| {
            let threads = threads_of(daemon.server());
            threads.names().filter(|one| one.starts_with(name)).count()
        };
        // A thread gives itself its name; until then it has the program's, as the first one does.
        while count("microvm-") > 1 {
            std::thread::yield_now();
        }
        assert_eq!(
            [count("request"), count("vring_worker")],
            [pool, rings],
            "{args:?}"
        );
    }
}

/// Offers requests one after another, each with room for an answer of its own; their heads.
fn offer(driver: &mut Driver, requests: &[Vec<u8>]) -> Vec<u16> {
    let [descriptors, ..] = Driver::parts(1);
    let heads = (0..).step_by(2).zip(requests);
    let heads = heads.map(|(head, request)| {
        let (input, output) = (u64::from(head) * 0x1000, u64::from(head) * 0x1000);
        driver.write(INPUT + input, request);
        let at = descriptors + 16 * u64::from(head);
        let length = u32::try_from(request.len()).unwrap();
        driver.put(at, (INPUT + input, length, NEXT, head + 1));
        driver.put(at + 16, (OUTPUT + output, 4096, WRITE, 0));
        driver.offer(1, head);
        head
    });
    let heads = heads.collect();
    driver.kick(1);
    heads
}

pub fn a_pool_works_on_as_many_requests_at_a_time_as_it_has_threads() {
    for threads in [0, 1, 2, 3] {
        let daemon = Daemon::start(&["--thread-pool-size", &threads.to_string()]);
        let names = ["first", "second"];
        let held = names.map(|name| Held::new(&daemon.share().join(name)));
        let mut mounted = mount(&daemon);
        let mut requests: Vec<_> = names
            .map(|name| {
                let node = mounted.lookup(ROOT, name).unwrap().node;
                message(OPEN, node, me(), &words(&[libc::O_WRONLY as u32, 0]))
            })
            .into();
        // One that has nothing to wait for.
        requests.push(message(GETATTR, ROOT, me(), &[0; 16]));
        let driver = &mut mounted.driver;
        // INIT and the look-ups.
        let before = driver.given_back(1, 3).len();
        let [first, second, third] = offer(driver, &requests)[..] else {
            panic!("three requests");
        };
        if threads == 3 {
            // The two before it wait all the while.
            assert_eq!(driver.given_back(1, 4)[before..], [third]);
        }
        drop(held);
        let order = driver.given_back(1, 6).split_off(before);
        match threads {
            0 | 1 => assert_eq!(order, [first, second, third], "{threads}"),
            2 => assert_ne!(order[0], third),
            _ => assert_eq!(order[0], third),
        }
    }
}
