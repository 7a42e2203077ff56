//! What a diagnosis of this host has to ask and Node cannot: the user database by number, extended
//! attributes, and whether the kernel grants an interface to this process.
//!
//! Every question is asked once and leaves nothing behind; what an answer means is the caller's
//! affair. The caller is `src/doctor/inspect-host.ts`, by way of crate `microvm-node`.

mod account;
mod attribute;
mod interface;

use std::io;

pub use account::{Account, account, group_name, groups_of};
pub use attribute::extended_attribute;
pub use interface::{Interface, try_interface, try_vsock_cid};

/// Why this host gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A system call was refused.
    #[error("{call} failed")]
    Refused {
        /// Name of the call.
        call: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A name that the C library cannot take.
    #[error("A name holds a NUL byte")]
    Name,
}

impl HostError {
    fn of<E: Into<io::Error>>(call: &'static str) -> impl Fn(E) -> Self {
        move |source| Self::Refused {
            call,
            source: source.into(),
        }
    }
}
