//! The KVM subsystem of the kernel: where every virtual machine starts.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::OnceLock;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, MsrList};

use crate::error::{Errno, Error, retry};
use crate::virtual_machine::VirtualMachine;

/// Where the KVM device is found unless told otherwise.
pub const DEFAULT_DEVICE: &str = "/dev/kvm";

/// The only version of the KVM API that programs may rely on.
const API_VERSION: i32 = 12;
/// Device number of the KVM device: major 10 (misc), minor 232.
const DEVICE_NUMBER: (u32, u32) = (10, 232);

/// The KVM subsystem.
///
/// ```no_run
/// let kvm = microvm_kvm::Kvm::open()?;
/// let vm = kvm.create_vm()?;
/// # Ok::<(), microvm_kvm::Error>(())
/// ```
#[derive(Debug)]
pub struct Kvm {
    fd: kvm_ioctls::Kvm,
}

impl Kvm {
    /// Opens `/dev/kvm`; the descriptor closes on exec.
    ///
    /// # Errors
    ///
    /// Where the device is missing or may not be opened, is not the KVM device, or speaks another
    /// version of the API.
    pub fn open() -> Result<Self, Error> {
        Self::open_path(DEFAULT_DEVICE)
    }

    /// As [`Kvm::open`], for a KVM device node elsewhere.
    ///
    /// # Errors
    ///
    /// As [`Kvm::open`].
    pub fn open_path(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let refused = |source| Error::Open {
            path: path.to_owned(),
            source,
        };
        let name = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| refused(Errno::new(libc::EINVAL)))?;
        let raw = retry(|| kvm_ioctls::Kvm::open_with_cloexec_at(&name, true)).map_err(refused)?;
        // SAFETY: the call above made this descriptor and handed it to nobody else.
        Self::from_owned_fd(unsafe { OwnedFd::from_raw_fd(raw) })
    }

    /// Takes over an open descriptor of the KVM device, and makes it close on exec.
    ///
    /// The device is known by its number (10:232). A character device of another number is asked
    /// for its API version; anything else is refused without an ioctl, for the numbers of KVM's
    /// ioctls may mean something harmful there.
    ///
    /// # Errors
    ///
    /// Where the descriptor is not the KVM device, or the API has another version. The descriptor
    /// is closed then.
    pub fn from_owned_fd(fd: OwnedFd) -> Result<Self, Error> {
        let file = File::from(fd);
        let known = identify(&file)?;
        set_close_on_exec(&file)?;
        // SAFETY: `file` owned the descriptor and gave it up; it is a character device that is
        // KVM's by number, or is asked next, before anything else, whether it is.
        let fd = unsafe { kvm_ioctls::Kvm::from_raw_fd(OwnedFd::from(file).into_raw_fd()) };
        match fd.get_api_version() {
            API_VERSION => Ok(Self { fd }),
            found if found >= 0 && known => Err(Error::ApiVersion { found }),
            found => Err(Error::NotKvm {
                found: "another character device".to_owned(),
                call: "KVM_GET_API_VERSION",
                source: if found < 0 {
                    Errno::last()
                } else {
                    Errno::new(libc::ENODEV)
                },
            }),
        }
    }

    /// Version of the KVM API; always 12, for nothing else can be opened.
    #[must_use]
    pub fn api_version(&self) -> i32 {
        self.fd.get_api_version()
    }

    /// Asks for an extension by its `KVM_CAP_` number. 0: not supported; otherwise supported, and
    /// for some extensions the value says more (a limit, a size, a set of bits).
    ///
    /// # Errors
    ///
    /// Where `KVM_CHECK_EXTENSION` fails; an unknown number is 0, not an error.
    pub fn check_extension(&self, extension: i32) -> Result<i32, Error> {
        check_extension(extension, |number| self.fd.check_extension_raw(number))
    }

    /// Creates a virtual machine without memory and vCPUs.
    ///
    /// # Errors
    ///
    /// Where `KVM_CREATE_VM` fails.
    pub fn create_vm(&self) -> Result<VirtualMachine, Error> {
        let fd = retry(|| self.fd.create_vm()).map_err(Error::of("KVM_CREATE_VM"))?;
        Ok(VirtualMachine::new(fd))
    }

    /// Bytes that kernel and process share for each vCPU: `kvm_run` and what follows it.
    ///
    /// # Errors
    ///
    /// Where `KVM_GET_VCPU_MMAP_SIZE` fails.
    pub fn vcpu_mmap_size(&self) -> Result<usize, Error> {
        retry(|| self.fd.get_vcpu_mmap_size()).map_err(Error::of("KVM_GET_VCPU_MMAP_SIZE"))
    }

    /// The CPUID that this host's KVM can give guests. Asked once per process: the call takes
    /// long.
    ///
    /// # Errors
    ///
    /// Where `KVM_GET_SUPPORTED_CPUID` fails; the next call asks again then.
    pub fn supported_cpuid(&self) -> Result<&'static CpuId, Error> {
        static SUPPORTED: OnceLock<CpuId> = OnceLock::new();
        if let Some(cpuid) = SUPPORTED.get() {
            return Ok(cpuid);
        }
        let cpuid = retry(|| self.fd.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES))
            .map_err(Error::of("KVM_GET_SUPPORTED_CPUID"))?;
        Ok(SUPPORTED.get_or_init(|| cpuid))
    }

    /// Numbers of the model-specific registers that this host's KVM saves and restores.
    ///
    /// # Errors
    ///
    /// Where `KVM_GET_MSR_INDEX_LIST` fails.
    pub fn msr_index_list(&self) -> Result<MsrList, Error> {
        retry(|| self.fd.get_msr_index_list()).map_err(Error::of("KVM_GET_MSR_INDEX_LIST"))
    }

    /// The handle below, for ioctls that this crate does not wrap.
    #[must_use]
    pub fn fd(&self) -> &kvm_ioctls::Kvm {
        &self.fd
    }
}

