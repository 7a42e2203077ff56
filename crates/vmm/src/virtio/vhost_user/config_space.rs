//! A device's configuration space, as far as the front end answers for it.

use virtio_bindings::virtio_ids as id;

/// Bytes that no standard configuration space exceeds.
const LARGEST: u32 = 256;

/// Bytes of configuration space to ask a back end for. Some answer only what is exactly theirs,
/// so this is the structure of the device type (virtio 1.2, section 5), without fields that only
/// features bring which such a back end would have to offer.
pub(super) fn length(device_type: u32) -> u32 {
    match device_type {
        id::VIRTIO_ID_NET | id::VIRTIO_ID_CONSOLE => 12,
        id::VIRTIO_ID_BLOCK => 60,
        id::VIRTIO_ID_SCSI => 36,
        id::VIRTIO_ID_GPU => 16,
        id::VIRTIO_ID_INPUT => 136,
        id::VIRTIO_ID_VSOCK => 8,
        id::VIRTIO_ID_SOUND => 12,
        id::VIRTIO_ID_FS => 40,
        _ => LARGEST,
    }
}

/// The configuration space's bytes.
#[derive(Debug, Default)]
pub(super) struct ConfigSpace {
    bytes: Vec<u8>,
    /// The back end takes the driver's writes.
    writable: bool,
}

impl ConfigSpace {
    pub(super) fn fixed(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            writable: false,
        }
    }

    pub(super) fn of_peer(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            writable: true,
        }
    }

    /// Whether a write of `length` bytes at `offset` is for the back end.
    pub(super) fn takes(&self, offset: u32, length: usize) -> bool {
        self.writable && self.range(offset, length).is_some()
    }

    /// Fills `data`; what is beyond the end reads as zero.
    pub(super) fn read(&self, offset: u32, data: &mut [u8]) {
        data.fill(0);
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.bytes.get(offset..))
            .unwrap_or_default();
        for (target, source) in data.iter_mut().zip(bytes) {
            *target = *source;
        }
    }

    pub(super) fn write(&mut self, offset: u32, data: &[u8]) {
        if let Some(range) = self.range(offset, data.len())
            && let Some(bytes) = self.bytes.get_mut(range)
        {
            bytes.copy_from_slice(data);
        }
    }

    fn range(&self, offset: u32, length: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(length)?;
        (end <= self.bytes.len()).then_some(start..end)
    }
}
