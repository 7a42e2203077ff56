//! A stock Linux kernel. Needs a KVM that runs guest kernels natively, a kernel (`MICROVM_KERNEL`
//! or the cache that the set-up fills) and Debian's busybox-static; says what is missing, which is
//! a failure with `MICROVM_TEST_REQUIRE_LINUX=1`.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use microvm_vmm::{ExitReason, MachineConfig, VhostUserConfig, VhostUserPeer, boot};

use super::cpio::Cpio;
use super::guest::Code;
use super::support::{Bench, alone};
use super::upstream::Virtiofsd;

/// Virtio's number for a file system.
const FILE_SYSTEM: u32 = 26;
/// Above this, guest kernels are emulated.
const NATIVE_RATIO: f64 = 50.0;
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 random.trust_cpu=on cryptomgr.notests \
                            pci=off tsc=reliable no_timer_check";

const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t sysfs sys /sys
echo "PID $$ of $(/bin/busybox nproc) CPUs"
for word in $(/bin/busybox cat /proc/cmdline); do
    case $word in do=*) what=${word#do=} ;; esac
done
load() {
    for module in "$@"; do /bin/busybox insmod "/$module.ko"; done
}
case $what in
    poweroff) /bin/busybox poweroff -f ;;
    reboot) /bin/busybox reboot -f ;;
    crash) echo c >/proc/sysrq-trigger ;;
    exit) exit 3 ;;
    spin) while :; do :; done ;;
    memory) /bin/busybox head -n1 /proc/meminfo; /bin/busybox poweroff -f ;;
    clock) /bin/busybox cat /sys/devices/system/clocksource/clocksource0/current_clocksource
        /bin/busybox dmesg | /bin/busybox grep -E 'TSC deadline|x2apic enabled|Hypervisor detected'
        /bin/busybox poweroff -f ;;
    button) load button evdev
        # Events come to those who have it open.
        exec 3</dev/input/event0
        echo "ready for the button"
        # Key 116 (KEY_POWER), pressed: an event of 24 bytes.
        /bin/busybox head -c 24 <&3 | /bin/busybox hexdump -v -e '/2 "%d "'
        echo "pressed"; /bin/busybox poweroff -f ;;
    share) load virtio_ring virtio virtio_mmio fuse virtiofs
        /bin/busybox mkdir /share
        /bin/busybox mount -t virtiofs share /share
        /bin/busybox cp /share/given /share/taken
        /bin/busybox umount /share
        /bin/busybox poweroff -f ;;
    rng) load virtio_ring virtio virtio_mmio virtio-rng
        /bin/busybox head -c 32 /dev/hwrng | /bin/busybox wc -c
        /bin/busybox poweroff -f ;;
    echo) read -r line; echo "got <$line>"; /bin/busybox poweroff -f ;;
esac
"#;

/// The files that every test boots.
struct Guest {
    kernel: PathBuf,
    /// Has the modules of [`MODULES`].
    has_modules: bool,
    vmlinux: PathBuf,
    initramfs: PathBuf,
    _folder: tempfile::TempDir,
}

/// The guest, or `None` after telling why Linux cannot run here.
fn guest() -> Option<&'static Guest> {
    static GUEST: OnceLock<Result<Guest, String>> = OnceLock::new();
    match GUEST.get_or_init(prepare) {
        Ok(guest) => Some(guest),
        Err(why) => skip(why),
    }
}

fn skip<T>(why: &str) -> Option<T> {
    let required = std::env::var_os("MICROVM_TEST_REQUIRE_LINUX").is_some_and(|all| all == "1");
    assert!(!required, "{why}");
    eprintln!("skipped: {why}");
    None
}

fn prepare() -> Result<Guest, String> {
    let speed = microvm_kvm::guest_speed::measure_guest_speed(Path::new("/dev/kvm"))
        .map_err(|error| error.to_string())?;
    if speed.ring0_ratio() > NATIVE_RATIO {
        return Err(format!(
            "KVM emulates guest kernels here: {:.0} times slower than the host",
            speed.ring0_ratio()
        ));
    }
    let kernel = kernel().ok_or("no kernel: neither MICROVM_KERNEL nor the guest cache has one")?;
    let busybox = busybox().ok_or("no static busybox: neither the set-up's nor /bin/busybox")?;
    let mut cpio = Cpio::default();
    for folder in ["bin", "proc", "dev", "sys"] {
        cpio.folder(folder);
    }
    cpio.executable("bin/busybox", &busybox);
    cpio.executable("init", INIT.as_bytes());
    let modules = modules(&kernel);
    for (name, content) in modules.iter().flatten() {
        cpio.executable(name, content);
    }
    let folder = tempfile::tempdir().unwrap();
    let initramfs = folder.path().join("initramfs");
    std::fs::write(&initramfs, cpio.finish()).unwrap();
    let vmlinux = folder.path().join("vmlinux");
    boot::extract_vmlinux(&kernel, &vmlinux).map_err(|error| error.to_string())?;
    Ok(Guest {
        has_modules: modules.is_some(),
        kernel,
        vmlinux,
        initramfs,
        _folder: folder,
    })
}

