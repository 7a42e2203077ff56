//! The library's daemon with its queue thread.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use microvm_virtio::Device;
use vhost_user_backend::VhostUserDaemon;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::epoll::EventSet;

use super::backend::{AGAIN_EVENT, DEVICE_EVENT, EXIT_EVENT, Shared};
use super::{lock, notify};
use crate::VsockError;

/// The library's daemon, whose queue thread has to be told to end before it is dropped.
pub(super) struct QueueThread {
    pub(super) daemon: VhostUserDaemon<Arc<Shared>>,
    shared: Arc<Shared>,
}

impl QueueThread {
    pub(super) fn start(shared: &Arc<Shared>) -> Result<Self, VsockError> {
        let refused = |reason: String| VsockError::VhostUser { reason };
        let daemon = VhostUserDaemon::new(
            "vsock-front-end".to_owned(),
            Arc::clone(shared),
            shared.memory.clone(),
        )
        .map_err(|error| refused(error.to_string()))?;
        let thread = Self {
            daemon,
            shared: Arc::clone(shared),
        };
        let handlers = thread.daemon.get_epoll_handlers();
        let handler = handlers
            .first()
            .ok_or_else(|| refused("It has no queue thread".to_owned()))?;
        let register = |fd, event: u16| {
            handler
                .register_listener(fd, EventSet::IN, event.into())
                .map_err(|error| refused(error.to_string()))
        };
        register(shared.exit.as_raw_fd(), EXIT_EVENT)?;
        register(shared.again.as_raw_fd(), AGAIN_EVENT)?;
        if let Some(hosted) = lock(&shared.hosted).as_ref() {
            let source = Device::<GuestMemoryMmap>::event_source(&hosted.device);
            if let Some(source) = source {
                register(source.as_raw_fd(), DEVICE_EVENT)?;
            }
        }
        Ok(thread)
    }
}

impl Drop for QueueThread {
    fn drop(&mut self) {
        notify(&self.shared.exit);
    }
}
