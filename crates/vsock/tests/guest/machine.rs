//! One emulated machine with the device, its kernel and its PID 1.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use microvm_vsock::{HostEnd, VhostUserHost, VsockConfig, VsockDevice};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tempfile::TempDir;

/// An emulated boot takes seconds, on a busy machine tens of them.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the driver needs, in the order of their dependencies.
const MODULES: [&str; 8] = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "net/vmw_vsock/vsock",
    "net/vmw_vsock/vmw_vsock_virtio_transport_common",
    "net/vmw_vsock/vmw_vsock_virtio_transport",
];

pub struct Machine {
    qemu: Child,
    host: VhostUserHost,
    orders: BufReader<UnixStream>,
    folder: TempDir,
}

impl Machine {
    /// Boots; the reason where this host cannot.
    pub fn start() -> Result<Self, String> {
        let kernel = Kernel::find()?;
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let at = |name: &str| folder.path().join(name);
        let initramfs = at("initramfs");
        let init = compile_init(folder.path())?;
        std::fs::write(&initramfs, kernel.initramfs(&init)?).map_err(|error| error.to_string())?;

        let listener = UnixListener::bind(at("vsock_7001")).unwrap();
        let device = VsockDevice::new(VsockConfig {
            guest_cid: 77,
            socket: at("vsock"),
        })
        .unwrap();
        let host = VhostUserHost::serve(device, &at("vhost-user")).unwrap();
        let start = Instant::now();
        let qemu = Command::new("qemu-system-x86_64")
            .args(["-M", "q35", "-accel", "tcg", "-m", "256M", "-nodefaults"])
            .args(["-no-user-config", "-no-reboot", "-display", "none"])
            .args([
                "-object",
                "memory-backend-memfd,id=mem,size=256M,share=on",
                "-numa",
                "node,memdev=mem",
            ])
            .arg("-chardev")
            .arg(format!(
                "socket,id=vsock,path={}",
                at("vhost-user").display()
            ))
            .args(["-device", "vhost-user-vsock-pci,chardev=vsock"])
            .args(["-serial", "stdio"])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(&initramfs)
            .args(["-append", "console=ttyS0 quiet panic=-1 cryptomgr.notests"])
            .stdin(Stdio::null())
            .stdout(Stdio::inherit())
            .spawn()
            .map_err(|error| format!("qemu-system-x86_64 does not start: {error}"))?;
        let stream = accept_in_time(&listener, &qemu);
        let mut machine = Self {
            qemu,
            host,
            orders: BufReader::new(stream),
            folder,
        };
        assert_eq!(machine.answer(), "ready");
        eprintln!("The guest is ready after {:?}", start.elapsed());
        Ok(machine)
    }

    /// Connects to a guest port; `None` where nobody listens.
    pub fn dial(&self, port: u32) -> Option<UnixStream> {
        let mut stream = UnixStream::connect(self.folder.path().join("vsock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        writeln!(stream, "CONNECT {port}").unwrap();
        let mut line = Vec::new();
        let mut byte = [0];
        while line.last() != Some(&b'\n') {
            if stream.read(&mut byte).unwrap() == 0 {
                assert_eq!(line, b"");
                return None;
            }
            line.push(byte[0]);
        }
        assert!(line.starts_with(b"OK "));
        Some(stream)
    }

    /// Listens for the guest's connections to `port`.
    pub fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.folder.path().join(format!("vsock_{port}"))).unwrap()
    }

    /// Has PID 1 do something, and waits for its answer.
    pub fn order(&mut self, order: &str) -> String {
        self.start_order(order);
        self.answer()
    }

    pub fn start_order(&mut self, order: &str) {
        writeln!(self.orders.get_mut(), "{order}").unwrap();
    }

    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        self.orders.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Ends the guest in good order: QEMU exits, and the host with it.
    pub fn power_off(self) {
        let Self {
            mut qemu,
            host,
            orders,
            folder,
        } = self;
        drop(orders);
        assert!(qemu.wait().unwrap().success());
        assert_eq!(host.wait(), HostEnd::FrontEndGone);
        drop(host);
        assert!(!folder.path().join("vsock").exists());
        assert!(!folder.path().join("vhost-user").exists());
    }
}