/// Kernel modules that some tests load, in the folder of their release.
const MODULES: [&str; 8] = [
    "drivers/acpi/button.ko",
    "drivers/input/evdev.ko",
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_mmio.ko",
    "drivers/char/hw_random/virtio-rng.ko",
    "fs/fuse/fuse.ko",
    "fs/fuse/virtiofs.ko",
];

fn has_modules(guest: &Guest) -> bool {
    guest.has_modules || skip::<()>("no modules beside the kernel").is_some()
}

/// The modules beside the kernel in the guest cache, if they are all there.
fn modules(kernel: &Path) -> Option<Vec<(String, Vec<u8>)>> {
    let releases = std::fs::read_dir(kernel.parent()?.join("modules")).ok()?;
    let release = releases.flatten().next()?.path().join("kernel");
    MODULES
        .iter()
        .map(|module| {
            let content = std::fs::read(release.join(module)).ok()?;
            Some((module.rsplit('/').next()?.to_owned(), content))
        })
        .collect()
}

fn kernel() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("MICROVM_KERNEL") {
        return Some(path.into());
    }
    Some(cache()?.join("guest/current/vmlinuz")).filter(|path| path.exists())
}

fn busybox() -> Option<Vec<u8>> {
    let set_up = cache().map(|cache| cache.join("tools/busybox-static/busybox"));
    // A system's own may be a dynamic one, which has no libraries in the guest.
    [set_up, Some(PathBuf::from("/bin/busybox"))]
        .into_iter()
        .flatten()
        .find_map(|path| std::fs::read(path).ok())
}

/// The folder that the set-up fills.
fn cache() -> Option<PathBuf> {
    if let Some(cache) = std::env::var_os("MICROVM_CACHE") {
        return Some(cache.into());
    }
    let xdg = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    Some(xdg.or_else(home)?.join("microvm"))
}

/// A started Linux guest that does `what`.
fn boot(guest: &Guest, what: &str, change: impl FnOnce(&mut MachineConfig)) -> Bench {
    Bench::start_with(&Code::new(), |config| {
        config.kernel.clone_from(&guest.vmlinux);
        config.initramfs = Some(guest.initramfs.clone());
        config.memory_bytes = 256 << 20;
        config.command_line = format!("{COMMAND_LINE} {what}");
        change(config);
    })
}

macro_rules! with_linux {
    () => {{
        let alone = alone();
        match guest() {
            Some(guest) => (guest, alone),
            None => return,
        }
    }};
}

#[test]
fn one_two_and_four_cpus_come_up() {
    let (guest, _alone) = with_linux!();
    for cpus in [1, 2, 4] {
        let bench = boot(guest, "do=poweroff", |config| config.cpus = cpus);
        assert_eq!(bench.machine.wait(), ExitReason::PowerOff);
        let console = bench.finish();
        let want = format!("PID 1 of {cpus} CPUs");
        assert!(console.contains(&want), "{console}");
    }
}

#[test]
fn small_and_large_memory_is_all_there() {
    let (guest, _alone) = with_linux!();
    for (bytes, least_kib) in [(128 << 20, 90_000), (4 << 30, 3_900_000)] {
        let bench = boot(guest, "do=memory", |config| config.memory_bytes = bytes);
        assert_eq!(bench.machine.wait(), ExitReason::PowerOff);
        let console = bench.finish();
        let total: u64 = console
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|kib| kib.parse().ok())
            .unwrap_or_else(|| panic!("{console}"));
        assert!(total > least_kib && total < bytes / 1024, "{total} KiB");
    }
}

#[test]
fn a_bzimage_boots_as_it_is() {
    let (guest, _alone) = with_linux!();
    let bench = boot(guest, "do=poweroff", |config| {
        config.kernel.clone_from(&guest.kernel);
    });
    assert_eq!(bench.machine.wait(), ExitReason::PowerOff);
    assert!(bench.finish().contains("PID 1"));
}

