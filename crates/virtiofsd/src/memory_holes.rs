//! Memory that the front end has told of and cut off since.
//!
//! Its files (guest memory, the log of writes) are mapped here, and who has one open may shorten it. An access beyond
//! the new end is SIGBUS, which would end the daemon. Instead the page that is gone is replaced by zeroes, the access
//! goes on, and the connection is known to be [`torn`]: its rings go out of service.
//!
//! Sealing (`F_SEAL_SHRINK`) is not asked for: memory on hugetlbfs or in a file, which monitors offer too, has no seals.
//!
//! That the page may be replaced: whoever accesses such memory holds its mapping, so the address is that mapping's for
//! as long as the access takes. And what is read there may be anything at any time, for the guest writes it.

use std::ffi::c_void;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Bytes of the pages that files can have. Those of a smaller one than the file's cannot be replaced.
const PAGES: [usize; 3] = [4 << 10, 2 << 20, 1 << 30];

/// Holes that are mended for one connection: far fewer than the mappings that a process may have. Were there no room for
/// one more, the kernel would say the same as of a page that is too small.
const MOST: usize = 4096;

/// Where this program's own files are mapped: a hole there is not mended.
static OWN: OnceLock<Vec<Range<u64>>> = OnceLock::new();
static TORN: AtomicBool = AtomicBool::new(false);
static MENDED: AtomicUsize = AtomicUsize::new(0);

/// Has holes mended from now on.
pub fn mend() -> io::Result<()> {
    OWN.get_or_init(own_files);
    // SAFETY: all zeroes is a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut c_void) = mend_or_end;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the action is complete, and its handler only makes system calls and touches atomics.
    match unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a hole was met since the last [`forget`].
pub fn torn() -> bool {
    TORN.load(Ordering::Relaxed)
}

/// Forgets holes: for the next connection, whose memory is another.
pub fn forget() {
    TORN.store(false, Ordering::Relaxed);
    MENDED.store(0, Ordering::Relaxed);
}

extern "C" fn mend_or_end(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel hands over what it knows of the signal.
    let info = unsafe { &*info };
    // SAFETY: it is looked at only where the code says that there is an address.
    let address = unsafe { info.si_addr() } as usize;
    let has_room = || MENDED.fetch_add(1, Ordering::Relaxed) < MOST;
    if info.si_code == libc::BUS_ADRERR && !is_own(address) && has_room() && replace(address) {
        TORN.store(true, Ordering::Relaxed);
        return;
    }
    // As if there were no handler: now, or when the access is made again.
    // SAFETY: async-signal-safe, and takes constants.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: the same.
    unsafe { libc::raise(signal) };
}

fn is_own(address: usize) -> bool {
    let own = OWN.get().map_or(&[][..], Vec::as_slice);
    own.iter().any(|range| range.contains(&(address as u64)))
}

/// Puts zeroes in the place of the page at an address.
fn replace(address: usize) -> bool {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: the thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    let replaced = PAGES.into_iter().any(|size| {
        let page = (address & !(size - 1)) as *mut c_void;
        // SAFETY: the page is part of a front end's file, as nothing else that is mapped can have a hole; who accesses
        // it keeps it mapped, and takes any content.
        unsafe { libc::mmap(page, size, access, kind, -1, 0) != libc::MAP_FAILED }
    });
    // SAFETY: as above.
    unsafe { *errno = before };
    replaced
}

/// Where the executable and its libraries are.
fn own_files() -> Vec<Range<u64>> {
    unsafe extern "C" fn collect(
        info: *mut libc::dl_phdr_info,
        _: libc::size_t,
        ranges: *mut c_void,
    ) -> libc::c_int {
        // SAFETY: valid for this call, as the C library says.
        let info = unsafe { &*info };
        // SAFETY: what was handed to dl_iterate_phdr below.
        let ranges = unsafe { &mut *ranges.cast::<Vec<Range<u64>>>() };
        // SAFETY: that many headers, which stay as long as the file is mapped.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        let loaded = headers
            .iter()
            .filter(|header| header.p_type == libc::PT_LOAD);
        ranges.extend(loaded.map(|header| {
            let start = info.dlpi_addr.wrapping_add(header.p_vaddr);
            start..start.saturating_add(header.p_memsz)
        }));
        0
    }
    let mut ranges: Vec<Range<u64>> = Vec::new();
    // SAFETY: the function above takes what is handed over.
    unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut ranges).cast()) };
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_programs_own_code_and_data_are_known() {
        static HERE: AtomicBool = AtomicBool::new(false);
        OWN.get_or_init(own_files);
        assert!(is_own(own_files as *const () as usize));
        assert!(is_own(libc::getpid as *const () as usize));
        assert!(is_own((&raw const HERE) as usize));
        let elsewhere = Box::new(0u8);
        assert!(!is_own((&raw const *elsewhere) as usize));
    }
}
