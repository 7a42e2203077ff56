//! The steps of the start, in the order that makes each possible: what needs the host before the sandbox, what needs
//! privileges before they are dropped, and the system call filter before the first thread.

use std::path::Path;
use std::time::Duration;

use log::{error, warn};
use virtiofsd::limits::setup_rlimit_nofile;
use virtiofsd::passthrough::read_only::PassthroughFsRo;
use virtiofsd::passthrough::{CachePolicy, Config, MigrationMode, NegotiationMode, PassthroughFs};
use virtiofsd::sandbox::SandboxMode;

use crate::backend::Shape;
use crate::confine::{self, Kept};
use crate::error::Error;
use crate::options::{FileHandles, Options};
use crate::serve::{Serving, serve};
use crate::supervise::{Side, split};
use crate::{seccomp, signals, socket};

/// Memory regions that a front end may add (vhost-user-backend's own limit): each is a descriptor.
const MEMORY_REGIONS: u64 = 509;
/// Descriptors kept for the daemon itself, besides one for each thread that works on requests.
const OWN_DESCRIPTORS: u64 = MEMORY_REGIONS + 100;
/// Below this many descriptors a guest will not get far.
const FEW_GUEST_DESCRIPTORS: u64 = 128;

/// Runs the daemon until it ends.
pub fn run(options: Options) -> Result<(), Error> {
    let shared_dir = check(&options)?;
    let kept = Kept::parse(
        options.modcaps.as_deref(),
        options.inode_file_handles.into(),
    )?;
    warn_of_old_forms(&options);
    signals::tell_of_children();

    // From before there are files: whatever ends this process, they are removed.
    let held = match options.fd {
        Some(_) => None,
        None => Some(signals::hold_back().map_err(Error::Signals)?),
    };
    let (listener, files) = match options.fd {
        Some(number) => (socket::inherited(number)?, None),
        None => {
            let path = options.socket_file().unwrap_or_default();
            let (listener, files) = socket::listen(path, options.socket_group.as_deref())?;
            (listener, Some(files))
        }
    };
    if let Some((files, held)) = files.zip(held.as_ref())
        && let Side::Done(status) = split(files, held)?
    {
        // Nothing of this process is left to be dropped.
        std::process::exit(status.into());
    }
    signals::end_at_once().map_err(Error::Signals)?;

    let guest_fd_limit = limit_open_files(&options)?;
    let entered = confine::enter(&options, shared_dir, listener)?;
    let serving = Serving {
        listener: entered.listener,
        reconnect: options.reconnect,
        writeback: options.writeback,
        shape: Shape {
            tag: options.tag.clone(),
            request_queues: options.request_queues,
            pool_size: options.thread_pool_size,
        },
    };
    let readonly = options.readonly;
    let remote_log = options.syslog;
    let action = options.seccomp;
    let config = Config {
        root_dir: entered.root_dir,
        mountinfo_prefix: entered.mountinfo_prefix,
        proc_sfd_rawfd: entered.proc_self_fd,
        proc_mountinfo_rawfd: entered.mountinfo,
        guest_fd_limit,
        ..file_system(options)
    };
    // Both would reach only the calling thread later on.
    seccomp::install(action, remote_log)?;
    kept.drop_others()?;

    if readonly {
        serve(
            PassthroughFsRo::new(config).map_err(Error::FileSystem)?,
            serving,
        )
    } else {
        serve(
            PassthroughFs::new(config).map_err(Error::FileSystem)?,
            serving,
        )
    }
}

