//! Interfaces of the kernel that a configuration, a seccomp filter or a container may withhold:
//! only trying tells.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{AddressFamily, SocketType, socket};

use crate::HostError;

/// An interface that can be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// `userfaultfd` that also sees faults of the kernel, as those of a guest are.
    UserFaultFd,
    /// `io_uring_setup`
    IoUring,
    /// `memfd_create` with huge pages of the default size. None is taken yet.
    HugeMemfd,
    /// Landlock; the answer is the version of its ABI.
    Landlock,
    /// Sockets of the family `AF_VSOCK`.
    VsockSocket,
}

impl Interface {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::UserFaultFd,
        Self::IoUring,
        Self::HugeMemfd,
        Self::Landlock,
        Self::VsockSocket,
    ];

    /// The name that the caller knows it by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UserFaultFd => "userfaultfd",
            Self::IoUring => "io_uring",
            Self::HugeMemfd => "memfd_hugetlb",
            Self::Landlock => "landlock",
            Self::VsockSocket => "af_vsock",
        }
    }
}

/// `LANDLOCK_CREATE_RULESET_VERSION` of linux/landlock.h
const LANDLOCK_VERSION: libc::c_uint = 1;
/// Bytes of `struct io_uring_params`
const RING_PARAMETERS: usize = 120;
/// `VHOST_VSOCK_SET_GUEST_CID`, `_IOW(0xAF, 0x60, __u64)` of linux/vhost.h
const SET_GUEST_CID: u64 = 0x4008_AF60;

/// Tries an interface and lets go of what it gave. The answer is 0, or what the interface says of
/// itself.
///
/// # Errors
///
/// With the kernel's refusal.
pub fn try_interface(interface: Interface) -> Result<u32, HostError> {
    let refused = HostError::of(interface.name());
    match interface {
        Interface::UserFaultFd => {
            // SAFETY: the call takes flags alone, and touches no memory of ours.
            let answer = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
            close_descriptor(answer).map_err(refused)
        }
        Interface::IoUring => {
            // Aligned as the structure, whose longest fields have eight bytes.
            let mut parameters = [0_u64; RING_PARAMETERS / 8];
            let entries: libc::c_uint = 1;
            // SAFETY: `parameters` has the size of the structure that the kernel reads and
            // writes, all zero, which asks for nothing special.
            let answer = unsafe {
                libc::syscall(libc::SYS_io_uring_setup, entries, parameters.as_mut_ptr())
            };
            close_descriptor(answer).map_err(refused)
        }
        Interface::HugeMemfd => {
            memfd_create("microvm-doctor", MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB)
                .map_err(HostError::of(interface.name()))?;
            Ok(0)
        }
        Interface::Landlock => {
            let size: libc::size_t = 0;
            let none = std::ptr::null::<libc::c_void>();
            // SAFETY: with this flag the kernel reads no attributes, and wants a null pointer.
            let answer = unsafe {
                libc::syscall(
                    libc::SYS_landlock_create_ruleset,
                    none,
                    size,
                    LANDLOCK_VERSION,
                )
            };
            u32::try_from(answer).map_err(|_| refused(io::Error::last_os_error()))
        }
        Interface::VsockSocket => {
            socket(AddressFamily::VSOCK, SocketType::STREAM, None)
                .map_err(HostError::of(interface.name()))?;
            Ok(0)
        }
    }
}

/// Takes a context ID on a vhost-vsock device and gives it back.
///
/// # Errors
///
/// With the kernel's refusal: `EADDRINUSE` where another machine has the context ID.
pub fn try_vsock_cid(device: &Path, cid: u64) -> Result<(), HostError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(device)
        .map_err(HostError::of("open"))?;
    // SAFETY: the call reads eight bytes, which `cid` has, and keeps no pointer. A device of
    // another kind does not know the number, and answers ENOTTY.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), SET_GUEST_CID as _, &raw const cid) };
    if answer < 0 {
        return Err(HostError::of("VHOST_VSOCK_SET_GUEST_CID")(
            io::Error::last_os_error(),
        ));
    }
    Ok(())
}

/// Closes the descriptor that a system call has just made, or tells why it made none.
fn close_descriptor(answer: libc::c_long) -> Result<u32, io::Error> {
    match RawFd::try_from(answer) {
        Ok(fd) if fd >= 0 => {
            // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
            Ok(0)
        }
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn descriptors() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    #[test]
    fn trying_leaves_no_descriptor_and_refusals_have_an_errno() {
        let before = descriptors();
        for interface in Interface::ALL {
            if let Err(HostError::Refused { call, source }) = try_interface(interface) {
                assert_eq!(call, interface.name());
                assert!(source.raw_os_error().is_some());
            }
        }
        assert_eq!(descriptors(), before);
    }

    #[test]
    fn a_device_of_another_kind_knows_no_context_ids() {
        let error = try_vsock_cid(Path::new("/dev/null"), 3).unwrap_err();
        assert!(matches!(
            error,
            HostError::Refused { call: "VHOST_VSOCK_SET_GUEST_CID", source }
                if source.raw_os_error() == Some(libc::ENOTTY)
        ));
    }
}
