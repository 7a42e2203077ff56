//! What can go wrong on the host's own vsock.

use std::io;

use rustix::io::Errno;

/// Why a guest cannot be listened for or reached.
#[derive(Debug, thiserror::Error)]
pub enum AfVsockError {
    /// The kernel has no `AF_VSOCK`, or nothing that gives this host its address.
    #[error("This host has no AF_VSOCK address")]
    Unavailable(#[source] io::Error),
    /// Another program listens at the host's port, or the same guest is listened for twice.
    #[error("Host vsock port {0} is taken")]
    PortTaken(u32),
    /// Ports below 1024 take a right (`CAP_NET_BIND_SERVICE`).
    #[error("Host vsock port {port} may not be used")]
    PortPermission {
        /// The port.
        port: u32,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The host's port cannot be listened at for another reason.
    #[error("Failed to listen at host vsock port {port}")]
    Listen {
        /// The port.
        port: u32,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Nothing in the guest listens at the port.
    #[error("Guest {cid} refused the connection to port {port}")]
    Refused {
        /// The guest's context ID.
        cid: u32,
        /// The port.
        port: u32,
    },
    /// Nobody came, or the guest did not answer, in time.
    #[error("{what} took longer than {milliseconds} ms")]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// The limit.
        milliseconds: u128,
    },
    /// The guest cannot be reached for another reason, such as that it is gone.
    #[error("Failed to connect to port {port} of guest {cid}")]
    Connect {
        /// The guest's context ID.
        cid: u32,
        /// The port.
        port: u32,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The guest's host end, or the listener, was closed meanwhile.
    #[error("The host's end of the guest's vsock was closed")]
    Closed,
    /// A descriptor or a thread that it takes could not be made.
    #[error("Failed to create {what}")]
    Create {
        /// What was to be made.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl AfVsockError {
    pub(super) fn of_listening(port: u32, errno: Errno) -> Self {
        match errno {
            Errno::ADDRINUSE => Self::PortTaken(port),
            Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT | Errno::NODEV => {
                Self::Unavailable(errno.into())
            }
            Errno::ACCESS | Errno::PERM => Self::PortPermission {
                port,
                source: errno.into(),
            },
            _ => Self::Listen {
                port,
                source: errno.into(),
            },
        }
    }

    pub(super) fn of_connecting(cid: u32, port: u32, milliseconds: u128, errno: Errno) -> Self {
        match errno {
            // A guest answers RST where nobody listens.
            Errno::CONNRESET | Errno::CONNREFUSED => Self::Refused { cid, port },
            Errno::TIMEDOUT => Self::TimedOut {
                what: "The guest's answer",
                milliseconds,
            },
            Errno::AFNOSUPPORT => Self::Unavailable(errno.into()),
            _ => Self::Connect {
                cid,
                port,
                source: errno.into(),
            },
        }
    }

    pub(super) fn create(what: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self::Create {
            what,
            source: errno.into(),
        }
    }
}
