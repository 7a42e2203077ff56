//! Rings that are stopped with requests still offered, and drivers that never let one be empty.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::driver::{Driver, INPUT, NEXT, OUTPUT, Outcome, PATIENCE, SIZE, WRITE, connect};
use super::fuse::{self, GETATTR, Mounted, ROOT, me, message};
use super::process::Daemon;

/// Descriptors of the wide ring: two for each request.
const WIDE: u16 = 1024;
const REQUESTS: u16 = WIDE / 2;
/// Bytes of a slow request.
const BIG: u32 = 256 << 10;
/// Without a pool and with one, whose event thread takes all that is offered before anybody stops it.
const POOL: &[&[&str]] = &[&[], &["--thread-pool-size", "2"]];

fn getattr() -> Vec<u8> {
    message(GETATTR, ROOT, me(), &[0; 16])
}

/// Ring 1, as wide as there is room for it, full of requests.
struct Wide {
    driver: Driver,
    kick: EventFd,
    call: EventFd,
    error: EventFd,
}

/// Waits for an event; `otherwise` is what is the matter where it does not come.
fn wait_for(event: &EventFd, otherwise: &str) {
    let mut polled = libc::pollfd {
        fd: event.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry, as is said.
    let ready = unsafe { libc::poll(&raw mut polled, 1, PATIENCE) };
    assert_eq!(ready, 1, "{otherwise}");
}

impl Wide {
    fn new(driver: Driver) -> Self {
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        Self {
            driver,
            kick: event(),
            call: event(),
            error: event(),
        }
    }

    fn full(daemon: &Daemon) -> Self {
        let mut driver = connect(&daemon.socket(), 2, false);
        driver.add_ring(0, SIZE);
        let mut wide = Self::new(driver);
        let [descriptors, available, _] = Driver::parts(1);
        wide.driver.write(INPUT, &getattr());
        for index in 0..REQUESTS {
            let at = descriptors + 32 * u64::from(index);
            wide.driver.put(at, (INPUT, 56, NEXT, 2 * index + 1));
            let output = OUTPUT + 256 * u64::from(index);
            wide.driver.put(at + 16, (output, 256, WRITE, 0));
        }
        for slot in 0..WIDE {
            let head = 2 * (slot % REQUESTS);
            let at = available + 4 + 2 * u64::from(slot);
            wide.driver.write(at, &head.to_le_bytes());
        }
        wide.start(0);
        wide
    }

    /// Starts the ring at `base`. Nobody kicks.
    fn start(&mut self, base: u16) {
        let addresses = self.driver.addresses(1, WIDE);
        let frontend = &mut self.driver.frontend;
        frontend.set_vring_num(1, WIDE).unwrap();
        frontend.set_vring_addr(1, &addresses).unwrap();
        frontend.set_vring_base(1, base).unwrap();
        frontend.set_vring_call(1, &self.call).unwrap();
        frontend.set_vring_err(1, &self.error).unwrap();
        frontend.set_vring_kick(1, &self.kick).unwrap();
        frontend.set_vring_enable(1, true).unwrap();
    }

    fn offer_all(&self) {
        let [_, available, _] = Driver::parts(1);
        self.driver.write(available + 2, &REQUESTS.to_le_bytes());
        self.kick.write(1).unwrap();
    }

    fn used(&self) -> u16 {
        used(&self.driver.memory)
    }

    fn wait_until_all_are_back(&self) {
        while self.used() != REQUESTS {
            wait_for(&self.call, "not all requests come back");
            let _ = self.call.read();
        }
    }

    /// Has the thread of both rings answer on the other one: it has left this ring then.
    fn other_ring_answers(&mut self) {
        let answer = self.driver.request(0, &getattr(), 256);
        assert!(answer.len() >= 16);
    }
}

fn used(memory: &GuestMemoryMmap) -> u16 {
    let [_, _, used] = Driver::parts(1);
    memory
        .load(GuestAddress(used + 2), Ordering::Acquire)
        .unwrap()
}

pub fn a_request_behind_a_broken_one_keeps_no_daemon_alive() {
    for args in POOL {
        let mut daemon = Daemon::start(args);
        let mut driver = Driver::start(&daemon.socket());
        driver.write(INPUT, &getattr());
        let [descriptors, ..] = Driver::parts(1);
        for (index, length) in [(0, 3), (2, 56)] {
            let at = descriptors + 16 * u64::from(index);
            driver.put(at, (INPUT, length, NEXT, index + 1));
            driver.put(at + 16, (OUTPUT, 4096, WRITE, 0));
        }
        driver.offer(1, 0);
        driver.offer(1, 2);
        driver.kick(1);
        assert_eq!(driver.outcome(1), Outcome::Failed);
        drop(driver);
        assert_eq!(daemon.ends_in_time().code(), Some(0), "{args:?}");
    }
}

pub fn a_ring_that_is_given_back_full_is_left_alone_and_worked_off_after_its_next_start() {
    for args in POOL {
        let mut in_the_middle = 0;
        for _ in 0..5 {
            let daemon = Daemon::start(args);
            let mut wide = Wide::full(&daemon);
            wide.offer_all();
            let base = wide.driver.frontend.get_vring_base(1).unwrap();
            let base = u16::try_from(base).unwrap();
            // All that was taken is back, and nothing comes later.
            assert_eq!(wide.used(), base);
            let [start, .., used] = Driver::parts(1);
            let ring = |wide: &Wide| wide.driver.read(start, (used + 0x4000 - start) as usize);
            let before = ring(&wide);
            wide.other_ring_answers();
            assert!(ring(&wide) == before, "{args:?}");
            in_the_middle += u32::from(base < REQUESTS);
            wide.driver.write(INPUT, &getattr());
            wide.start(base);
            wide.wait_until_all_are_back();
        }
        // Otherwise this has tried nothing.
        assert!(in_the_middle > 0 || !args.is_empty());
    }
}

pub fn a_ring_that_is_paused_full_is_worked_off_when_it_goes_on() {
    for args in POOL {
        let mut in_the_middle = 0;
        for _ in 0..5 {
            let daemon = Daemon::start(args);
            let mut wide = Wide::full(&daemon);
            wide.offer_all();
            let enable = |wide: &mut Wide, on| wide.driver.frontend.set_vring_enable(1, on);
            enable(&mut wide, false).unwrap();
            in_the_middle += u32::from(wide.used() < REQUESTS);
            let _ = wide.call.read();
            enable(&mut wide, true).unwrap();
            wide.wait_until_all_are_back();
        }
        assert!(in_the_middle > 0 || !args.is_empty());
    }
}

pub fn a_driver_that_never_stops_offering_stops_nobody_else() {
    for args in POOL {
        let mut daemon = Daemon::start(args);
        let wide = Wide::full(&daemon);
        let memory = wide.driver.memory.clone();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let [_, available, _] = Driver::parts(1);
                while !stop.load(Ordering::Relaxed) {
                    // No more than are back, so that it breaks no rule.
                    let next = used(&memory).wrapping_add(REQUESTS);
                    let place = GuestAddress(available + 2);
                    memory.store(next, place, Ordering::Release).unwrap();
                }
            });
            wide.offer_all();
            let (done, outcome) = mpsc::channel();
            // Not in the scope: where it hangs nobody waits for it.
            std::thread::spawn(move || {
                let mut wide = wide;
                for _ in 0..5 {
                    wide.driver.tell_memory();
                    wide.other_ring_answers();
                    // Both use the same buffer.
                    wide.driver.write(INPUT, &getattr());
                }
                drop(wide);
                let _ = done.send(());
            });
            let patience = Duration::from_millis(PATIENCE.unsigned_abs().into());
            let outcome = outcome.recv_timeout(patience);
            // The guest goes on although its monitor has gone.
            let ended = outcome.map(|()| daemon.ends_in_time());
            stop.store(true, Ordering::Relaxed);
            assert!(ended.unwrap().success(), "{args:?}");
        });
    }
}

