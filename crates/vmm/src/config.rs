//! What a machine is made of: plain data, checked before anything is opened.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::arch::x86_64::layout;
use crate::memory::HUGE_PAGE;

/// Most vCPUs of a machine. KVM may allow fewer.
pub const CPUS_MAX: u8 = 64;
/// Least RAM of a machine, in bytes.
pub const MEMORY_MIN: u64 = 16 << 20;
/// Most RAM of a machine, in bytes.
pub const MEMORY_MAX: u64 = 1 << 40;
/// Unit in which RAM is given, in bytes.
pub const PAGE: u64 = 4096;

/// Everything that a machine is made of.
#[derive(Debug)]
pub struct MachineConfig {
    /// Number of vCPUs, 1 to 64.
    pub cpus: u8,
    /// RAM in bytes: 16 MiB to 1 TiB, in whole pages.
    pub memory_bytes: u64,
    /// Back RAM with reserved 2 MiB pages; `memory_bytes` is then a multiple of 2 MiB.
    pub huge_pages: bool,
    /// Kernel image: an ELF `vmlinux` or a bzImage.
    pub kernel: PathBuf,
    /// Initramfs image, loaded as it is.
    pub initramfs: Option<PathBuf>,
    /// Kernel command line, at most 2047 bytes.
    pub command_line: String,
    /// The vsock device, if one is wanted.
    pub vsock: Option<VsockConfig>,
    /// Whether there is an entropy device.
    pub rng: bool,
    /// Devices that live in other processes.
    pub vhost_user: Vec<VhostUserConfig>,
    /// The machine's end of a stream socket pair for the serial console; without one, output is
    /// thrown away.
    pub console: Option<OwnedFd>,
    /// The KVM device; `/dev/kvm` when absent.
    pub kvm_device: Option<PathBuf>,
}

/// The vsock device.
#[derive(Debug)]
pub struct VsockConfig {
    /// Context ID of the guest, 3 or above.
    pub guest_cid: u64,
    /// What the guest's connections come to.
    pub host_end: VsockHostEnd,
}

/// The host's end of a vsock device.
#[derive(Debug)]
pub enum VsockHostEnd {
    /// Unix sockets, by a device of our own: the path of its socket, in a private folder that
    /// exists.
    Unix(PathBuf),
    /// `AF_VSOCK` sockets, by the kernel's device: an open `/dev/vhost-vsock` that nobody owns yet,
    /// and that was given the guest's context ID.
    Vhost(OwnedFd),
}

/// A vhost-user device.
#[derive(Debug)]
pub struct VhostUserConfig {
    /// Where the back end is.
    pub peer: VhostUserPeer,
    /// Virtio device type, such as 26 for a file system.
    pub device_type: u32,
    /// Number of queues.
    pub queues: u16,
    /// Largest size of each queue: a power of two up to 32768.
    pub queue_size: u16,
}

/// Where a vhost-user back end is.
#[derive(Debug)]
pub enum VhostUserPeer {
    /// It listens on a Unix socket at this path.
    Socket(PathBuf),
    /// It is at the other end of this connected Unix socket.
    Fd(OwnedFd),
}

