//! Why the platform could not do what it was asked for.

use std::path::PathBuf;

/// Failure of the ring-3 platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device cannot be opened.
    #[error("Device {path} of the platform cannot be opened; {advice}")]
    Device {
        /// Its path.
        path: PathBuf,
        /// What to do about it.
        advice: &'static str,
        /// Why.
        source: microvm_kvm::Error,
    },
    /// A call to KVM failed.
    #[error("{doing} failed")]
    Kvm {
        /// What was being done.
        doing: &'static str,
        /// The call and the kernel's answer.
        source: microvm_kvm::Error,
    },
    /// This host cannot run programs so that every result is right.
    #[error("Host is unsupported: {reason}")]
    Unsupported {
        /// What the self-test found.
        reason: String,
    },
    /// A range is not made of whole pages, is empty, or leaves what programs may use.
    #[error(
        "Range of {length} bytes at {address:#x} is not one of whole pages between {min:#x} and {max:#x}"
    )]
    Range {
        /// Where it starts.
        address: u64,
        /// Its bytes.
        length: u64,
        /// First address that may be used.
        min: u64,
        /// First address that may not.
        max: u64,
    },
    /// A part of a memory is not made of whole pages inside of it.
    #[error("{length} bytes at offset {offset} are not whole pages of the memory of {size} bytes")]
    Offset {
        /// Where the part starts.
        offset: u64,
        /// Its bytes.
        length: u64,
        /// Bytes of the memory.
        size: u64,
    },
    /// A range is to be protected that is not mapped throughout.
    #[error("Address {address:#x} is not mapped")]
    NotMapped {
        /// The first address without a mapping.
        address: u64,
    },
    /// Memory that may only be read was to be mapped for writing.
    #[error("Memory that may only be read cannot be mapped for writing")]
    ReadOnlyMemory,
    /// Two objects of different machines were given together.
    #[error("Memory, address space and context belong to different machines")]
    OtherMachine,
    /// The address space was released.
    #[error("Address space was released")]
    Released,
    /// The guest has no physical addresses or slots left.
    #[error("Machine has no room for {length} more bytes of memory")]
    NoRoom {
        /// Bytes asked for.
        length: u64,
    },
    /// The processor state of a context got lost when another context needed the vCPU.
    #[error("State of the context was lost when its vCPU was taken over")]
    StateLost {
        /// Why.
        source: microvm_kvm::Error,
    },
    /// An extended state has the wrong length or contents that the processor refuses.
    #[error("Extended state of {length} bytes is refused")]
    ExtendedState {
        /// Its bytes.
        length: usize,
    },
    /// The host's KVM gave up on the guest.
    #[error("Guest was stopped by its host: {reason}")]
    Stopped {
        /// What KVM reported.
        reason: String,
    },
    /// No thread could be started.
    #[error("Thread for timeouts cannot be started (error {errno})")]
    Thread {
        /// The system's answer.
        errno: i32,
    },
}

impl Error {
    /// Makes the error of a call to KVM that failed.
    pub(crate) fn kvm(doing: &'static str) -> impl Fn(microvm_kvm::Error) -> Self {
        move |source| Self::Kvm { doing, source }
    }

    pub(crate) fn unsupported(reason: impl Into<String>) -> Self {
        Self::Unsupported {
            reason: reason.into(),
        }
    }
}
