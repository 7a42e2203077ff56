//! Capabilities of the calling thread (capabilities(7)), for us and for crate `virtiofsd`.
//!
//! That crate reaches them through crate `capng`, which wants the C library libcap-ng (LGPL). The few functions of it
//! that are called are at the end of this file, by their C names; `build.rs` gives the linker an empty library where
//! it looks for the real one. So nothing has to be installed, linked or relicensed.
//!
//! The kernel keeps capabilities by thread, and so do these functions: what one thread prepares, no other applies.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::io;
use std::ptr;

/// Names without `CAP_`, by number (`linux/capability.h`).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
const SETPCAP: Capability = Capability(8);

/// A capability, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability(u8);

impl Capability {
    /// Its name without `CAP_`.
    #[cfg(test)]
    pub fn name(&self) -> String {
        NAMES[usize::from(self.0)].to_owned()
    }

    fn bit(self) -> u64 {
        1 << self.0
    }
}

/// The capability of a name without `CAP_`, in capital letters.
pub fn by_name(name: &str) -> Option<Capability> {
    let number = NAMES.iter().position(|known| *known == name)?;
    u8::try_from(number).ok().map(Capability)
}

/// Leaves this thread, and all that it starts, at most `kept`. Of `kept`, those in `required` must be there; others
/// that the process lacks, as in a container, are done without.
pub fn keep_only(kept: &BTreeSet<Capability>, required: &BTreeSet<Capability>) -> io::Result<()> {
    let sum = |set: &BTreeSet<Capability>| set.iter().fold(0, |sum, one| sum | one.bit());
    let now = Sets::of_thread()?;
    let kept = sum(kept) & now.permitted;
    if sum(required) & !now.permitted != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    drop_bounds(0, &now)?;
    let wanted = Sets {
        effective: kept,
        permitted: kept,
        inheritable: 0,
    };
    wanted.apply()
}