/// What is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Number of vCPUs out of range.
    #[error("{cpus} vCPUs asked for, 1 to {max} are possible")]
    Cpus {
        /// The number that was asked for.
        cpus: u8,
        /// The most that is possible here.
        max: u8,
    },
    /// RAM out of range.
    #[error("{bytes} bytes of memory asked for, {min} to {max} are possible")]
    MemorySize {
        /// The size that was asked for, in bytes.
        bytes: u64,
        /// Least possible size, in bytes.
        min: u64,
        /// Largest possible size, in bytes.
        max: u64,
    },
    /// RAM is not a whole number of pages.
    #[error("Memory of {bytes} bytes is no multiple of the page size {page}")]
    MemoryAlignment {
        /// The size that was asked for, in bytes.
        bytes: u64,
        /// The page size, in bytes.
        page: u64,
    },
    /// The command line does not fit.
    #[error("Command line has {length} bytes, at most {max} fit")]
    CommandLineLength {
        /// Its length in bytes.
        length: usize,
        /// The most that fits, in bytes.
        max: usize,
    },
    /// The command line holds a NUL byte.
    #[error("Command line holds a NUL byte at offset {offset}")]
    CommandLineNul {
        /// Where, in bytes.
        offset: usize,
    },
    /// The vsock context ID is a reserved one.
    #[error("vsock context ID {guest_cid} is not between 3 and 4294967294")]
    GuestCid {
        /// The context ID.
        guest_cid: u64,
    },
    /// More devices than there are interrupt lines.
    #[error("{count} virtio devices asked for, at most {max} are possible")]
    Devices {
        /// How many were asked for.
        count: usize,
        /// The most that is possible.
        max: usize,
    },
    /// A vhost-user device without queues, or with queues of an impossible size.
    #[error(
        "vhost-user device {index} has {queues} queues of size {queue_size}; at least one queue and a power of two up to 32768 are needed"
    )]
    VhostUserQueues {
        /// Index in [`MachineConfig::vhost_user`].
        index: usize,
        /// Number of queues.
        queues: u16,
        /// Size of the queues.
        queue_size: u16,
    },
}

impl MachineConfig {
    /// Checks everything that can be known without opening anything.
    ///
    /// # Errors
    ///
    /// The first [`ConfigError`] found.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=CPUS_MAX).contains(&self.cpus) {
            return Err(ConfigError::Cpus {
                cpus: self.cpus,
                max: CPUS_MAX,
            });
        }
        self.validate_memory()?;
        validate_command_line(&self.command_line)?;
        if let Some(VsockConfig { guest_cid, .. }) = self.vsock
            && !(3..u64::from(u32::MAX)).contains(&guest_cid)
        {
            return Err(ConfigError::GuestCid { guest_cid });
        }
        self.validate_devices()
    }

    fn validate_memory(&self) -> Result<(), ConfigError> {
        let bytes = self.memory_bytes;
        if !(MEMORY_MIN..=MEMORY_MAX).contains(&bytes) {
            return Err(ConfigError::MemorySize {
                bytes,
                min: MEMORY_MIN,
                max: MEMORY_MAX,
            });
        }
        let page = if self.huge_pages { HUGE_PAGE } else { PAGE };
        if !bytes.is_multiple_of(page) {
            return Err(ConfigError::MemoryAlignment { bytes, page });
        }
        Ok(())
    }

    fn validate_devices(&self) -> Result<(), ConfigError> {
        let count =
            self.vhost_user.len() + usize::from(self.rng) + usize::from(self.vsock.is_some());
        if count > layout::VIRTIO_DEVICES_MAX {
            return Err(ConfigError::Devices {
                count,
                max: layout::VIRTIO_DEVICES_MAX,
            });
        }
        for (index, device) in self.vhost_user.iter().enumerate() {
            let VhostUserConfig {
                queues, queue_size, ..
            } = *device;
            if queues == 0 || !queue_size.is_power_of_two() {
                return Err(ConfigError::VhostUserQueues {
                    index,
                    queues,
                    queue_size,
                });
            }
        }
        Ok(())
    }
}

/// Checks length and contents of a kernel command line.
///
/// # Errors
///
/// [`ConfigError::CommandLineLength`] or [`ConfigError::CommandLineNul`].
pub fn validate_command_line(command_line: &str) -> Result<(), ConfigError> {
    if let Some(offset) = command_line.bytes().position(|byte| byte == 0) {
        return Err(ConfigError::CommandLineNul { offset });
    }
    if command_line.len() > layout::COMMAND_LINE_MAX {
        return Err(ConfigError::CommandLineLength {
            length: command_line.len(),
            max: layout::COMMAND_LINE_MAX,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
