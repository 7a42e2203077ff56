//! Making machines for tests.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use microvm_vmm::{Machine, MachineConfig};

use super::guest::Code;

/// One test at a time: some compare what the process holds before and after.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether there is a KVM device to use. Says so when there is none.
pub fn has_kvm() -> bool {
    match microvm_kvm::Kvm::open() {
        Ok(_) => true,
        Err(error) => {
            eprintln!("skipped: {error}");
            false
        }
    }
}

pub fn config(kernel: &Path) -> MachineConfig {
    MachineConfig {
        cpus: 1,
        memory_bytes: 32 << 20,
        huge_pages: false,
        kernel: kernel.to_owned(),
        initramfs: None,
        command_line: String::new(),
        vsock: None,
        rng: false,
        vhost_user: Vec::new(),
        console: None,
        kvm_device: None,
    }
}

/// A machine with the host's end of its console.
pub struct Bench {
    pub machine: Machine,
    pub console: UnixStream,
    _folder: tempfile::TempDir,
}

impl Bench {
    /// Built and started.
    pub fn start(code: &Code) -> Self {
        Self::start_with(code, |_| ())
    }

    pub fn start_with(code: &Code, change: impl FnOnce(&mut MachineConfig)) -> Self {
        let bench = Self::build(code, change);
        bench.machine.start().unwrap();
        bench
    }

    pub fn build(code: &Code, change: impl FnOnce(&mut MachineConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (console, machine_end) = UnixStream::pair().unwrap();
        let mut config = config(&code.write(&folder));
        config.console = Some(machine_end.into());
        change(&mut config);
        Self {
            machine: Machine::new(config).unwrap(),
            console,
            _folder: folder,
        }
    }

    /// Waits until the console shows `text` at the end of what came.
    pub fn expect(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(text.as_bytes()) {
            match self.console.read(&mut byte).unwrap() {
                0 => panic!(
                    "console ended without {text:?}: {}",
                    String::from_utf8_lossy(&seen)
                ),
                _ => seen.push(byte[0]),
            }
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// The next line of the console.
    pub fn line(&mut self) -> String {
        self.expect("\n")
    }

    /// Stops the machine and reads the rest of the console.
    pub fn finish(mut self) -> String {
        self.machine.stop();
        let mut rest = String::new();
        self.console.read_to_string(&mut rest).unwrap();
        rest
    }
}
