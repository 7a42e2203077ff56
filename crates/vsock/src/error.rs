//! What can go wrong when a device or its host is made.

use std::io;
use std::path::PathBuf;

/// Why a vsock device, or the host that carries it, could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// The guest's context id is reserved or does not fit 32 bits.
    #[error("Guest CID {0} is not usable: it must be between 3 and 4294967294")]
    GuestCid(u64),
    /// The path leaves no room for `_<port>` in a Unix socket address.
    #[error("Socket path {} takes {length} bytes, the limit is {limit}", path.display())]
    PathTooLong {
        /// The path as it was given.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
        /// The longest path that works, in bytes.
        limit: usize,
    },
    /// The socket could not be made.
    #[error("Failed to listen at {}", path.display())]
    Listen {
        /// Where the socket was to be.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A descriptor or a thread that the device needs could not be made.
    #[error("Failed to create {what}")]
    Create {
        /// What was to be made.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The vhost-user library refused to start.
    #[error("Failed to start the vhost-user back end: {reason}")]
    VhostUser {
        /// The library's words.
        reason: String,
    },
}
