//! Measures how this host runs guest code: natively, or by emulating it.
//!
//! Some hosts offer a `/dev/kvm` that runs guest user space natively but emulates every
//! instruction of guest ring 0, which makes a stock kernel useless (minutes for a boot, or a
//! hang). Names of modules and CPU flags do not tell; a measurement does: the same counting loop
//! is timed on the host, in guest ring 0 and in guest ring 3. Only the ratios mean something, for
//! the absolute times say nothing under nested emulation.
//!
//! Callers: the binding's `measureGuestSpeed`, behind the accelerator choice and the doctor.

use std::path::Path;
use std::time::{Duration, Instant};

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs, kvm_userspace_memory_region};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::Kvm;

/// Iterations of the loop, two instructions each: about 10 us natively, about 20 ms where every
/// instruction is emulated.
const ITERATIONS: u64 = 20_000;
/// Runs of each loop; the fastest counts, so that a preempted one does not.
const ROUNDS: usize = 3;

const MEMORY_BYTES: usize = 0x1_0000;
const PML4: GuestAddress = GuestAddress(0x1000);
const PDPT: GuestAddress = GuestAddress(0x2000);
const PAGE_DIRECTORY: GuestAddress = GuestAddress(0x3000);
const CODE: GuestAddress = GuestAddress(0x4000);
/// Mapped by the page tables but not backed by a slot: a store there leaves the guest from any
/// ring, which neither `hlt` nor `out` does everywhere.
const EXIT_PAGE: u64 = 0x20_0000;

/// `1: dec rcx; jnz 1b; mov [rbx], al`
const LOOP: [u8; 7] = [0x48, 0xff, 0xc9, 0x75, 0xfb, 0x88, 0x03];

/// Present, writable, user, accessed, dirty.
const TABLE_ENTRY: u64 = 0x67;
/// As [`TABLE_ENTRY`], as one page of 2 MiB.
const LARGE_PAGE: u64 = 0xe7;

/// Why the measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub enum GuestSpeedError {
    /// The KVM device cannot be opened, or is none.
    #[error(transparent)]
    Device(#[from] crate::Error),
    /// A call to KVM failed.
    #[error("{ioctl} failed")]
    Ioctl {
        /// Name of the call.
        ioctl: &'static str,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The test guest's memory cannot be set up.
    #[error("Memory of the test guest cannot be {operation}")]
    Memory {
        /// What was tried.
        operation: &'static str,
    },
    /// The loop ended otherwise than by its store.
    #[error("Test loop in ring {ring} ended by {exit} instead of by its store")]
    UnexpectedExit {
        /// Privilege level that the loop ran at.
        ring: u8,
        /// What KVM reported.
        exit: String,
    },
}

/// How long the same loop took in three places; compare, do not read absolutely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestSpeed {
    /// On the host.
    pub host: Duration,
    /// In guest ring 0, the exit from the guest included.
    pub ring0: Duration,
    /// In guest ring 3, the exit included; `None` where this host cannot run the loop there.
    pub ring3: Option<Duration>,
}

impl GuestSpeed {
    /// How many times slower guest kernel code is than host code: 1 to 10 where it runs
    /// natively, hundreds or thousands where it is emulated.
    #[must_use]
    pub fn ring0_ratio(&self) -> f64 {
        ratio(self.ring0, self.host)
    }

    /// As [`GuestSpeed::ring0_ratio`], for guest user code.
    #[must_use]
    pub fn ring3_ratio(&self) -> Option<f64> {
        self.ring3.map(|ring3| ratio(ring3, self.host))
    }
}

fn ratio(guest: Duration, host: Duration) -> f64 {
    guest.as_secs_f64() / host.as_secs_f64().max(1e-9)
}

/// Measures with a virtual machine of 64 KiB and one vCPU, made for this and gone afterwards.
/// Takes well under a millisecond natively, about 60 ms where ring 0 is emulated.
///
/// # Errors
///
/// Where the device cannot be opened or used, or the loop does not run in ring 0.
pub fn measure_guest_speed(kvm_device: &Path) -> Result<GuestSpeed, GuestSpeedError> {
    let kvm = Kvm::open_path(kvm_device)?;
    let mut guest = TestGuest::new(kvm.fd())?;
    let host = fastest(|| Ok(host_loop(ITERATIONS)))?;
    let ring0 = fastest(|| guest.time_loop(0))?;
    let ring3 = fastest(|| guest.time_loop(3)).ok();
    Ok(GuestSpeed { host, ring0, ring3 })
}

fn fastest(
    mut run: impl FnMut() -> Result<Duration, GuestSpeedError>,
) -> Result<Duration, GuestSpeedError> {
    let mut best = run()?;
    for _ in 1..ROUNDS {
        best = best.min(run()?);
    }
    Ok(best)
}

#[cfg(target_arch = "x86_64")]
fn host_loop(iterations: u64) -> Duration {
    let start = Instant::now();
    // SAFETY: the loop touches its own register and the flags only.
    unsafe {
        std::arch::asm!(
            "2: dec {count}",
            "jnz 2b",
            count = inout(reg) iterations => _,
            options(nomem, nostack)
        );
    }
    start.elapsed()
}

