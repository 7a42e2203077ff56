//! Devices that the VMM emulates itself.
