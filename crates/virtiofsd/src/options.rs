//! The command line: names, values and defaults of virtiofsd 1.14.0, and three options of our own.
//!
//! Wrong usage ends the process with status 2 and a text on standard error, as clap does it. What can only be judged
//! when all options are known is [`crate::start`]'s business and ends with status 1.

mod compat;
mod values;

use std::os::fd::RawFd;

use clap::Parser;
use log::LevelFilter;
use virtiofsd::idmap::{GidMap, UidMap};
use virtiofsd::passthrough::xattrmap::XattrMap;
use virtiofsd::passthrough::{CachePolicy, MigrationMode, MigrationOnError, NegotiationMode};
use virtiofsd::sandbox::SandboxMode;
use virtiofsd::soft_idmap::cmdline::IdMap;

use crate::seccomp::SeccompAction;
pub use values::FileHandles;

/// What `--print-capabilities` prints: the program's entry for management software, which looks for these features.
pub const CAPABILITIES: &str = r#"{
  "type": "fs",
  "features": [
    "migrate-precopy",
    "posix-acl-negotiation-mode",
    "security-label-negotiation-mode",
    "separate-options"
  ]
}
"#;

/// The options as they were given, with those of `-o` worked in.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "microvm-virtiofsd",
    about = "Serves a host folder to a virtual machine by virtio-fs.",
    version,
    args_override_self = true,
    arg_required_else_help = true,
    override_usage = "microvm-virtiofsd --shared-dir <SHARED_DIR> --socket-path <SOCKET_PATH> [OPTIONS]"
)]
pub struct Options {
    /// The folder to share, or a single file
    #[arg(long, required_unless_present_any = &["compat_options", "print_capabilities", "print_vhost_user_json"])]
    pub shared_dir: Option<String>,

    /// Tag by which the guest mounts the device, 1 to 36 bytes; without it the virtual machine monitor names the device
    ///
    /// Offers the protocol feature CONFIG, which some front ends do not use. QEMU 7.1 to 8.0 crash on it.
    #[arg(long, value_parser = values::tag)]
    pub tag: Option<String>,

    /// Path of the vhost-user socket (deprecated: use --socket-path)
    #[arg(long, required_unless_present_any = &["fd", "socket_path", "print_capabilities", "print_vhost_user_json"])]
    pub socket: Option<String>,

    /// Path of the vhost-user socket, which is created
    #[arg(long, required_unless_present_any = &["fd", "socket", "print_capabilities", "print_vhost_user_json"])]
    pub socket_path: Option<String>,

    /// Group that owns the socket and may connect to it
    #[arg(long, conflicts_with_all = &["fd", "print_capabilities"])]
    pub socket_group: Option<String>,

    /// Number of an inherited descriptor: a listening socket to accept on
    #[arg(long, required_unless_present_any = &["socket", "socket_path", "print_capabilities", "print_vhost_user_json"], conflicts_with_all = &["socket_path", "socket"])]
    pub fd: Option<RawFd>,

    /// After a front end disconnects, wait for the next one instead of ending
    #[arg(long)]
    pub reconnect: bool,