pub fn a_driver_that_offers_requests_again_before_they_are_back_is_put_out_of_service() {
    let daemon = Daemon::start(&["--reconnect", "--thread-pool-size", "1"]);
    std::fs::write(daemon.share().join("big"), vec![7; BIG as usize]).unwrap();
    let mut mounted = Mounted::mount(Driver::start(&daemon.socket()));
    let big = mounted.lookup(ROOT, "big").unwrap();
    let handle = mounted.open(big.node, libc::O_RDONLY).unwrap();
    let mut body = handle.to_le_bytes().to_vec();
    body.extend([0; 8]);
    body.extend(BIG.to_le_bytes());
    body.resize(40, 0);
    let request = message(fuse::READ, big.node, me(), &body);
    mounted.driver.frontend.get_vring_base(1).unwrap();

    let mut wide = Wide::new(mounted.driver);
    let [descriptors, available, used] = Driver::parts(1);
    wide.driver.write(available, &[0; 0x1000]);
    wide.driver.write(used, &[0; 0x1000]);
    wide.driver.write(INPUT, &request);
    let length = u32::try_from(request.len()).unwrap();
    wide.driver.put(descriptors, (INPUT, length, NEXT, 1));
    wide.driver
        .put(descriptors + 16, (OUTPUT, BIG + 16, WRITE, 0));
    wide.start(0);
    // Much to read by the one thread, and all of it taken at once.
    wide.driver.write(available + 2, &WIDE.to_le_bytes());
    wide.kick.write(1).unwrap();
    // The other ring's nonsense is seen after that.
    let [_, available_0, used_0] = Driver::parts(0);
    wide.driver.write(used_0 + 2, &7u16.to_le_bytes());
    wide.driver
        .write(available_0 + 2, &(SIZE + 1).to_le_bytes());
    wide.driver.kick(0);
    assert_eq!(wide.driver.outcome(0), Outcome::Failed);
    wide.driver.write(available + 2, &(2 * WIDE).to_le_bytes());
    wide.kick.write(1).unwrap();
    wait_for(&wide.error, "the ring takes more than there is room for");

    wide.driver.frontend.get_vring_base(1).unwrap();
    drop(wide);
    let mut mounted = Mounted::mount(Driver::start(&daemon.socket()));
    assert!(mounted.lookup(ROOT, "big").is_ok());
}