/// Refuses what does not go together; hands back the shared folder.
fn check(options: &Options) -> Result<String, Error> {
    let shared_dir = options.shared_dir.clone().ok_or(Error::NoSharedDir)?;
    let path = Path::new(&shared_dir);
    if !path.is_dir() && !path.is_file() {
        return Err(Error::SharedDir(shared_dir));
    }
    // A symbolic link cannot be mounted upon, which the sandbox does.
    let resolved = path
        .canonicalize()
        .ok()
        .and_then(|path| path.to_str().map(str::to_owned));
    let Some(shared_dir) = resolved else {
        return Err(Error::SharedDir(shared_dir));
    };
    let path = Path::new(&shared_dir);
    if path.is_file() && options.sandbox == SandboxMode::Chroot {
        return Err(Error::FileInChroot);
    }
    if options.migration_mode == MigrationMode::FileHandles {
        let unnecessary = [
            (options.migration_confirm_paths, "migration-confirm-paths"),
            (options.migration_verify_handles, "migration-verify-handles"),
        ];
        let mut unnecessary = unnecessary.into_iter().filter(|(given, _)| *given);
        if let Some((_, last)) = unnecessary.next_back() {
            // A line for each, as all of them are to be removed.
            for (_, option) in unnecessary {
                error!("{}", Error::MigrationOption(option));
            }
            return Err(Error::MigrationOption(last));
        }
    }
    let translates = !options.translate_uid.is_empty() || !options.translate_gid.is_empty();
    if options.posix_acl != NegotiationMode::Never && translates {
        return Err(Error::TranslateWithAcl(options.posix_acl));
    }
    Ok(shared_dir)
}

fn warn_of_old_forms(options: &Options) {
    if options.compat_foreground {
        warn!("Use of deprecated flag '-f': This flag has no effect, please remove it");
    }
    if options.compat_debug {
        warn!("Use of deprecated flag '-d': Please use the '--log-level debug' option instead");
    }
    if options.compat_options.is_some() {
        warn!(
            "Use of deprecated option format '-o': Please specify options without it (e.g., '--cache auto' instead of '-o cache=auto')"
        );
    }
    if options.inode_file_handles == FileHandles::Fallback {
        warn!(
            "Use of deprecated value 'fallback' for '--inode-file-handles': Please use 'prefer' instead"
        );
    }
    if options.socket_path.is_none() && options.socket.is_some() {
        warn!(
            "use of deprecated parameter '--socket': Please use the '--socket-path' option instead"
        );
    }
}

/// Sets the limit of open descriptors; hands back how many of them are for the guest's files.
fn limit_open_files(options: &Options) -> Result<u64, Error> {
    let limit = setup_rlimit_nofile(options.rlimit_nofile).map_err(Error::OpenFiles)?;
    let threads = match options.thread_pool_size {
        0 => u64::from(options.request_queues),
        size => size as u64,
    };
    let least = OWN_DESCRIPTORS.saturating_add(threads);
    let guest = limit
        .checked_sub(least)
        .ok_or(Error::TooFewOpenFiles { limit, least })?;
    if guest < FEW_GUEST_DESCRIPTORS {
        warn!(
            "File descriptor count limit is very small, leaving only {guest} file descriptors for the guest"
        );
    }
    Ok(guest)
}

/// What the file-system layer is told.
fn file_system(options: Options) -> Config {
    let timeout = match options.cache {
        CachePolicy::Never => Duration::ZERO,
        CachePolicy::Auto => Duration::from_secs(1),
        CachePolicy::Metadata | CachePolicy::Always => Duration::from_secs(24 * 60 * 60),
    };
    Config {
        entry_timeout: timeout,
        attr_timeout: timeout,
        xattr: options.wants_xattr(),
        readdirplus: !options.no_readdirplus && !matches!(options.cache, CachePolicy::Never),
        cache_policy: options.cache,
        xattrmap: options.xattrmap,
        announce_submounts: !options.no_announce_submounts,
        inode_file_handles: options.inode_file_handles.into(),
        writeback: options.writeback,
        allow_direct_io: options.allow_direct_io,
        killpriv_v2: options.killpriv_v2,
        security_label: options.security_label,
        posix_acl: options.posix_acl,
        clean_noatime: !options.preserve_noatime,
        allow_mmap: options.allow_mmap,
        migration_on_error: options.migration_on_error,
        migration_verify_handles: options.migration_verify_handles,
        migration_confirm_paths: options.migration_confirm_paths,
        migration_mode: options.migration_mode,
        uid_map: Some(options.translate_uid),
        gid_map: Some(options.translate_gid),
        ..Config::default()
    }
}
