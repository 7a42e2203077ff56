//! Port I/O and MMIO: which device answers at an address.

/// A device on the port or MMIO bus. Called from vCPU threads, several at a time.
pub trait BusDevice: Send + Sync {
    /// Fills `data` for a read of `data.len()` bytes at `offset` from the device's base.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Takes a write of `data` at `offset` from the device's base.
    fn write(&self, offset: u64, data: &[u8]);
}
