//! Why a call to KVM failed: which call it was, on what, and what the kernel answered.

use std::path::PathBuf;

pub use vmm_sys_util::errno::Error as Errno;

/// Failure of an operation on `/dev/kvm`, a virtual machine, a vCPU or guest memory.
///
/// [`Error::call`] names the system call or ioctl and [`Error::errno`] the error number; both
/// hold for checks that this crate makes before the kernel would, too.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The KVM device cannot be opened.
    #[error("KVM device {path} cannot be opened (open)")]
    Open {
        /// The device's path.
        path: PathBuf,
        /// The kernel's answer.
        source: Errno,
    },
    /// The descriptor belongs to something other than the KVM device.
    #[error("Descriptor is {found}, not the KVM device (character device 10:232)")]
    NotKvm {
        /// What the descriptor is.
        found: String,
        /// The call that told: `fstat` or `KVM_GET_API_VERSION`.
        call: &'static str,
        /// The kernel's answer, or `ENODEV` where the kind of file tells already.
        source: Errno,
    },
    /// The kernel speaks another version of the KVM API than the only stable one.
    #[error("KVM API has version {found}, this library needs 12 (KVM_GET_API_VERSION)")]
    ApiVersion {
        /// The version that the kernel speaks.
        found: i32,
    },
    /// A call failed.
    #[error("{call} failed")]
    Call {
        /// Name of the system call or ioctl.
        call: &'static str,
        /// The kernel's answer.
        source: Errno,
    },
    /// The kernel shares a smaller run state than `kvm_run` (an `ENOMEM`).
    #[error(
        "Run state of the vCPU has {mapped} bytes, kvm_run needs {needed} (KVM_GET_VCPU_MMAP_SIZE)"
    )]
    RunStateTooSmall {
        /// Bytes that the kernel shares.
        mapped: usize,
        /// Bytes that `kvm_run` takes.
        needed: usize,
    },
    /// A memory region has an impossible length.
    #[error("Length {length} of a memory region is not a positive multiple of {page_size}")]
    RegionLength {
        /// The length, in bytes.
        length: u64,
        /// Size of the region's pages, in bytes.
        page_size: u64,
    },
    /// A read or write would leave the memory region.
    #[error("{length} bytes at offset {offset} are outside the memory region of {region} bytes")]
    OutOfBounds {
        /// Where the access starts, in bytes from the region's start.
        offset: u64,
        /// Bytes of the access.
        length: u64,
        /// Bytes of the region.
        region: u64,
    },
    /// A memory slot cannot lie at this guest physical address.
    #[error(
        "Guest physical address {address:#x} of memory slot {slot} is not a multiple of the page \
         size, or {length} bytes from there pass the end of the address space"
    )]
    SlotAddress {
        /// The slot's number.
        slot: u32,
        /// Guest physical address.
        address: u64,
        /// Bytes of the region.
        length: u64,
    },
    /// A memory slot would overlap another one.
    #[error(
        "Memory slot {slot} at {address:#x} ({length} bytes) overlaps slot {other} \
         (KVM_SET_USER_MEMORY_REGION)"
    )]
    SlotOverlap {
        /// The slot's number.
        slot: u32,
        /// Guest physical address.
        address: u64,
        /// Bytes of the region.
        length: u64,
        /// A slot in the way.
        other: u32,
        /// The kernel's answer, `EEXIST`.
        source: Errno,
    },
    /// A memory slot cannot be removed because it is not in use.
    #[error("Memory slot {slot} is not in use")]
    SlotUnused {
        /// The slot's number.
        slot: u32,
    },
    /// The kernel handled only some of the model-specific registers.
    #[error("Model-specific register {index:#x} is refused ({call})")]
    Msr {
        /// The first register that was refused.
        index: u32,
        /// Name of the ioctl.
        call: &'static str,
    },
    /// A list has more entries than KVM takes.
    #[error("{count} entries are more than {call} takes")]
    TooManyEntries {
        /// Name of the ioctl.
        call: &'static str,
        /// Entries given.
        count: usize,
    },
    /// An extended state (xsave) buffer is shorter than the kernel would read.
    #[error("Extended state has {found} bytes, KVM_SET_XSAVE reads {needed}")]
    XsaveTooShort {
        /// Bytes given.
        found: usize,
        /// Bytes that the kernel reads.
        needed: usize,
    },
    /// The kernel reported an exit that its own run state contradicts.
    #[error("Run state of the vCPU contradicts itself after KVM_RUN ({what})")]
    RunState {
        /// What is wrong.
        what: &'static str,
    },
    /// Every signal that may be used for it has a handler already, so that none is left to kick
    /// vCPUs with.
    #[error("No signal is free to interrupt vCPUs (sigaction)")]
    NoFreeSignal,
}

impl Error {
    /// Name of the system call or ioctl that failed or would have.
    #[must_use]
    pub fn call(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::NotKvm { call, .. }
            | Self::Call { call, .. }
            | Self::Msr { call, .. }
            | Self::TooManyEntries { call, .. } => call,
            Self::ApiVersion { .. } => "KVM_GET_API_VERSION",
            Self::RunStateTooSmall { .. } => "KVM_GET_VCPU_MMAP_SIZE",
            Self::RegionLength { .. } => "mmap",
            Self::OutOfBounds { .. } => "copy",
            Self::SlotAddress { .. } | Self::SlotOverlap { .. } | Self::SlotUnused { .. } => {
                "KVM_SET_USER_MEMORY_REGION"
            }
            Self::XsaveTooShort { .. } => "KVM_SET_XSAVE",
            Self::RunState { .. } => "KVM_RUN",
            Self::NoFreeSignal => "sigaction",
        }
    }

    /// The error number: the kernel's, or for the checks of this crate the one that fits.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::Open { source, .. }
            | Self::NotKvm { source, .. }
            | Self::Call { source, .. }
            | Self::SlotOverlap { source, .. } => source.errno(),
            Self::ApiVersion { .. } => libc::EPROTO,
            Self::RunStateTooSmall { .. } => libc::ENOMEM,
            Self::OutOfBounds { .. } => libc::EFAULT,
            Self::SlotUnused { .. } => libc::ENOENT,
            Self::TooManyEntries { .. } => libc::E2BIG,
            Self::RunState { .. } => libc::EIO,
            Self::NoFreeSignal => libc::EBUSY,
            Self::RegionLength { .. }
            | Self::SlotAddress { .. }
            | Self::Msr { .. }
            | Self::XsaveTooShort { .. } => libc::EINVAL,
        }
    }

    /// Makes the error of a failed `call`.
    pub(crate) fn of(call: &'static str) -> impl Fn(Errno) -> Self {
        move |source| Self::Call { call, source }
    }
}

/// Repeats `call` while a signal interrupts it.
pub(crate) fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(error) if error.errno() == libc::EINTR => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupted_call_is_repeated_until_it_answers() {
        let mut calls = 0;
        let result = retry(|| {
            calls += 1;
            if calls < 3 {
                Err(Errno::new(libc::EINTR))
            } else {
                Ok(calls)
            }
        });
        assert_eq!(result, Ok(3));
    }

    #[test]
    fn error_names_its_call_and_keeps_the_errno_as_source() {
        let error = Error::of("KVM_CREATE_VM")(Errno::new(libc::ENOMEM));
        assert_eq!(error.to_string(), "KVM_CREATE_VM failed");
        assert_eq!(error.call(), "KVM_CREATE_VM");
        assert_eq!(error.errno(), libc::ENOMEM);
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("Cannot allocate memory"), "{source}");
    }
}
