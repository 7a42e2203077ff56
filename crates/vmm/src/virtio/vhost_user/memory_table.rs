//! Guest memory as a back end is told of it.

use std::sync::Arc;

use vhost::{VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::virtio::error::VirtioError;
use crate::virtio::state::QueueState;

/// All of guest memory, by its files.
///
/// # Errors
///
/// [`VirtioError::PrivateMemory`] for a region that another process would not see as the guest
/// does: one without a file, or mapped copy-on-write.
pub(super) fn regions(
    memory: &GuestMemoryMmap,
) -> Result<Vec<VhostUserMemoryRegionInfo>, VirtioError> {
    memory
        .iter()
        .map(|region| {
            let private = || VirtioError::PrivateMemory {
                address: region.start_addr().raw_value(),
            };
            if Arc::as_ref(&region.get_mmap()).flags() & libc::MAP_SHARED == 0 {
                return Err(private());
            }
            VhostUserMemoryRegionInfo::from_guest_region(region).map_err(|_| private())
        })
        .collect()
}

/// A checked queue in the addresses that the protocol wants: those of this process.
pub(super) fn ring_addresses(
    memory: &GuestMemoryMmap,
    queue: &QueueState,
) -> Option<VringConfigData> {
    let address = |guest| {
        let host = memory.get_host_address(GuestAddress(guest)).ok()?;
        Some(host as u64)
    };
    Some(VringConfigData {
        queue_max_size: queue.max_size,
        queue_size: queue.size,
        flags: 0,
        desc_table_addr: address(queue.descriptor_table)?,
        used_ring_addr: address(queue.used_ring)?,
        avail_ring_addr: address(queue.avail_ring)?,
        log_addr: None,
    })
}
