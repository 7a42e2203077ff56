//! The connection to the front end, one after another.

use std::sync::Arc;

use log::{error, info};
use vhost::vhost_user::{Error as ProtocolError, Listener};
use vhost_user_backend::{Error as DaemonError, VhostUserDaemon};
use virtiofsd::filesystem::{FileSystem, SerializableFileSystem};
use virtiofsd::server::Server;
use vm_memory::GuestMemoryAtomic;

use crate::backend::{Backend, Memory, Shape};
use crate::error::Error;
use crate::logging;
use crate::memory_holes;
use crate::names::PlainNames;

/// What is served to whom.
pub struct Serving {
    pub listener: Listener,
    /// Whether the next front end is waited for when one has gone.
    pub reconnect: bool,
    /// Whether guests may delay writes.
    pub writeback: bool,
    pub shape: Shape,
}

/// Serves the first front end, or one after another. The file system's state outlasts a connection: a front end that
/// comes back goes on with its inodes, and a guest that begins anew sends INIT, which wipes them. (Who sends none is no guest that mounts, and shares what
/// the one before could reach.)
pub fn serve<F>(fs: F, serving: Serving) -> Result<(), Error>
where
    F: FileSystem + SerializableFileSystem + Send + Sync + 'static,
{
    let Serving {
        mut listener,
        reconnect,
        writeback,
        shape,
    } = serving;
    memory_holes::mend().map_err(Error::Signals)?;
    let server = Arc::new(Server::new(PlainNames { fs, writeback }));
    loop {
        memory_holes::forget();
        let backend = Arc::new(Backend::new(Arc::clone(&server), &shape)?);
        let mut connection = Connection::new(backend)?;
        logging::next_connection();
        info!("Waiting for vhost-user socket connection...");
        connection
            .daemon
            .start(&mut listener)
            .map_err(|error| Error::Accept(error.to_string()))?;
        info!("Client connected, servicing requests");
        match connection.daemon.wait() {
            Ok(())
            | Err(DaemonError::HandleRequest(
                ProtocolError::Disconnected
                | ProtocolError::PartialMessage
                | ProtocolError::SocketBroken(_),
            )) if reconnect => info!("Client disconnected"),
            Ok(())
            | Err(DaemonError::HandleRequest(
                ProtocolError::Disconnected
                | ProtocolError::PartialMessage
                | ProtocolError::SocketBroken(_),
            )) => info!("Client disconnected, shutting down"),
            Err(error) if reconnect => error!("Waiting for daemon failed: {error}"),
            // The front end is there and gets no more answers: no end to be taken for a good one.
            Err(error) => return Err(Error::Connection(error.to_string())),
        }
        drop(connection);
        if !reconnect {
            return Ok(());
        }
    }
}

/// The library's daemon, whose threads have to be told to end before it is dropped.
struct Connection<F: FileSystem + SerializableFileSystem + Send + Sync + 'static> {
    daemon: VhostUserDaemon<Arc<Backend<F>>>,
    backend: Arc<Backend<F>>,
}

impl<F: FileSystem + SerializableFileSystem + Send + Sync + 'static> Connection<F> {
    fn new(backend: Arc<Backend<F>>) -> Result<Self, Error> {
        let failed = |reason: String| Error::Backend(reason);
        let memory = GuestMemoryAtomic::new(Memory::new());
        let daemon = VhostUserDaemon::new("front-end".to_owned(), Arc::clone(&backend), memory)
            .map_err(|error| failed(error.to_string()))?;
        for handler in daemon.get_epoll_handlers() {
            backend
                .watch_end(&handler)
                .map_err(|error| failed(error.to_string()))?;
        }
        Ok(Self { daemon, backend })
    }
}

impl<F: FileSystem + SerializableFileSystem + Send + Sync + 'static> Drop for Connection<F> {
    fn drop(&mut self) {
        self.backend.end();
    }
}