pub fn descriptors_that_take_no_more_hold_nobody_up() {
    for args in POOL {
        let mut daemon = Daemon::start(args);
        let mut wide = Wide::full(&daemon);
        // Blocking ones, at their maximum.
        wide.call = EventFd::new(0).unwrap();
        wide.error = EventFd::new(0).unwrap();
        for event in [&wide.call, &wide.error] {
            event.write(u64::MAX - 1).unwrap();
        }
        wide.driver.frontend.get_vring_base(1).unwrap();
        wide.start(0);
        wide.offer_all();
        wide.driver.frontend.set_vring_enable(1, false).unwrap();
        // As many as cannot be.
        let [_, available, _] = Driver::parts(1);
        wide.driver.write(available + 2, &u16::MAX.to_le_bytes());
        wide.driver.frontend.set_vring_enable(1, true).unwrap();
        wide.driver.write(OUTPUT, &[0; 16]);
        wide.other_ring_answers();
        wide.driver.frontend.get_vring_base(1).unwrap();
        drop(wide);
        assert_eq!(daemon.ends_in_time().code(), Some(0), "{args:?}");
    }
}

pub fn a_guest_that_breaks_its_ring_again_and_again_does_not_fill_the_log() {
    let mut daemon = Daemon::start(&["--reconnect"]);
    let mut wide = Wide::full(&daemon);
    let [_, available, _] = Driver::parts(1);
    wide.driver.write(available + 2, &(2 * WIDE).to_le_bytes());
    for _ in 0..150 {
        wide.kick.write(1).unwrap();
        wait_for(&wide.error, "a broken ring is not told");
        wide.error.read().unwrap();
        let base = wide.driver.frontend.get_vring_base(1).unwrap();
        wide.start(u16::try_from(base).unwrap());
    }
    drop(wide);
    daemon.expect_log("lines about the last connection's requests were left out");
    let told = daemon.log.matches("A queue cannot be read").count();
    assert!((1..=100).contains(&told), "{told}");
    let left_out = daemon.log.matches("Further lines about this").count();
    assert_eq!(left_out, 1, "{}", daemon.log);
}
