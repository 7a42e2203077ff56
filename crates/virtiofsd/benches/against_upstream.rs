//! Our daemon against upstream's virtiofsd 1.14.0, without a guest: `cargo bench -p microvm-virtiofsd`.
//!
//! A driver makes requests on the rings itself, so what is measured is the daemon and not an emulated guest. Each figure is
//! the median of the ratios of pairs that ran one right after the other, so that a busy machine slows both.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    missing_docs
)]

#[allow(dead_code)]
#[path = "../tests/daemon/driver.rs"]
mod driver;
#[allow(dead_code)]
#[path = "../tests/daemon/fuse.rs"]
mod fuse;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Instant;

use driver::{Driver, INPUT, NEXT, OUTPUT, Outcome, WRITE};
use fuse::{GETATTR, Mounted, READ, ROOT, UNLINK, me, message};
use tempfile::TempDir;

const PAIRS: usize = 7;
const FILE: usize = 32 << 20;
/// Requests that wait in a ring at once.
const DEPTH: u16 = 30;

struct Daemon {
    folder: TempDir,
    child: Child,
    _stderr: BufReader<ChildStderr>,
    /// Seconds from the start to the socket's listening.
    start: f64,
}

impl Daemon {
    fn start(program: &Path, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let share = folder.path().join("share");
        std::fs::create_dir(&share).unwrap();
        std::fs::write(share.join("file"), vec![1; FILE]).unwrap();
        let begun = Instant::now();
        let mut child = Command::new(program)
            .arg("--shared-dir")
            .arg(&share)
            .arg("--socket-path")
            .arg(folder.path().join("socket"))
            .args(args)
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("Waiting for vhost-user") {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "no daemon");
        }
        Self {
            folder,
            child,
            _stderr: stderr,
            start: begun.elapsed().as_secs_f64(),
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// KiB of memory, shared pages counted by their share, of all its processes.
    fn memory(&self) -> f64 {
        let mut pid = Some(self.child.id());
        let mut sum = 0.0;
        while let Some(id) = pid {
            let rollup = std::fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap();
            let line = rollup
                .lines()
                .find(|line| line.starts_with("Pss:"))
                .unwrap();
            sum += line
                .split_whitespace()
                .nth(1)
                .unwrap()
                .parse::<f64>()
                .unwrap();
            let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
            pid = children
                .ok()
                .and_then(|list| list.split_whitespace().next()?.parse().ok());
        }
        sum
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: our own child, which has not been waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let _ = self.child.wait();
    }
}

/// A guest with the file open.
struct Guest {
    mounted: Mounted,
    node: u64,
    handle: u64,
    random: u64,
}

impl Guest {
    fn new(daemon: &Daemon, request_rings: u16) -> Self {
        let driver = Driver::start_with(&daemon.socket(), request_rings + 1, true);
        let mut mounted = Mounted::mount(driver);
        let node = mounted.lookup(ROOT, "file").unwrap().node;
        let handle = mounted.open(node, libc::O_RDWR).unwrap();
        Self {
            mounted,
            node,
            handle,
            random: 88_172_645_463_325_252,
        }
    }

    /// A random offset of a page (xorshift).
    fn offset(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % (FILE as u64 / 4096) * 4096
    }

    fn read_request(&mut self) -> Vec<u8> {
        let mut body = self.handle.to_le_bytes().to_vec();
        body.extend(self.offset().to_le_bytes());
        body.extend(4096u32.to_le_bytes());
        body.resize(40, 0);
        message(READ, self.node, me(), &body)
    }

