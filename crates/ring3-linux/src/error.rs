//! Why a program could not be run.

use std::path::PathBuf;

use rustix::io::Errno;

use crate::elf::ElfError;

/// Failure of a sandbox. What goes wrong inside of a program is no error, but its
/// [`Outcome`](crate::Outcome).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The platform failed.
    #[error("{doing} failed")]
    Platform {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: microvm_ring3::Error,
    },
    /// The root folder cannot be opened.
    #[error("Root folder {path} cannot be opened")]
    Root {
        /// Its path on the host.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// The folder in which programs are to start is not there.
    #[error("Folder {path:?}, in which programs are to start, cannot be entered")]
    WorkingDirectory {
        /// Its path in the tree.
        path: String,
        /// Why.
        source: Errno,
    },
    /// The program's file cannot be opened or read.
    #[error("Program {path} cannot be read")]
    Program {
        /// Its path, or `program`.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// The program's file is not one that can be run.
    #[error("{path} cannot be run")]
    Executable {
        /// Its path, or `program`.
        path: PathBuf,
        /// Why.
        source: ElfError,
    },
    /// Arguments and environment are longer than a quarter of the stack, or 2 MiB.
    #[error("Arguments and environment of {bytes} bytes are too long: {most} bytes fit")]
    Arguments {
        /// Their bytes, as the program would get them.
        bytes: u64,
        /// Most that are possible.
        most: u64,
    },
    /// The limit of memory is not enough to begin with.
    #[error("Program needs more than the {limit} bytes of memory that it may use")]
    Memory {
        /// The limit.
        limit: u64,
    },
    /// A limit makes no sense.
    #[error("Limit {name} of {value} is not between {min} and {max}")]
    Limit {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: u64,
        /// Least possible.
        min: u64,
        /// Most possible.
        max: u64,
    },
    /// The host refused something that every run needs.
    #[error("{doing} failed")]
    Host {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: Errno,
    },
}

impl Error {
    pub(crate) fn platform(doing: &'static str) -> impl Fn(microvm_ring3::Error) -> Self {
        move |source| Self::Platform { doing, source }
    }

    pub(crate) fn host(doing: &'static str) -> impl Fn(Errno) -> Self {
        move |source| Self::Host { doing, source }
    }
}
