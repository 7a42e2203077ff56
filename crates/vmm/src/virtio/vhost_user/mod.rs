//! The vhost-user front end.

use super::error::VirtioError;
use super::plug::VhostUserDevice;
use super::state::RingPosition;
use super::transport::{Activation, DeviceHost, HostContext};

pub(super) struct VhostUserHost {}

impl VhostUserHost {
    pub(super) fn connect(
        _device: VhostUserDevice,
        _context: HostContext,
    ) -> Result<Self, VirtioError> {
        Err(VirtioError::Stopped)
    }
}

impl DeviceHost for VhostUserHost {
    fn device_type(&self) -> u32 {
        0
    }
    fn features(&self) -> u64 {
        0
    }
    fn queue_sizes(&self) -> Vec<u16> {
        Vec::new()
    }
    fn read_config(&self, _offset: u32, _data: &mut [u8]) {}
    fn write_config(&mut self, _offset: u32, _data: &[u8]) {}
    fn activate(&mut self, _activation: &Activation<'_>) -> Result<(), VirtioError> {
        Ok(())
    }
    fn reset(&mut self) {}
    fn pause(&mut self) -> Result<Vec<RingPosition>, VirtioError> {
        Ok(Vec::new())
    }
    fn resume(&mut self) -> Result<(), VirtioError> {
        Ok(())
    }
    fn stop(&mut self) {}
    fn canceller(&self) -> Option<Box<dyn Fn() + Send + Sync>> {
        None
    }
}