/// The three sets that capget(2) and capset(2) handle, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sets {
    effective: u64,
    permitted: u64,
    inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`, of the calling thread.
static OF_THREAD: Header = Header {
    version: 0x2008_0522,
    pid: 0,
};

impl Sets {
    fn of_thread() -> io::Result<Self> {
        let mut halves = [Half::default(); 2];
        // SAFETY: version 3 has two halves, which the kernel fills in.
        let result =
            unsafe { libc::syscall(libc::SYS_capget, &raw const OF_THREAD, halves.as_mut_ptr()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let [low, high] = halves;
        let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        Ok(Self {
            effective: join(low.effective, high.effective),
            permitted: join(low.permitted, high.permitted),
            inheritable: join(low.inheritable, high.inheritable),
        })
    }

    fn apply(&self) -> io::Result<()> {
        let half = |shift: u32| {
            #[expect(clippy::cast_possible_truncation, reason = "one half of 64 bits")]
            let part = |set: u64| (set >> shift) as u32;
            Half {
                effective: part(self.effective),
                permitted: part(self.permitted),
                inheritable: part(self.inheritable),
            }
        };
        let halves = [half(0), half(32)];
        // SAFETY: version 3 has two halves, which the kernel reads.
        let result =
            unsafe { libc::syscall(libc::SYS_capset, &raw const OF_THREAD, halves.as_ptr()) };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Takes all but `kept` out of the bounding set, where this thread may.
fn drop_bounds(kept: u64, now: &Sets) -> io::Result<()> {
    if now.effective & SETPCAP.bit() == 0 {
        return Ok(());
    }
    for number in 0..64 {
        if kept & (1 << number) != 0 {
            continue;
        }
        // SAFETY: takes numbers only.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
        if result != 0 {
            let error = io::Error::last_os_error();
            // The first number that this kernel has no capability for.
            return match error.raw_os_error() {
                Some(libc::EINVAL) => Ok(()),
                _ => Err(error),
            };
        }
    }
    Ok(())
}

/// What a thread has prepared by the functions below.
#[derive(Clone, Copy, Debug, Default)]
struct Prepared {
    sets: Sets,
    bounds: u64,
}

thread_local! {
    static PREPARED: RefCell<Option<Prepared>> = const { RefCell::new(None) };
}

/// Changes what this thread has prepared, which begins as what it has.
fn prepare(change: impl FnOnce(&mut Prepared)) -> io::Result<()> {
    PREPARED.with_borrow_mut(|prepared| {
        let mut value = match *prepared {
            Some(value) => value,
            None => Prepared {
                sets: Sets::of_thread()?,
                bounds: u64::MAX,
            },
        };
        change(&mut value);
        *prepared = Some(value);
        Ok(())
    })
}

fn status(result: io::Result<()>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(_) => -1,
    }
}

const EFFECTIVE: c_uint = 1;
const PERMITTED: c_uint = 2;
const INHERITABLE: c_uint = 4;
const BOUNDING_SET: c_uint = 8;
const SELECT_CAPS: c_uint = 16;
const SELECT_BOUNDS: c_uint = 32;
const ADD: c_uint = 1;

/// capng_clear(3)
#[unsafe(no_mangle)]
pub extern "C" fn capng_clear(select: c_uint) {
    // Nothing is left of what could not be read.
    let _ = prepare(|prepared| {
        if select & SELECT_CAPS != 0 {
            prepared.sets = Sets::default();
        }
        if select & SELECT_BOUNDS != 0 {
            prepared.bounds = 0;
        }
    });
}

/// capng_get_caps_process(3)
#[unsafe(no_mangle)]
pub extern "C" fn capng_get_caps_process() -> c_int {
    PREPARED.with_borrow_mut(|prepared| *prepared = None);
    status(prepare(|_| {}))
}

/// capng_update(3)
#[unsafe(no_mangle)]
pub extern "C" fn capng_update(action: c_uint, which: c_uint, capability: c_uint) -> c_int {
    let Some(bit) = 1u64.checked_shl(capability) else {
        return -1;
    };
    status(prepare(|prepared| {
        let Prepared { sets, bounds } = prepared;
        for (kind, set) in [
            (EFFECTIVE, &mut sets.effective),
            (PERMITTED, &mut sets.permitted),
            (INHERITABLE, &mut sets.inheritable),
            (BOUNDING_SET, bounds),
        ] {
            if which & kind == 0 {
                continue;
            }
            match action {
                ADD => *set |= bit,
                _ => *set &= !bit,
            }
        }
    }))
}

/// capng_apply(3)
#[unsafe(no_mangle)]
pub extern "C" fn capng_apply(select: c_uint) -> c_int {
    let Some(prepared) = PREPARED.with_borrow(|prepared| *prepared) else {
        return -1;
    };
    status((|| {
        if select & SELECT_BOUNDS != 0 {
            drop_bounds(prepared.bounds, &Sets::of_thread()?)?;
        }
        if select & SELECT_CAPS != 0 {
            prepared.sets.apply()?;
        }
        Ok(())
    })())
}

/// capng_have_capability(3), but always of the kernel's present answer: it changes with the user of the thread, and a
/// remembered one would have the file-system layer keep capabilities that it means to drop.
#[unsafe(no_mangle)]
pub extern "C" fn capng_have_capability(which: c_uint, capability: c_uint) -> c_int {
    if capng_get_caps_process() != 0 {
        return 0;
    }
    let Some(prepared) = PREPARED.with_borrow(|prepared| *prepared) else {
        return 0;
    };
    let set = match which {
        EFFECTIVE => prepared.sets.effective,
        PERMITTED => prepared.sets.permitted,
        INHERITABLE => prepared.sets.inheritable,
        _ => return 0,
    };
    let bit = 1u64.checked_shl(capability).unwrap_or(0);
    c_int::from(set & bit != 0)
}

/// capng_name_to_capability(3)
///
/// # Safety
///
/// `name` is a string that ends with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn capng_name_to_capability(name: *const c_char) -> c_int {
    if ptr::eq(name, ptr::null()) {
        return -1;
    }
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    let known = name
        .to_str()
        .ok()
        .and_then(|name| by_name(&name.to_uppercase()));
    known.map_or(-1, |capability| capability.0.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a thread of its own: what it gives up is gone.
    fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(work).join().unwrap())
    }

    #[test]
    fn names_are_found_by_their_c_function_in_any_case() {
        // SAFETY: literals that end with NUL.
        let number = |name: &CStr| unsafe { capng_name_to_capability(name.as_ptr()) };
        assert_eq!(number(c"CHOWN"), 0);
        assert_eq!(number(c"dac_override"), 1);
        assert_eq!(number(c"CHECKPOINT_RESTORE"), 40);
        assert_eq!(number(c"CAP_CHOWN"), -1);
    }

    #[test]
    fn what_is_dropped_is_gone_and_comes_back_while_it_is_permitted() {
        apart(|| {
            let fsetid = by_name("FSETID").unwrap();
            let number = c_uint::from(fsetid.0);
            if Sets::of_thread().unwrap().effective & fsetid.bit() == 0 {
                eprintln!("not run: this user has no CAP_FSETID to drop");
                return;
            }
            assert_eq!(capng_have_capability(EFFECTIVE, number), 1);
            assert_eq!(capng_update(0, EFFECTIVE, number), 0);
            assert_eq!(capng_apply(SELECT_CAPS), 0);
            assert_eq!(capng_have_capability(EFFECTIVE, number), 0);
            assert_eq!(capng_have_capability(PERMITTED, number), 1);
            assert_eq!(capng_update(ADD, EFFECTIVE, number), 0);
            assert_eq!(capng_apply(SELECT_CAPS), 0);
            assert_eq!(capng_have_capability(EFFECTIVE, number), 1);
        });
    }

    #[test]
    fn a_thread_can_give_up_everything_for_good() {
        apart(|| {
            capng_clear(SELECT_CAPS);
            assert_eq!(capng_apply(SELECT_CAPS), 0);
            assert_eq!(Sets::of_thread().unwrap(), Sets::default());
            assert_eq!(capng_update(ADD, EFFECTIVE | PERMITTED, 0), 0);
            assert_eq!(capng_apply(SELECT_CAPS), -1);
        });
    }

    #[test]
    fn what_is_required_and_missing_is_an_error_and_what_is_only_wanted_is_not() {
        apart(|| {
            capng_clear(SELECT_CAPS);
            assert_eq!(capng_apply(SELECT_CAPS), 0);
            let chown = BTreeSet::from([by_name("CHOWN").unwrap()]);
            keep_only(&chown, &BTreeSet::new()).unwrap();
            let error = keep_only(&chown, &chown).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        });
    }
}
