//! The virtio-vsock device and its hosts