#[test]
fn every_way_to_end_tells_its_reason() {
    let (guest, _alone) = with_linux!();
    for (what, want) in [
        ("do=poweroff", ExitReason::PowerOff),
        ("do=reboot reboot=k", ExitReason::Reset),
        ("do=reboot reboot=a", ExitReason::Reset),
        ("do=reboot reboot=t", ExitReason::TripleFault),
        ("do=crash reboot=k", ExitReason::Reset),
        ("do=exit reboot=t", ExitReason::TripleFault),
    ] {
        let bench = boot(guest, what, |_| ());
        assert_eq!(bench.machine.wait(), want, "{what}");
    }
}

#[test]
fn the_kernel_finds_its_clocks_and_its_interrupt_controller() {
    let (guest, _alone) = with_linux!();
    let bench = boot(guest, "do=clock", |_| ());
    assert_eq!(bench.machine.wait(), ExitReason::PowerOff);
    let console = bench.finish();
    for want in [
        "kvm-clock",
        "TSC deadline timer available",
        "x2apic enabled",
        "Hypervisor detected: KVM",
    ] {
        assert!(console.contains(want), "{want} is not in {console}");
    }
}

#[test]
fn a_boot_can_be_stopped_and_paused_anywhere() {
    let (guest, _alone) = with_linux!();
    let bench = boot(guest, "do=poweroff", |config| config.cpus = 2);
    bench.machine.stop();
    assert_eq!(bench.machine.wait(), ExitReason::Stopped);

    // Some pauses at each line of the console: without a rest a slow host would spend its time on them alone.
    let mut bench = boot(guest, "do=poweroff loglevel=6", |config| config.cpus = 2);
    let mut lines = 0;
    while !bench.line().contains("Power down") {
        lines += 1;
        for _ in 0..10 {
            if bench.machine.pause().is_err() || bench.machine.resume().is_err() {
                break;
            }
        }
    }
    assert_eq!(bench.machine.wait(), ExitReason::PowerOff);
    assert!(lines > 10, "{lines}");

    let mut bench = boot(guest, "do=spin", |config| config.cpus = 2);
    bench.expect("PID 1 of 2 CPUs");
    bench.machine.stop();
    assert_eq!(bench.machine.wait(), ExitReason::Stopped);
}

#[test]
fn a_line_typed_at_the_console_reaches_a_process() {
    use std::io::Write;
    let (guest, _alone) = with_linux!();
    let mut bench = boot(guest, "do=echo", |_| ());
    bench.expect("PID 1");
    bench.console.write_all(b"typed\n").unwrap();
    assert_eq!(bench.machine.wait(), ExitReason::PowerOff);
    let console = bench.finish();
    assert!(console.contains("got <typed>"), "{console}");
}

#[test]
fn the_power_button_reaches_the_guest_as_a_key() {
    let (guest, _alone) = with_linux!();
    if !has_modules(guest) {
        return;
    }
    let mut bench = boot(guest, "do=button", |_| ());
    bench.expect("ready for the button");
    bench.machine.press_power_button().unwrap();
    assert_eq!(bench.machine.wait(), ExitReason::PowerOff);
    let console = bench.finish();
    // Type 1 (key), code 116, value 1, behind 16 bytes of time.
    assert!(console.contains(" 1 116 1 0 pressed"), "{console}");
}

#[test]
fn the_entropy_device_is_found_by_its_acpi_entry_and_gives_bytes() {
    let (guest, _alone) = with_linux!();
    if !has_modules(guest) {
        return;
    }
    let bench = boot(guest, "do=rng", |config| config.rng = true);
    assert_eq!(bench.machine.wait(), ExitReason::PowerOff);
    let console = bench.finish();
    assert!(console.contains("\n32\r\n"), "{console}");
}

#[test]
fn a_guest_reads_and_writes_a_folder_that_a_foreign_back_end_serves() {
    let (guest, _alone) = with_linux!();
    if !has_modules(guest) {
        return;
    }
    let Some(daemon) = Virtiofsd::start() else {
        return;
    };
    let given: Vec<u8> = (0..3_000_000_u32)
        .map(|n| (n.wrapping_mul(n) >> 7) as u8)
        .collect();
    std::fs::write(daemon.folder().join("given"), &given).unwrap();
    let bench = boot(guest, "do=share", |config| {
        config.vhost_user = vec![VhostUserConfig {
            peer: VhostUserPeer::Socket(daemon.socket()),
            device_type: FILE_SYSTEM,
            queues: 2,
            queue_size: 128,
        }];
    });
    assert_eq!(bench.machine.wait(), ExitReason::PowerOff);
    let console = bench.finish();
    let taken = std::fs::read(daemon.folder().join("taken"));
    assert!(taken.is_ok_and(|taken| taken == given), "{console}");
}
