//! Stub
use crate::{VsockDevice, VsockError};
use std::os::unix::net::UnixListener;
use std::path::Path;
/// How a host came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostEnd {
    /// [`VhostUserHost::stop`] was called.
    Stopped,
    /// The front end closed its connection.
    FrontEndGone,
    /// Something failed
    Failed(String),
}
/// host
#[derive(Debug)]
pub struct VhostUserHost {}
impl VhostUserHost {
    /// Serves
    pub fn serve(_device: VsockDevice, _socket: &Path) -> Result<Self, VsockError> {
        todo!()
    }
    /// Serves
    pub fn serve_listener(
        _device: VsockDevice,
        _listener: UnixListener,
    ) -> Result<Self, VsockError> {
        todo!()
    }
    /// wait
    pub fn wait(&self) -> HostEnd {
        todo!()
    }
    /// stop
    pub fn stop(&self) -> HostEnd {
        todo!()
    }
}
