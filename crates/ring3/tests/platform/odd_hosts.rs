//! Hosts that lack something, or lie: what the kernel answers to one call is replaced on one thread
//! (seccomp(2)), so that all others have the host as it is.

use std::process::Command;
use std::thread;

use microvm_kvm::reaper;
use microvm_ring3::{Error, KvmOptions, KvmPlatform, Platform as _, open_device};
use microvm_test_support::{assert_no_more, counts};

use crate::fixture::*;
use crate::lifetimes::descriptors;

/// Names the host that this program is to find, and makes it a test of its own process: what is found
/// out about a host is kept for the life of one.
pub const ODD_HOST: &str = "MICROVM_TEST_ODD_HOST";

const KVM_CHECK_EXTENSION: u32 = 0xae03;
const KVM_SET_USER_MEMORY_REGION: u32 = 0x4020_ae46;

/// A call that is not done: its number, its arguments by their places, and the error (0: none) that
/// the caller is told.
struct Refused {
    call: libc::c_long,
    arguments: &'static [(u32, u32)],
    errno: i32,
}

/// KVM says that it does not exchange registers.
const NO_SYNC_REGS: Refused = Refused {
    call: libc::SYS_ioctl,
    arguments: &[
        (1, KVM_CHECK_EXTENSION),
        (2, kvm_bindings::KVM_CAP_SYNC_REGS),
    ],
    errno: 0,
};
/// Pages are not dropped, which KVM would be told.
const NO_DROPPED_PAGES: Refused = Refused {
    call: libc::SYS_madvise,
    arguments: &[(2, libc::MADV_DONTNEED.cast_unsigned())],
    errno: 0,
};
/// A machine gets no memory.
const NO_SLOTS: Refused = Refused {
    call: libc::SYS_ioctl,
    arguments: &[(1, KVM_SET_USER_MEMORY_REGION)],
    errno: libc::ENOSPC,
};

/// From now on, for this thread and what it starts.
fn refuse(refused: &Refused) {
    let (load, equal) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
    );
    let operation = |code: u32, k, jf| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: 0,
        jf,
        k,
    };
    // The number is at 0 of seccomp_data, arguments from 16 on; their lower halves tell enough.
    let call = u32::try_from(refused.call).unwrap();
    let words = std::iter::once((0, call)).chain(
        refused
            .arguments
            .iter()
            .map(|&(place, value)| (16 + 8 * place, value)),
    );
    let mut filter = Vec::new();
    let length = 2 * (refused.arguments.len() + 1) + 2;
    for (offset, value) in words {
        filter.push(operation(load, offset, 0));
        let to_the_end = u8::try_from(length - filter.len() - 2).unwrap();
        filter.push(operation(equal, value, to_the_end));
    }
    let errno = refused.errno.cast_unsigned();
    filter.push(operation(libc::BPF_RET, libc::SECCOMP_RET_ERRNO | errno, 0));
    filter.push(operation(libc::BPF_RET, libc::SECCOMP_RET_ALLOW, 0));
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap(),
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: no pointers.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(result, 0);
    // SAFETY: the program and its operations outlive the call, which copies them.
    let result = unsafe {
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        libc::syscall(libc::SYS_seccomp, mode, 0, &raw const program)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn machine() -> Result<KvmPlatform, Error> {
    KvmPlatform::new(open_device(None)?, KvmOptions::default())
}

/// What comes of a machine on a thread for which the host is so.
fn machine_where(refused: &'static Refused) -> Result<KvmPlatform, Error> {
    let odd = thread::spawn(|| {
        refuse(refused);
        machine()
    });
    odd.join().unwrap()
}

/// Runs this program once more, on a host of this name.
fn on_host(name: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.env(ODD_HOST, name).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What [`on_host`] runs: the first machine of a process fails, and with it all others, though for this
/// thread the host is as it should be.
pub fn child(name: &str) {
    let before = counts();
    let (refused, reason) = match name {
        "no-sync-regs" => (&NO_SYNC_REGS, "KVM_CAP_SYNC_REGS"),
        "no-dropped-pages" => (&NO_DROPPED_PAGES, "a changed mapping is not seen"),
        "no-slots" => (&NO_SLOTS, "Adding the memory of the stubs"),
        _ => panic!("{name}"),
    };
    let first = machine_where(refused).unwrap_err();
    assert!(first.to_string().contains(reason), "{first:?}");
    assert_eq!(
        matches!(first, Error::Unsupported { .. }),
        name != "no-slots",
        "{first:?}"
    );
    for _ in 0..2 {
        assert_eq!(machine().unwrap_err(), first);
    }
    reaper::wait_idle();
    assert_eq!(descriptors("kvm"), 0);
    // The thread that closes machines stays, and so do heaps and stacks of threads.
    assert_no_more(before, [0, 32, 1], PATIENCE / 6);
}

pub fn host_that_lacks_a_capability_is_unsupported_for_good() {
    on_host("no-sync-regs");
}

pub fn host_that_fails_the_self_test_is_unsupported_for_good() {
    if platform_with(1).host_traits().sees_page_table_edits {
        // Nothing has to be dropped there, and so nothing is missed.
        machine_where(&NO_DROPPED_PAGES).unwrap();
    } else {
        on_host("no-dropped-pages");
    }
}

pub fn failure_of_the_first_machine_is_that_of_all_others() {
    on_host("no-slots");
}

pub fn machine_that_fails_halfway_is_closed_and_the_next_one_works() {
    drop(platform_with(1));
    reaper::wait_idle();
    let before = descriptors("kvm");
    let error = machine_where(&NO_SLOTS).unwrap_err();
    assert!(matches!(error, Error::Kvm { .. }), "{error:?}");
    reaper::wait_idle();
    assert_eq!(descriptors("kvm"), before);
    program_on(&platform_with(1), &SYSCALL).call();
}