/// Accepts one connection, or fails the test run when the guest does not come.
fn accept_in_time(listener: &UnixListener, qemu: &Child) -> UnixStream {
    let id = Pid::from_child(qemu);
    let ended = pidfd_open(id, PidfdFlags::empty()).unwrap();
    let timeout = Timespec::try_from(PATIENCE).unwrap();
    let mut sources = [
        PollFd::new(listener, PollFlags::IN),
        PollFd::new(&ended, PollFlags::IN),
    ];
    poll(&mut sources, Some(&timeout)).unwrap();
    assert!(
        sources[0].revents().contains(PollFlags::IN),
        "The guest did not connect"
    );
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

struct Kernel {
    image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    fn find() -> Result<Self, String> {
        let cache = std::env::var_os("MICROVM_CACHE").map_or_else(
            || {
                let home = std::env::var_os("HOME").unwrap_or_default();
                let cache = std::env::var_os("XDG_CACHE_HOME")
                    .map_or_else(|| Path::new(&home).join(".cache"), PathBuf::from);
                cache.join("microvm")
            },
            PathBuf::from,
        );
        let guest = cache.join("guest/current");
        let image = guest.join("vmlinuz");
        if !image.exists() {
            return Err(format!("there is no kernel at {}", image.display()));
        }
        let release = std::fs::read_dir(guest.join("modules"))
            .ok()
            .and_then(|mut entries| entries.next())
            .ok_or_else(|| format!("there are no modules under {}", guest.display()))?
            .map_err(|error| error.to_string())?;
        Ok(Self {
            image,
            modules: release.path().join("kernel"),
        })
    }

    /// An initramfs of the modules, in order, and `init`.
    fn initramfs(&self, init: &[u8]) -> Result<Vec<u8>, String> {
        let mut archive = Vec::new();
        add_entry(&mut archive, "dev", 0o040_755, &[], (0, 0));
        add_entry(&mut archive, "dev/console", 0o020_600, &[], (5, 1));
        add_entry(&mut archive, "modules", 0o040_755, &[], (0, 0));
        for (index, module) in MODULES.iter().enumerate() {
            let path = self.modules.join(format!("{module}.ko"));
            let bytes = std::fs::read(&path)
                .map_err(|error| format!("no module {}: {error}", path.display()))?;
            let name = format!("modules/{index:02}.ko");
            add_entry(&mut archive, &name, 0o100_644, &bytes, (0, 0));
        }
        add_entry(&mut archive, "init", 0o100_755, init, (0, 0));
        add_entry(&mut archive, "TRAILER!!!", 0, &[], (0, 0));
        Ok(archive)
    }
}

/// Adds an entry in the `newc` format.
fn add_entry(archive: &mut Vec<u8>, name: &str, mode: u32, bytes: &[u8], device: (u32, u32)) {
    let fields = [
        archive.len() as u32 + 1,
        mode,
        0,
        0,
        1,
        0,
        bytes.len() as u32,
        0,
        0,
        device.0,
        device.1,
        name.len() as u32 + 1,
        0,
    ];
    archive.extend(b"070701");
    for field in fields {
        archive.extend(format!("{field:08x}").bytes());
    }
    archive.extend(name.bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(bytes);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

/// Builds the guest's PID 1, a static executable.
fn compile_init(folder: &Path) -> Result<Vec<u8>, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/init.rs");
    let executable = folder.join("init");
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let status = Command::new(compiler)
        .args(["--edition", "2024", "-C", "target-feature=+crt-static"])
        .args(["-C", "opt-level=2", "-C", "strip=symbols", "-o"])
        .arg(&executable)
        .arg(source)
        .status()
        .map_err(|error| format!("rustc does not start: {error}"))?;
    if !status.success() {
        return Err("rustc cannot build a static executable".to_owned());
    }
    std::fs::read(executable).map_err(|error| error.to_string())
}