/// The virtual machine that the loop runs in. Fields drop in this order, so the slot's memory
/// outlives the descriptors that refer to it.
struct TestGuest {
    vcpu: VcpuFd,
    reset_state: kvm_sregs,
    _vm: VmFd,
    _memory: GuestMemoryMmap,
}

impl TestGuest {
    fn new(kvm: &kvm_ioctls::Kvm) -> Result<Self, GuestSpeedError> {
        let memory = guest_memory()?;
        let vm = kvm.create_vm().map_err(ioctl("KVM_CREATE_VM"))?;
        let host_address = memory
            .get_host_address(GuestAddress(0))
            .map_err(|_| GuestSpeedError::Memory { operation: "found" })?;
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: MEMORY_BYTES as u64,
            userspace_addr: host_address as u64,
        };
        // SAFETY: the mapping is as long as the slot says and lives in `_memory`, which is
        // dropped after the VM's descriptors.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(ioctl("KVM_SET_USER_MEMORY_REGION"))?;
        let vcpu = vm.create_vcpu(0).map_err(ioctl("KVM_CREATE_VCPU"))?;
        let reset_state = vcpu.get_sregs().map_err(ioctl("KVM_GET_SREGS"))?;
        Ok(Self {
            vcpu,
            reset_state,
            _vm: vm,
            _memory: memory,
        })
    }

    fn time_loop(&mut self, ring: u8) -> Result<Duration, GuestSpeedError> {
        self.vcpu
            .set_sregs(&long_mode(self.reset_state, ring))
            .map_err(ioctl("KVM_SET_SREGS"))?;
        let regs = kvm_regs {
            rip: CODE.raw_value(),
            rcx: ITERATIONS,
            rbx: EXIT_PAGE,
            rflags: 2,
            ..Default::default()
        };
        self.vcpu.set_regs(&regs).map_err(ioctl("KVM_SET_REGS"))?;
        let start = Instant::now();
        loop {
            match self.vcpu.run() {
                Ok(VcpuExit::MmioWrite(EXIT_PAGE, _)) => return Ok(start.elapsed()),
                Ok(VcpuExit::Intr) => {}
                Ok(exit) => {
                    return Err(GuestSpeedError::UnexpectedExit {
                        ring,
                        exit: format!("{exit:?}"),
                    });
                }
                Err(error) if error.errno() == libc::EINTR || error.errno() == libc::EAGAIN => {}
                Err(error) => return Err(ioctl("KVM_RUN")(error)),
            }
        }
    }
}

/// The loop and page tables that map the first 4 MiB one to one, for every ring.
fn guest_memory() -> Result<GuestMemoryMmap, GuestSpeedError> {
    let memory =
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).map_err(|_| {
            GuestSpeedError::Memory {
                operation: "mapped",
            }
        })?;
    let write = |address: GuestAddress, entry: u64| memory.write_obj(entry, address);
    let tables = [
        (PML4, PDPT.raw_value() | TABLE_ENTRY),
        (PDPT, PAGE_DIRECTORY.raw_value() | TABLE_ENTRY),
        (PAGE_DIRECTORY, LARGE_PAGE),
        (
            GuestAddress(PAGE_DIRECTORY.raw_value() + 8),
            EXIT_PAGE | LARGE_PAGE,
        ),
    ];
    for (address, entry) in tables {
        write(address, entry).map_err(|_| GuestSpeedError::Memory {
            operation: "written",
        })?;
    }
    memory
        .write_slice(&LOOP, CODE)
        .map_err(|_| GuestSpeedError::Memory {
            operation: "written",
        })?;
    Ok(memory)
}

/// 64-bit mode at privilege level `ring`, with flat segments and no descriptor tables: the loop
/// raises nothing that would need them.
fn long_mode(reset_state: kvm_sregs, ring: u8) -> kvm_sregs {
    let code = kvm_segment {
        limit: 0xffff_ffff,
        selector: 0x30 | u16::from(ring),
        type_: 11,
        present: 1,
        dpl: ring,
        s: 1,
        l: 1,
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment {
        selector: 0x28 | u16::from(ring),
        type_: 3,
        l: 0,
        db: 1,
        ..code
    };
    kvm_sregs {
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        // Protection, extension type, numeric error, write protection, paging.
        cr0: 0x8001_0031,
        cr3: PML4.raw_value(),
        // Physical address extension.
        cr4: 0x20,
        // Long mode, enabled and active.
        efer: 0x500,
        ..reset_state
    }
}

fn ioctl(name: &'static str) -> impl Fn(kvm_ioctls::Error) -> GuestSpeedError {
    move |error| GuestSpeedError::Ioctl {
        ioctl: name,
        source: std::io::Error::from_raw_os_error(error.errno()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_device_is_told_by_the_handle() {
        let error = measure_guest_speed(Path::new("/nonexistent/kvm")).unwrap_err();
        assert!(matches!(
            error,
            GuestSpeedError::Device(crate::Error::Open { .. })
        ));
    }

    #[test]
    fn another_device_is_refused() {
        let error = measure_guest_speed(Path::new("/dev/null")).unwrap_err();
        assert!(matches!(
            error,
            GuestSpeedError::Device(crate::Error::NotKvm { .. })
        ));
    }
}