    /// Number of request queues, 1 to 63; each has a thread where there is no pool
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=63))]
    pub request_queues: u16,

    /// Number of threads that work on requests; with 0 each queue's own thread does
    #[arg(long, default_value = "0")]
    pub thread_pool_size: usize,

    /// Support extended attributes
    #[arg(long)]
    pub xattr: bool,

    /// Support POSIX ACLs (implies --xattr); without a value: always
    #[arg(long, require_equals = true, default_value = "never", default_missing_value = "always", num_args = 0..=1, value_name = "never|auto|always")]
    pub posix_acl: NegotiationMode,

    /// Rules that rename extended attributes between host and guest, e.g. :map::user.virtiofs.: (implies --xattr)
    #[arg(long, value_parser = |text: &str| XattrMap::try_from(text))]
    pub xattrmap: Option<XattrMap>,

    /// How the daemon is kept from the rest of the host: namespace, chroot (root only) or none
    #[arg(long, default_value = "namespace")]
    pub sandbox: SandboxMode,

    /// Refuse every change with EROFS
    #[arg(long)]
    pub readonly: bool,

    /// What happens on a system call that is not on the list: kill, log, trap, or none for no list
    #[arg(long, default_value = "kill")]
    pub seccomp: SeccompAction,

    /// Tell the guest which folders are mount points (the default)
    #[arg(long)]
    pub announce_submounts: bool,

    /// Do not tell the guest which folders are mount points
    #[arg(long, overrides_with = "announce_submounts")]
    pub no_announce_submounts: bool,

    /// Whether inodes are remembered by file handle instead of by an open descriptor: never, prefer, mandatory
    ///
    /// `prefer` falls back to descriptors where a file system has no handles or the daemon lacks CAP_DAC_READ_SEARCH.
    /// `fallback` is its deprecated name.
    #[arg(long, require_equals = true, default_value = "prefer")]
    pub inode_file_handles: FileHandles,

    /// What the guest may cache: auto, always, metadata, never
    #[arg(long, default_value = "auto")]
    pub cache: CachePolicy,

    /// With --cache=metadata or never: let the guest map files shared, for folders that nobody else changes
    #[arg(long)]
    pub allow_mmap: bool,

    /// Do not answer READDIRPLUS
    #[arg(long)]
    pub no_readdirplus: bool,

    /// Let the guest delay writes, for folders that nobody else changes
    #[arg(long)]
    pub writeback: bool,

    /// Honour O_DIRECT of programs in the guest
    #[arg(long)]
    pub allow_direct_io: bool,

    /// Print what management software wants to know, and end
    #[arg(long)]
    pub print_capabilities: bool,

    /// Print the file by which management software finds this program, with where it is, and end
    #[arg(long)]
    pub print_vhost_user_json: bool,

    /// Change the capabilities that are kept, e.g. +sys_admin:-chown
    #[arg(long)]
    pub modcaps: Option<String>,

    /// Log level: error, warn, info, debug, trace, off. RUST_LOG has precedence on standard error
    #[arg(long, default_value = "info")]
    pub log_level: LevelFilter,

    /// Log to syslog instead of standard error
    #[arg(long)]
    pub syslog: bool,

    /// Limit of open descriptors; 0 leaves it as it is [default: min(1000000, '/proc/sys/fs/nr_open')]
    #[arg(long)]
    pub rlimit_nofile: Option<u64>,

    /// Options in the form of the daemon written in C (deprecated)
    #[arg(short = 'o')]
    pub compat_options: Option<Vec<String>>,

    /// Log level debug (deprecated: use --log-level debug)
    #[arg(short = 'd')]
    pub compat_debug: bool,

    /// Do not clear setuid and setgid bits for the guest (the default)
    #[arg(long)]
    _no_killpriv_v2: bool,

    /// Clear setuid and setgid bits on writes, truncation and changes of owner (FUSE's KILLPRIV_V2)
    #[arg(long, overrides_with = "_no_killpriv_v2")]
    pub killpriv_v2: bool,

    /// Without effect (deprecated)
    #[arg(short = 'f')]
    pub compat_foreground: bool,

    /// Store the security label that the guest sends with a new file (implies --xattr); without a value: always
    #[arg(long, require_equals = true, default_value = "never", default_missing_value = "always", num_args = 0..=1, value_name = "never|auto|always")]
    pub security_label: NegotiationMode,

    /// For unprivileged users: map user ids into the sandbox's namespace, :NAMESPACE_UID:HOST_UID:COUNT: (repeatable)
    #[arg(long)]
    pub uid_map: Vec<UidMap>,

    /// For unprivileged users: map group ids into the sandbox's namespace, :NAMESPACE_GID:HOST_GID:COUNT: (repeatable)
    #[arg(long)]
    pub gid_map: Vec<GidMap>,

    /// Translate user ids between guest and host, TYPE:SOURCE:TARGET:COUNT (repeatable)
    ///
    /// Types: guest and host (one to one, in one direction), map (both directions, GUEST:HOST), squash-guest and
    /// squash-host (all to one id), forbid-guest (an error for the guest). Not together with --posix-acl.
    #[arg(long)]
    pub translate_uid: Vec<IdMap>,

    /// Translate group ids, like --translate-uid
    #[arg(long)]
    pub translate_gid: Vec<IdMap>,

    /// Pass O_NOATIME of programs in the guest on, also where that leads to errors of permission
    #[arg(long)]
    pub preserve_noatime: bool,

    /// How a state transfer names files: find-paths, or file-handles (same file system on both sides)
    #[arg(long, default_value = "find-paths")]
    pub migration_mode: MigrationMode,

    /// What the receiving side of a transfer does about a file it cannot open: abort, guest-error
    #[arg(long, default_value = "abort")]
    pub migration_on_error: MigrationOnError,

    /// With find-paths: have the receiving side check that it opened the very same files (same file system only)
    #[arg(long)]
    pub migration_verify_handles: bool,

    /// With find-paths: check each path once more at the moment of the transfer
    #[arg(long)]
    pub migration_confirm_paths: bool,
}

/// Reads the command line. Ends the process on wrong usage, `--help` and `--version`.
pub fn parse() -> Options {
    let mut options = Options::parse();
    if let Err(error) = compat::apply(&mut options) {
        error.exit();
    }
    options
}

impl Options {
    /// The socket's path, by its present name or the old one.
    pub fn socket_file(&self) -> Option<&str> {
        self.socket_path.as_deref().or(self.socket.as_deref())
    }

    /// Whether extended attributes are supported, be it by implication.
    pub fn wants_xattr(&self) -> bool {
        self.xattr
            || self.xattrmap.is_some()
            || self.posix_acl != NegotiationMode::Never
            || self.security_label != NegotiationMode::Never
    }
}