impl AsFd for Kvm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor stays open as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.fd.as_raw_fd()) }
    }
}

/// `KVM_CHECK_EXTENSION` on the KVM device or on a virtual machine.
pub(crate) fn check_extension(extension: i32, ask: impl Fn(u64) -> i32) -> Result<i32, Error> {
    // No extension has a negative number; the kernel would read one as a huge number.
    let Ok(number) = u64::try_from(extension) else {
        return Ok(0);
    };
    retry(|| match ask(number) {
        value if value >= 0 => Ok(value),
        _ => Err(Errno::last()),
    })
    .map_err(Error::of("KVM_CHECK_EXTENSION"))
}

/// Whether the file is the KVM device by its number (`true`) or might be one (`false`); an error
/// where it cannot be.
fn identify(file: &File) -> Result<bool, Error> {
    let metadata = file.metadata().map_err(|error| Error::Call {
        call: "fstat",
        source: Errno::from(error),
    })?;
    let kind = metadata.file_type();
    if !kind.is_char_device() {
        let found = if kind.is_file() {
            "a regular file"
        } else if kind.is_dir() {
            "a directory"
        } else if kind.is_socket() {
            "a socket"
        } else if kind.is_fifo() {
            "a pipe"
        } else if kind.is_block_device() {
            "a block device"
        } else {
            "no device"
        };
        return Err(Error::NotKvm {
            found: found.to_owned(),
            call: "fstat",
            source: Errno::new(libc::ENODEV),
        });
    }
    let number = metadata.rdev();
    Ok((libc::major(number), libc::minor(number)) == DEVICE_NUMBER)
}

fn set_close_on_exec(file: &File) -> Result<(), Error> {
    // SAFETY: `F_SETFD` takes an integer and touches no memory; the descriptor is open.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
    if result < 0 {
        return Err(Error::of("fcntl")(Errno::last()));
    }
    Ok(())
}
