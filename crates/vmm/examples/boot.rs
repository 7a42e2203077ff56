//! Boots a kernel and shows how long each step takes.
//!
//! ```text
//! cargo run --release -p microvm-vmm --example boot -- KERNEL [INITRAMFS] [OPTION…]
//!     --cpus N        vCPUs (default 1)
//!     --memory MIB    RAM (default 256)
//!     --cmdline S     kernel command line
//!     --marker S      text on the console whose time is told (default "microvm: PID 1")
//!     --until-marker  stop the machine when the marker was seen
//!     --press         press the power button when the marker was seen
//!     --extract       KERNEL is a bzImage: unpack its ELF kernel first and boot that
//!     --huge-pages    back RAM with reserved 2 MiB pages
//!     --rng           give the guest an entropy device
//!     --quiet         do not copy the console to stdout
//! ```
//!
//! The guest's console goes to stdout, everything else to stderr.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use microvm_vmm::{ExitReason, Machine, MachineConfig, boot, reaper};

const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 random.trust_cpu=on cryptomgr.notests \
                            reboot=k pci=off i8042.noaux i8042.nomux i8042.dumbkbd tsc=reliable \
                            no_timer_check";

struct Options {
    kernel: PathBuf,
    initramfs: Option<PathBuf>,
    cpus: u8,
    memory: u64,
    command_line: String,
    marker: String,
    until_marker: bool,
    press: bool,
    extract: bool,
    rng: bool,
    huge_pages: bool,
    quiet: bool,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        kernel: PathBuf::new(),
        initramfs: None,
        cpus: 1,
        memory: 256,
        command_line: COMMAND_LINE.to_owned(),
        marker: "microvm: PID 1".to_owned(),
        until_marker: false,
        press: false,
        extract: false,
        rng: false,
        huge_pages: false,
        quiet: false,
    };
    let mut files = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--cpus" => options.cpus = value()?.parse()?,
            "--memory" => options.memory = value()?.parse()?,
            "--cmdline" => options.command_line = value()?,
            "--marker" => options.marker = value()?,
            "--until-marker" => options.until_marker = true,
            "--press" => options.press = true,
            "--extract" => options.extract = true,
            "--huge-pages" => options.huge_pages = true,
            "--rng" => options.rng = true,
            "--quiet" => options.quiet = true,
            _ if arg.starts_with("--") => return Err(format!("unknown option {arg}").into()),
            _ => files.push(PathBuf::from(&arg)),
        }
    }
    let mut files = files.into_iter();
    options.kernel = files.next().ok_or("no kernel given")?;
    options.initramfs = files.next();
    Ok(options)
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let mut kernel = options.kernel.clone();
    if options.extract {
        let from = Instant::now();
        kernel = std::env::temp_dir().join(format!("vmlinux-{}", std::process::id()));
        boot::extract_vmlinux(&options.kernel, &kernel)?;
        eprintln!("extract     {:>9.3} ms", milliseconds(from.elapsed()));
    }
    let result = run(&options, &kernel);
    if options.extract {
        std::fs::remove_file(&kernel)?;
    }
    result
}

fn run(options: &Options, kernel: &Path) -> Result<(), Box<dyn Error>> {
    let (host, guest) = UnixStream::pair()?;
    let start = Instant::now();
    let machine = Arc::new(Machine::new(MachineConfig {
        cpus: options.cpus,
        memory_bytes: options.memory << 20,
        huge_pages: options.huge_pages,
        kernel: kernel.to_owned(),
        initramfs: options.initramfs.clone(),
        command_line: options.command_line.clone(),
        vsock: None,
        rng: options.rng,
        vhost_user: Vec::new(),
        console: Some(guest.into()),
        kvm_device: None,
    })?);
    let built = start.elapsed();
    machine.start()?;
    let started = start.elapsed();

    let console = {
        let machine = Arc::clone(&machine);
        let (marker, quiet) = (options.marker.clone(), options.quiet);
        let (until_marker, press) = (options.until_marker, options.press);
        std::thread::spawn(move || {
            watch(host, &marker, quiet, start, || {
                if press {
                    machine.press_power_button().expect("power button");
                }
                if until_marker {
                    machine.stop();
                }
            })
        })
    };
    let reason = machine.wait();
    let ended = start.elapsed();
    let own_memory = own_memory();
    let from = Instant::now();
    machine.stop();
    let stopped = from.elapsed();
    let from = Instant::now();
    reaper::wait_idle();
    let reaped = from.elapsed();
    let (first, marker) = console.join().expect("console thread");

    let line = |what: &str, time: Option<Duration>| match time {
        Some(time) => eprintln!("{what:<11} {:>9.3} ms", milliseconds(time)),
        None => eprintln!("{what:<11}         -"),
    };
    line("new", Some(built));
    line("start", Some(started - built));
    line("first byte", first);
    line("marker", marker);
    line("end", Some(ended));
    line("stop", Some(stopped));
    line("reap", Some(reaped));
    let metrics = machine.metrics();
    eprintln!(
        "exits       {:?} total {}",
        metrics.exits,
        metrics.exits.total()
    );
    eprintln!("console     {:?}", metrics.console);
    eprintln!("memory      {own_memory}");
    eprintln!("reason      {reason:?}");
    match reason {
        ExitReason::InternalError(_) | ExitReason::Failed(_) => std::process::exit(1),
        _ => Ok(()),
    }
}

/// Copies the console to stdout; returns when its first byte and the marker came.
fn watch(
    mut host: UnixStream,
    marker: &str,
    quiet: bool,
    start: Instant,
    on_marker: impl FnOnce(),
) -> (Option<Duration>, Option<Duration>) {
    let (mut first, mut seen) = (None, None);
    let mut on_marker = Some(on_marker);
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = host.read(&mut buffer) {
        let bytes = buffer.get(..count).unwrap_or_default();
        first.get_or_insert_with(|| start.elapsed());
        if !quiet {
            let mut stdout = std::io::stdout();
            let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
        }
        if seen.is_none() {
            text.extend_from_slice(bytes);
            let found = text
                .windows(marker.len())
                .any(|window| window == marker.as_bytes());
            if found {
                seen = Some(start.elapsed());
                if let Some(on_marker) = on_marker.take() {
                    on_marker();
                }
            }
        }
    }
    (first, seen)
}

/// This process's memory by kind, the guest's not counted.
fn own_memory() -> String {
    let Ok(maps) = std::fs::read_to_string("/proc/self/smaps") else {
        return "unknown".to_owned();
    };
    let (mut guest, mut own, mut private) = (0, 0, 0);
    let mut is_guest = false;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        match (
            words.next(),
            words.next().and_then(|w| w.parse::<u64>().ok()),
        ) {
            (Some("Pss:"), Some(kib)) if is_guest => guest += kib,
            (Some("Pss:"), Some(kib)) => own += kib,
            (Some("Private_Dirty:"), Some(kib)) if !is_guest => private += kib,
            (Some(range), None) if range.contains('-') => {
                is_guest = line.contains("memfd:microvm-ram");
            }
            _ => {}
        }
    }
    format!("own {own} KiB PSS ({private} KiB private dirty), guest {guest} KiB")
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
