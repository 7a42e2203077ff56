//! What a guest is told and agrees to.

use super::super::driver::Driver;
use super::super::fuse::{Mounted, ROOT};
use super::super::guest::mounted_with;
use super::super::process::Daemon;

pub fn cache_policies_give_their_times() {
    for (policy, seconds) in [
        ("never", 0),
        ("auto", 1),
        ("metadata", 86400),
        ("always", 86400),
    ] {
        let (_daemon, mut mounted) = mounted_with(&["--cache", policy]);
        assert_eq!(
            mounted.lookup(ROOT, "file").unwrap().valid,
            seconds,
            "{policy}"
        );
    }
}

const READDIRPLUS: u64 = 1 << 13;
const WRITEBACK: u64 = 1 << 16;
const POSIX_ACL: u64 = 1 << 20;
const SUBMOUNTS: u64 = 1 << 27;
const KILLPRIV_V2: u64 = 1 << 28;
const SECURITY_CTX: u64 = 1 << 32;
const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;

pub fn options_show_in_what_is_agreed_with_the_guest() {
    for (args, present, absent) in [
        (
            &[][..],
            READDIRPLUS | SUBMOUNTS,
            WRITEBACK | POSIX_ACL | KILLPRIV_V2 | SECURITY_CTX,
        ),
        (&["--no-readdirplus"], 0, READDIRPLUS),
        (&["--cache", "never"], 0, READDIRPLUS),
        (&["--writeback"], WRITEBACK, 0),
        (
            &["--cache", "never", "--allow-mmap"],
            DIRECT_IO_ALLOW_MMAP,
            0,
        ),
        (&["--cache", "never"], 0, DIRECT_IO_ALLOW_MMAP),
        (&["--posix-acl"], POSIX_ACL, 0),
        (&["--posix-acl=auto"], POSIX_ACL, 0),
        (&["--posix-acl=never"], 0, POSIX_ACL),
        (&["--killpriv-v2"], KILLPRIV_V2, 0),
        (&["--no-killpriv-v2"], 0, KILLPRIV_V2),
        // The later of the two counts.
        (&["--killpriv-v2", "--no-killpriv-v2"], 0, KILLPRIV_V2),
        (&["--no-killpriv-v2", "--killpriv-v2"], KILLPRIV_V2, 0),
        (&["--security-label"], SECURITY_CTX, 0),
        (&["--security-label=always"], SECURITY_CTX, 0),
        (&["--security-label=auto"], SECURITY_CTX, 0),
        (&["--security-label=never"], 0, SECURITY_CTX),
        (
            &["-o", "writeback,no_readdirplus,posix_acl"],
            WRITEBACK | POSIX_ACL,
            READDIRPLUS,
        ),
        (
            &["-o", "killpriv_v2,security_label,no_flock,no_posix_lock"],
            KILLPRIV_V2 | SECURITY_CTX,
            0,
        ),
        (&["--writeback", "-o", "no_writeback"], 0, WRITEBACK),
    ] {
        let (_daemon, mounted) = mounted_with(args);
        assert_eq!(
            mounted.flags & present,
            present,
            "{args:?} {:x}",
            mounted.flags
        );
        assert_eq!(mounted.flags & absent, 0, "{args:?} {:x}", mounted.flags);
    }
}

pub fn what_must_be_is_refused_to_a_guest_without_it_and_what_may_be_is_left_away() {
    for (option, feature) in [("posix-acl", POSIX_ACL), ("security-label", SECURITY_CTX)] {
        let mount = |mode: &str| {
            let daemon = Daemon::start(&[&format!("--{option}{mode}")]);
            Mounted::mount_without(Driver::start(&daemon.socket()), feature)
                .map(|mounted| mounted.flags & feature)
        };
        for always in ["", "=always"] {
            assert_eq!(mount(always), Err(libc::EPROTO), "{option}{always}");
        }
        for less in ["=auto", "=never"] {
            assert_eq!(mount(less), Ok(0), "{option}{less}");
        }
    }
}

pub fn cache_policies_say_what_becomes_of_a_files_content() {
    const DIRECT: u32 = 1;
    const KEEP: u32 = 2;
    for (args, want) in [
        (&["--cache", "never"][..], DIRECT),
        (&["--cache", "never", "--allow-mmap"], DIRECT),
        (&["-o", "cache=none"], DIRECT),
        (&["--cache", "metadata"], DIRECT),
        (&["--cache", "auto"], 0),
        (&["--cache", "always"], KEEP),
    ] {
        let (_daemon, mut mounted) = mounted_with(args);
        let file = mounted.lookup(ROOT, "file").unwrap();
        let (_, said) = mounted.open_with(file.node, libc::O_RDONLY, 0).unwrap();
        assert_eq!(said, want, "{args:?}");
    }
}
