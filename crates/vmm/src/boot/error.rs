//! What can be wrong with a kernel, an initramfs or a command line.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::config::ConfigError;
use crate::memory::LoadError;

/// Which of the two image files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    /// The kernel.
    Kernel,
    /// The initramfs.
    Initramfs,
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "Kernel",
            Self::Initramfs => "Initramfs",
        })
    }
}

/// Why a guest cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// There is no such file.
    #[error("{image} {} does not exist", path.display())]
    Missing {
        /// Which image.
        image: Image,
        /// Its path.
        path: PathBuf,
    },
    /// The file cannot be opened or read.
    #[error("{image} {} cannot be read", path.display())]
    Unreadable {
        /// Which image.
        image: Image,
        /// Its path.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The path leads to a folder, a FIFO, a device or a socket.
    #[error("{image} {} is {kind}, not a regular file", path.display())]
    NotAFile {
        /// Which image.
        image: Image,
        /// Its path.
        path: PathBuf,
        /// What it is, with its article.
        kind: &'static str,
    },
    /// The file ends before what its own header announces.
    #[error("Kernel {} is truncated: it has {actual} bytes and announces {expected}", path.display())]
    Truncated {
        /// Its path.
        path: PathBuf,
        /// Length that the header announces, in bytes.
        expected: u64,
        /// Length of the file, in bytes.
        actual: u64,
    },
    /// The file is no kernel that could be booted.
    #[error("{} is not a bootable kernel: {reason}", path.display())]
    NotAKernel {
        /// Its path.
        path: PathBuf,
        /// What is wrong or missing.
        reason: &'static str,
    },
    /// The kernel was built for other CPUs.
    #[error("Kernel {} is for {architecture}, this machine is x86-64", path.display())]
    OtherArchitecture {
        /// Its path.
        path: PathBuf,
        /// What it was built for.
        architecture: &'static str,
    },
    /// The kernel does not fit the guest's memory.
    #[error("Kernel {} needs memory up to {needed:#x}, the guest has RAM up to {available:#x}", path.display())]
    KernelTooLarge {
        /// Its path.
        path: PathBuf,
        /// First address behind what the kernel needs.
        needed: u64,
        /// First address behind the guest's RAM below 4 GiB.
        available: u64,
    },
    /// The initramfs does not fit between the kernel and the end of memory.
    #[error("Initramfs {} has {bytes} bytes, the guest's memory has room for {available}", path.display())]
    InitramfsTooLarge {
        /// Its path.
        path: PathBuf,
        /// Its length in bytes.
        bytes: u64,
        /// Room between the kernel and the highest address that it can use, in bytes.
        available: u64,
    },
    /// The command line does not fit or holds a NUL byte.
    #[error(transparent)]
    CommandLine(#[from] ConfigError),
    /// The file changed or failed while it was being loaded.
    #[error("{image} {} cannot be loaded", path.display())]
    Load {
        /// Which image.
        image: Image,
        /// Its path.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: LoadError,
    },
    /// A boot structure lies outside guest memory.
    #[error("Boot structures cannot be written to guest memory")]
    GuestMemory(#[from] vm_memory::GuestMemoryError),
}
