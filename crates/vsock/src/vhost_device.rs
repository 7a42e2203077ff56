//! `/dev/vhost-vsock` and the context ID that a guest has on it.
//!
//! All guests of a host share the context IDs that its kernel knows, whoever runs them. So one is
//! taken first, with the device that holds it; whoever runs the guest gets the open device then.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use vhost::vhost_kern::vhost_binding::VHOST_VSOCK_SET_GUEST_CID;
use vmm_sys_util::ioctl::ioctl_with_ref;

/// The least context ID of a guest: hypervisor, loopback and host are below (vsock(7)).
pub const FIRST_GUEST_CID: u32 = 3;
/// The greatest: the one above stands for "any".
pub const LAST_GUEST_CID: u32 = u32::MAX - 1;
/// How many guest context IDs there are.
const GUEST_CIDS: u32 = LAST_GUEST_CID - FIRST_GUEST_CID + 1;
/// How many are tried before a host counts as full: it takes no more devices long before.
const ATTEMPTS: u32 = 1 << 16;

/// Why there is no device with a context ID.
#[derive(Debug, thiserror::Error)]
pub enum VhostVsockError {
    /// There is no such device, or no driver behind it.
    #[error("There is no {}", path.display())]
    Missing {
        /// The device.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// This user, or this container, may not open it.
    #[error("{} may not be opened", path.display())]
    Permission {
        /// The device.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// It cannot be opened for another reason.
    #[error("{} cannot be opened", path.display())]
    Open {
        /// The device.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The context ID is reserved.
    #[error("Guest CID {0} is not usable: it must be between 3 and 4294967294")]
    Reserved(u32),
    /// Another guest of this host has the context ID.
    #[error("Guest CID {0} is taken by another machine")]
    Taken(u32),
    /// The device refused the context ID for another reason.
    #[error("{} refuses the guest CID {cid}", path.display())]
    Refused {
        /// The device.
        path: PathBuf,
        /// The context ID.
        cid: u32,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// An open device with a context ID, which is free again when every copy of it is closed.
#[derive(Debug)]
pub struct VhostVsock {
    device: OwnedFd,
    cid: u32,
}

impl VhostVsock {
    /// Opens the device and takes a context ID: `cid`, or else one that is free. Those that this
    /// process takes follow one another from a random place, so that an old guest's is not soon
    /// another one's.
    ///
    /// # Errors
    ///
    /// Where the device cannot be opened, or the context ID is reserved or taken.
    pub fn open(path: &Path, cid: Option<u32>) -> Result<Self, VhostVsockError> {
        if let Some(cid) = cid
            && !(FIRST_GUEST_CID..=LAST_GUEST_CID).contains(&cid)
        {
            return Err(VhostVsockError::Reserved(cid));
        }
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|source| not_opened(path, source))?;
        let cid = take_cid(path, cid, |cid| set_guest_cid(&device, cid))?;
        let device = OwnedFd::from(device);
        Ok(Self { device, cid })
    }

    /// The guest's context ID.
    #[must_use]
    pub fn cid(&self) -> u32 {
        self.cid
    }
}

impl AsFd for VhostVsock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

fn not_opened(path: &Path, source: io::Error) -> VhostVsockError {
    let path = path.to_owned();
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR | libc::ENODEV | libc::ENXIO) => {
            VhostVsockError::Missing { path, source }
        }
        Some(libc::EACCES | libc::EPERM) => VhostVsockError::Permission { path, source },
        _ => VhostVsockError::Open { path, source },
    }
}

/// Takes the context ID that is wished for, or the first free one.
fn take_cid(
    path: &Path,
    wish: Option<u32>,
    mut set: impl FnMut(u32) -> io::Result<()>,
) -> Result<u32, VhostVsockError> {
    let attempts = if wish.is_some() { 1 } else { ATTEMPTS };
    let mut last = FIRST_GUEST_CID;
    for _ in 0..attempts {
        let cid = wish.unwrap_or_else(next_cid);
        match set(cid) {
            Ok(()) => return Ok(cid),
            Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => last = cid,
            Err(source) => {
                let path = path.to_owned();
                return Err(VhostVsockError::Refused { path, cid, source });
            }
        }
    }
    Err(VhostVsockError::Taken(last))
}

/// The next context ID to try in this process.
fn next_cid() -> u32 {
    static NEXT: OnceLock<AtomicU32> = OnceLock::new();
    let next = NEXT.get_or_init(|| {
        // Its keys are random; a low half as good as any.
        let random = RandomState::new().build_hasher().finish();
        AtomicU32::new(
            (random & u64::from(u32::MAX))
                .try_into()
                .unwrap_or_default(),
        )
    });
    cid_at(next.fetch_add(1, Ordering::Relaxed))
}

/// The context IDs of guests, in a circle.
fn cid_at(place: u32) -> u32 {
    FIRST_GUEST_CID + place % GUEST_CIDS
}

fn set_guest_cid(device: &File, cid: u32) -> io::Result<()> {
    let cid = u64::from(cid);
    // SAFETY: the call reads eight bytes, which `cid` has, and keeps no pointer. A device of
    // another kind does not know the number, and answers ENOTTY.
    let answer = unsafe { ioctl_with_ref(device, VHOST_VSOCK_SET_GUEST_CID(), &cid) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const DEVICE: &str = "/dev/vhost-vsock";

    fn refusal(code: i32) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(code))
    }

    #[test]
    fn a_device_that_is_not_there_is_told_from_one_that_may_not_be_opened() {
        let missing = VhostVsock::open(Path::new("/nowhere/vhost-vsock"), None).unwrap_err();
        assert!(matches!(missing, VhostVsockError::Missing { .. }));
        for (code, want) in [
            (libc::EPERM, true),
            (libc::EACCES, true),
            (libc::EIO, false),
        ] {
            let error = not_opened(Path::new(DEVICE), io::Error::from_raw_os_error(code));
            let is_permission = matches!(error, VhostVsockError::Permission { .. });
            assert_eq!(is_permission, want, "{error}");
        }
    }

    #[test]
    fn a_file_of_another_kind_refuses_the_context_id() {
        let error = VhostVsock::open(Path::new("/dev/null"), Some(7)).unwrap_err();
        let VhostVsockError::Refused { cid: 7, source, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(source.raw_os_error(), Some(libc::ENOTTY));
    }

    #[test]
    fn reserved_context_ids_are_refused_before_the_device_is_opened() {
        for cid in [0, 1, 2, u32::MAX] {
            let error = VhostVsock::open(Path::new("/nowhere"), Some(cid)).unwrap_err();
            assert!(matches!(error, VhostVsockError::Reserved(told) if told == cid));
        }
    }

    #[test]
    fn a_context_id_that_was_asked_for_is_taken_or_nothing() {
        let path = Path::new(DEVICE);
        assert_eq!(take_cid(path, Some(9), |_| Ok(())).unwrap(), 9);
        let mut tried = Vec::new();
        let error = take_cid(path, Some(9), |cid| {
            tried.push(cid);
            refusal(libc::EADDRINUSE)
        });
        assert!(matches!(error, Err(VhostVsockError::Taken(9))));
        assert_eq!(tried, [9]);
    }

    #[test]
    fn the_search_ends_where_everything_is_taken() {
        let path = Path::new(DEVICE);
        let error = take_cid(path, None, |_| refusal(libc::EADDRINUSE));
        assert!(matches!(error, Err(VhostVsockError::Taken(_))));
        let mut tries = 0;
        let error = take_cid(path, None, |_| {
            tries += 1;
            refusal(libc::EPERM)
        });
        assert!(matches!(error, Err(VhostVsockError::Refused { .. })));
        assert_eq!(tries, 1, "another refusal than a taken one is final");
    }

    proptest! {
        #[test]
        fn every_place_of_the_circle_is_a_guest(place: u32) {
            prop_assert!((FIRST_GUEST_CID..=LAST_GUEST_CID).contains(&cid_at(place)));
        }

        /// Whatever is taken, machines get context IDs that are free, each its own.
        #[test]
        fn guests_never_share_a_context_id(machines in 1usize..40, pattern: u64) {
            let mut taken = HashSet::new();
            for _ in 0..machines {
                let cid = take_cid(Path::new(DEVICE), None, |cid| {
                    // Others have some of them.
                    let is_others = pattern & 1 << (cid % 64) != 0 && cid % 64 != 5;
                    if is_others || taken.contains(&cid) {
                        return refusal(libc::EADDRINUSE);
                    }
                    Ok(())
                })
                .unwrap();
                prop_assert!(taken.insert(cid));
            }
        }
    }
}