    /// Has all request rings full of random reads, and waits for all.
    fn burst(&mut self, rings: usize) {
        for ring in 1..=rings {
            let [table, ..] = Driver::parts(ring);
            for index in 0..DEPTH {
                let slot = (ring as u64 - 1) * u64::from(DEPTH) + u64::from(index);
                let (input, output) = (INPUT + slot * 4096, OUTPUT + slot * 8192);
                let request = self.read_request();
                let driver = &mut self.mounted.driver;
                driver.write(input, &request);
                let at = table + 32 * u64::from(index);
                driver.put(at, (input, request.len() as u32, NEXT, index * 2 + 1));
                driver.put(at + 16, (output, 4096 + 16, WRITE, 0));
                driver.offer(ring, index * 2);
            }
            self.mounted.driver.kick(ring);
        }
        for ring in 1..=rings {
            assert_ne!(self.mounted.driver.outcome(ring), Outcome::Failed);
        }
    }
}

/// Work whose seconds are compared.
type Work = fn(&mut Guest);

const WORK: [(&str, Work); 6] = [
    ("GETATTR, 3000 times", |guest| {
        for _ in 0..3000 {
            guest.mounted.call(GETATTR, ROOT, &[0; 16]).unwrap();
        }
    }),
    ("random reads of 4 KiB, 3000", |guest| {
        for _ in 0..3000 {
            let at = guest.offset();
            guest
                .mounted
                .read(guest.node, guest.handle, at, 4096)
                .unwrap();
        }
    }),
    ("random writes of 4 KiB, 3000", |guest| {
        let data = vec![2; 4096];
        for _ in 0..3000 {
            let at = guest.offset();
            guest
                .mounted
                .write(guest.node, guest.handle, at, &data)
                .unwrap();
        }
    }),
    ("sequential reads of 1 MiB, 32", |guest| {
        for index in 0..32 {
            guest
                .mounted
                .read(guest.node, guest.handle, index << 20, 1 << 20)
                .unwrap();
        }
    }),
    ("sequential writes of 1 MiB, 32", |guest| {
        let data = vec![3; 1 << 20];
        for index in 0..32 {
            guest
                .mounted
                .write(guest.node, guest.handle, index << 20, &data)
                .unwrap();
        }
    }),
    ("1000 files created, looked up, removed", |guest| {
        for index in 0..1000 {
            let name = format!("file-{index}");
            guest.mounted.create(ROOT, &name).unwrap();
            guest.mounted.lookup(ROOT, &name).unwrap();
            let name = [name.as_bytes(), &[0]].concat();
            guest.mounted.call(UNLINK, ROOT, &name).unwrap();
        }
    }),
];

fn seconds(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One line: medians of both, and of the ratios of pairs.
fn report(what: &str, unit: &str, pairs: &[(f64, f64)]) {
    let ours = median(pairs.iter().map(|pair| pair.0).collect());
    let theirs = median(pairs.iter().map(|pair| pair.1).collect());
    let ratio = median(pairs.iter().map(|(ours, theirs)| ours / theirs).collect());
    println!("| {what} | {ours:.1} {unit} | {theirs:.1} {unit} | {ratio:.2} × |");
}

fn upstream() -> Option<PathBuf> {
    let named = std::env::var_os("MICROVM_TEST_VIRTIOFSD").map(PathBuf::from);
    let cache = std::env::var_os("MICROVM_CACHE")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/microvm")));
    let built = cache.map(|cache| cache.join("tools/virtiofsd-1.14.0/bin/virtiofsd"));
    [named, built]
        .into_iter()
        .flatten()
        .find(|path| path.exists())
}

fn main() {
    // cargo test builds and runs benches too, with this word missing.
    if !std::env::args().any(|word| word == "--bench") {
        return;
    }
    let Some(upstream) = upstream() else {
        println!("not run: no virtiofsd 1.14.0; `npm run set-up -- --test` builds it");
        return;
    };
    let ours = Path::new(env!("CARGO_BIN_EXE_microvm-virtiofsd"));
    println!("| medians of {PAIRS} pairs | microvm-virtiofsd | virtiofsd 1.14.0 | ratio |");
    println!("|---|---|---|---|");

    let mut starts = Vec::new();
    let mut memory = Vec::new();
    let mut times = vec![Vec::new(); WORK.len()];
    for round in 0..=PAIRS {
        let programs = if round % 2 == 0 {
            [ours, &upstream]
        } else {
            [&upstream, ours]
        };
        let mut daemons = programs.map(|program| Daemon::start(program, &[]));
        if round % 2 == 1 {
            daemons.reverse();
        }
        let mut guests = [0, 1].map(|index| Guest::new(&daemons[index], 1));
        let mut measured = Vec::new();
        for (_, work) in WORK {
            // By turns the first: neither always finds what the other has warmed.
            let first = round % 2;
            let a = seconds(|| work(&mut guests[first]));
            let b = seconds(|| work(&mut guests[1 - first]));
            let pair = if first == 0 { (a, b) } else { (b, a) };
            measured.push((pair.0 * 1000.0, pair.1 * 1000.0));
        }
        for first in 0..2 {
            let mut pair = [0.0; 2];
            for index in [first, 1 - first] {
                pair[index] = Daemon::start([ours, &upstream][index], &[]).start * 1000.0;
            }
            starts.push((pair[0], pair[1]));
        }
        // The first round warms caches.
        if round > 0 {
            for (times, pair) in times.iter_mut().zip(measured) {
                times.push(pair);
            }
            memory.push((daemons[0].memory(), daemons[1].memory()));
        }
    }
    for ((what, _), times) in WORK.iter().zip(&times) {
        report(what, "ms", times);
    }

    let rings = 4;
    let mut bursts = Vec::new();
    for round in 0..=PAIRS {
        let many = Daemon::start(ours, &["--request-queues", "4"]);
        let one = Daemon::start(&upstream, &[]);
        let (mut many, mut one) = (Guest::new(&many, 4), Guest::new(&one, 1));
        let a = seconds(|| (0..50).for_each(|_| many.burst(rings)));
        let b = seconds(|| (0..50 * rings).for_each(|_| one.burst(1)));
        if round > 0 {
            bursts.push((a * 1000.0, b * 1000.0));
        }
    }
    report(
        "6000 random reads of 4 KiB, 30 at once in each of 4 queues (there: of the 1 queue)",
        "ms",
        &bursts,
    );
    report("start to ready", "ms", &starts);
    report("memory (PSS of all its processes)", "KiB", &memory);
}
