//! The virtio-mmio transport and the hosts of device code.
