//! Why the daemon did not start, or ended.

use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;

use virtiofsd::passthrough::NegotiationMode;
use virtiofsd::sandbox;

/// What to do where the host refuses the sandbox's namespaces. `src/virtio-fs/daemon.ts` knows it by its beginning.
const REFUSED: &str = "This user may not create the namespaces of the sandbox: allow user namespaces (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns), run as root, or give up the sandbox with --sandbox none";

/// An error that ends the daemon with status 1. Texts that virtiofsd has too are its own, for who looks for them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("Where this program is cannot be told: {0}")]
    ProgramPath(io::Error),
    #[error("missing \"--shared-dir\" or \"-o source\" option")]
    NoSharedDir,
    #[error("{0} does not exist")]
    SharedDir(String),
    #[error("Cannot use --{0} with --migration-mode=file-handles (because it is unnecessary)")]
    MigrationOption(&'static str),
    #[error(
        "Cannot use --translate-uid or --translate-gid with --posix-acl={0}, translating UIDs/GIDs would break posix ACLs"
    )]
    TranslateWithAcl(NegotiationMode),
    #[error(
        "A single file cannot be shared with --sandbox=chroot (Use '--sandbox namespace' instead)"
    )]
    FileInChroot,
    #[error("Invalid socket file name")]
    SocketName,
    #[error("{} does not exist or is not a directory", .0.display())]
    SocketFolder(PathBuf),
    #[error("Error creating pid file '{}': {source}", path.display())]
    PidFile { path: PathBuf, source: io::Error },
    #[error("Error creating listener: {0}")]
    Listener(io::Error),
    #[error("Couldn't resolve the group name specified for the socket path")]
    UnknownGroup,
    #[error("Couldn't set up the group for the socket path: {0}")]
    SocketGroup(io::Error),
    #[error("Descriptor {number} of --fd cannot be used: {reason}")]
    Descriptor { number: RawFd, reason: &'static str },
    #[error("Setting signal handlers: {0}")]
    Signals(io::Error),
    #[error("Failed to start the process that serves: {0}")]
    Supervise(io::Error),
    #[error("Error increasing number of open files: {0}")]
    OpenFiles(String),
    #[error(
        "Maximum number of file descriptors too small: Limit is {limit}, must be at least {least}"
    )]
    TooFewOpenFiles { limit: u64, least: u64 },
    #[error("Error getting mountinfo prefix: {0}")]
    MountinfoPrefix(io::Error),
    #[error("Error sharing a single file: a mount namespace: {0}")]
    Namespace(io::Error),
    #[error("Error sharing a single file: {step}: {source}")]
    SingleFile {
        step: &'static str,
        source: io::Error,
    },
    #[error("Error entering sandbox: {0}")]
    Sandbox(sandbox::Error),
    #[error("empty modcap found: expected (+|-)capability:...")]
    EmptyModcap,
    #[error("invalid modcap action: expecting '+'|'-' but found '{0}'")]
    ModcapAction(String),
    #[error("invalid capability '{0}'")]
    UnknownCapability(String),
    #[error("can't disable DAC_READ_SEARCH when using --inode-file-handles={0}")]
    NeedsReadSearch(&'static str),
    #[error("can't apply the child capabilities: {0}")]
    Capabilities(io::Error),
    #[error("Error installing the system call filter: {0}")]
    Seccomp(String),
    #[error(
        "The unshare(CLONE_FS) syscall failed with '{0}'. If running in a container please check that the container runtime seccomp policy allows unshare."
    )]
    UnshareFs(io::Error),
    #[error("Failed to create internal filesystem representation: {0}")]
    FileSystem(io::Error),
    #[error("Error creating vhost-user backend: {0}")]
    Backend(String),
    #[error("Failed to start daemon: {0}")]
    Accept(String),
    #[error("Waiting for daemon failed: {0}")]
    Connection(String),
}

impl Error {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Sandbox(sandbox::Error::Unshare(_)) | Self::Namespace(_) => Some(REFUSED),
            // AppArmor lets the namespaces be made, and nothing be done in them.
            Self::Sandbox(sandbox::Error::CleanMount(error))
                if error.kind() == io::ErrorKind::PermissionDenied =>
            {
                Some(REFUSED)
            }
            Self::PidFile { source, .. } if source.kind() == io::ErrorKind::WouldBlock => {
                Some("Another daemon serves this socket path")
            }
            _ => None,
        }
    }
}
