//! A vhost device of the kernel, as far as its host uses it (linux/vhost.h).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use vhost::vhost_kern::VhostKernBackend;
use vhost::vhost_kern::vhost_binding::VHOST_VSOCK_SET_RUNNING;
use vhost::{Error as VhostError, VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{
    Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MemoryRegionAddress,
};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::ioctl_with_ref;

use crate::virtio::error::VirtioError;
use crate::virtio::state::QueueState;

/// What the kernel does for a device. A seam for tests, which have no such kernel everywhere.
pub(super) trait KernelDevice: Send {
    /// Makes this process the owner: its memory is the one that addresses are of.
    fn take_owner(&self) -> Result<(), VirtioError>;

    fn features(&self) -> Result<u64, VirtioError>;

    fn set_features(&self, features: u64) -> Result<(), VirtioError>;

    /// Tells all of guest memory.
    fn set_memory(&self, memory: &GuestMemoryMmap) -> Result<(), VirtioError>;

    /// Tells a ring that was checked, and its descriptors. Refused while the device runs.
    fn set_ring(
        &self,
        index: usize,
        queue: &QueueState,
        kick: &EventFd,
        call: &EventFd,
    ) -> Result<(), VirtioError>;

    /// The next entry of the available ring that the kernel would take.
    fn ring_position(&self, index: usize) -> Result<u32, VirtioError>;

    /// Starts work on the rings, or ends it: none is done any more when this returns.
    fn set_running(&self, running: bool) -> Result<(), VirtioError>;
}

/// An open `/dev/vhost-vsock`. Closing it resets the guest's connections.
pub(super) struct VhostVsock {
    file: File,
    memory: Arc<GuestMemoryMmap>,
}

impl VhostVsock {
    pub(super) fn new(device: OwnedFd, memory: Arc<GuestMemoryMmap>) -> Self {
        Self {
            file: File::from(device),
            memory,
        }
    }
}

impl AsRawFd for VhostVsock {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl VhostKernBackend for VhostVsock {
    type AS = Arc<GuestMemoryMmap>;

    fn mem(&self) -> &Self::AS {
        &self.memory
    }

    /// The transport checked the rings, and its rule is the exact one: a ring may end where memory
    /// ends.
    fn is_valid(&self, _: &VringConfigData) -> bool {
        true
    }
}

impl KernelDevice for VhostVsock {
    fn take_owner(&self) -> Result<(), VirtioError> {
        self.set_owner().map_err(refused("take an owner"))
    }

    fn features(&self) -> Result<u64, VirtioError> {
        self.get_features().map_err(refused("tell its features"))
    }

    fn set_features(&self, features: u64) -> Result<(), VirtioError> {
        VhostBackend::set_features(self, features).map_err(refused("take the driver's features"))
    }

    fn set_memory(&self, memory: &GuestMemoryMmap) -> Result<(), VirtioError> {
        let failed = refused("take guest memory");
        let mut regions = Vec::new();
        for region in memory.iter() {
            let Ok(address) = region.get_host_address(MemoryRegionAddress(0)) else {
                return Err(failed(VhostError::InvalidGuestMemoryRegion));
            };
            regions.push(VhostUserMemoryRegionInfo {
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: address as u64,
                // The kernel goes by addresses of this process, not by files.
                mmap_offset: 0,
                mmap_handle: -1,
            });
        }
        self.set_mem_table(&regions).map(drop).map_err(failed)
    }

    fn set_ring(
        &self,
        index: usize,
        queue: &QueueState,
        kick: &EventFd,
        call: &EventFd,
    ) -> Result<(), VirtioError> {
        let addresses = VringConfigData {
            queue_max_size: queue.max_size,
            queue_size: queue.size,
            flags: 0,
            desc_table_addr: queue.descriptor_table,
            used_ring_addr: queue.used_ring,
            avail_ring_addr: queue.avail_ring,
            log_addr: None,
        };
        self.set_vring_num(index, queue.size)
            .map_err(refused("take a ring's size"))?;
        self.set_vring_base(index, queue.position.next_avail)
            .map_err(refused("take a ring's position"))?;
        self.set_vring_addr(index, &addresses)
            .map_err(refused("take a ring's addresses"))?;
        self.set_vring_call(index, call)
            .map_err(refused("take a ring's interrupt"))?;
        self.set_vring_kick(index, kick)
            .map_err(refused("take a ring's kicks"))
    }

    fn ring_position(&self, index: usize) -> Result<u32, VirtioError> {
        self.get_vring_base(index)
            .map_err(refused("tell a ring's position"))
    }

    fn set_running(&self, running: bool) -> Result<(), VirtioError> {
        let operation = if running { "start" } else { "stop" };
        let running = libc::c_int::from(running);
        // SAFETY: the call reads one `int`, which `running` is, and keeps no pointer. The memory
        // that the kernel works on afterwards was told by `set_memory`; the machine keeps it
        // mapped until this device is stopped and closed.
        let answer = unsafe { ioctl_with_ref(&self.file, VHOST_VSOCK_SET_RUNNING(), &running) };
        if answer < 0 {
            let source = io::Error::last_os_error();
            return Err(VirtioError::KernelDevice { operation, source });
        }
        Ok(())
    }
}

fn refused(operation: &'static str) -> impl Fn(VhostError) -> VirtioError {
    move |error| VirtioError::KernelDevice {
        operation,
        source: match error {
            VhostError::IoctlError(source) => source,
            error => io::Error::other(error),
        },
    }
}
