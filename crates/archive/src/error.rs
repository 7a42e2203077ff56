use std::path::PathBuf;

use rustix::io::Errno;

/// Why a tree was not packed or unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on a file was refused.
    #[error("Cannot {syscall} {}", path.display())]
    File {
        /// Its name, as Node tells it.
        syscall: &'static str,
        /// The whole path, as far as it was given.
        path: PathBuf,
        /// The refusal.
        source: Errno,
    },
    /// A file became shorter while it was packed.
    #[error("{} became shorter while it was copied", path.display())]
    Changed {
        /// The whole path.
        path: PathBuf,
    },
    /// What was to be unpacked is not an archive.
    #[error("The archive is malformed: {0}")]
    Malformed(&'static str),
    /// The archive has no end.
    #[error("The archive is cut off")]
    Truncated,
    /// An entry would leave the target, or is of a kind that is not made here.
    #[error("The archive's entry {name} is refused: {reason}")]
    Refused {
        /// The entry.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// The archive holds more than was allowed.
    #[error("The archive holds more than {limit} {unit}")]
    Limit {
        /// What there is too much of: `bytes` or `entries`.
        unit: &'static str,
        /// How much was allowed.
        limit: u64,
    },
}

impl Error {
    pub(crate) fn refused(name: &[u8], reason: &'static str) -> Self {
        Self::Refused {
            name: String::from_utf8_lossy(name).escape_debug().to_string(),
            reason,
        }
    }
}
