//! The one place where failures of the crates below become JavaScript errors.

use std::error::Error;
use std::fmt::Write;
use std::io;

use microvm_archive::Error as ArchiveError;
use microvm_host::HostError;
use microvm_kvm::guest_speed::GuestSpeedError;
use microvm_process::SpawnError;
use microvm_vmm::boot::{BootError, ExtractError, Image};
use microvm_vmm::{ConfigError, MachineError};
use microvm_vsock::{AfVsockError, VhostVsockError, VsockError};
use napi::bindgen_prelude::{JsObjectValue, JsValue};
use napi::{Env, Status};

/// A failure on its way to JavaScript: an `Error` with `code`, and with `errno` where a system
/// call was refused.
#[derive(Debug)]
pub(crate) struct BindingError {
    /// Stable name; `src/errors.ts` lists them all.
    code: &'static str,
    /// The failure and all of its sources.
    message: String,
    errno: Option<i32>,
    /// The system call that was refused, and the path that it was about.
    call: Option<(&'static str, String)>,
}

impl BindingError {
    /// A failure with all of its sources in the message.
    pub(crate) fn new(code: &'static str, error: &(dyn Error + 'static)) -> Self {
        Self {
            code,
            message: with_sources(error),
            errno: errno(error),
            call: None,
        }
    }

    /// A failure that has no error of a crate below behind it.
    pub(crate) fn coded(code: &'static str, message: String) -> Self {
        Self {
            code,
            message,
            errno: None,
            call: None,
        }
    }

    /// A call of the binding that breaks its contract: a bug of the TypeScript side.
    pub(crate) fn invalid(message: &str) -> Self {
        Self {
            code: "ERR_NATIVE_FAILED",
            message: message.to_owned(),
            errno: None,
            call: None,
        }
    }

    /// A call that needs a running machine.
    pub(crate) fn ended() -> Self {
        Self {
            code: "ERR_MACHINE_EXITED",
            message: "The machine has ended".to_owned(),
            errno: None,
            call: None,
        }
    }

    /// A bug on this side, such as a panic.
    pub(crate) fn internal(message: String) -> Self {
        Self {
            code: "ERR_NATIVE_FAILED",
            message,
            errno: None,
            call: None,
        }
    }

    /// The host refused something that every other host grants.
    pub(crate) fn system(message: &str, error: &io::Error) -> Self {
        Self {
            code: "ERR_NATIVE_FAILED",
            message: format!("{message}: {error}"),
            errno: error.raw_os_error(),
            call: None,
        }
    }

    /// A file that the caller named cannot be used.
    pub(crate) fn file(path: &str, error: &io::Error) -> Self {
        Self {
            code: "ERR_RING3_FILE",
            message: format!("{path} cannot be opened: {error}"),
            errno: error.raw_os_error(),
            call: None,
        }
    }

    /// The JavaScript error; on the JavaScript thread only.
    pub(crate) fn into_js(self, env: &Env) -> napi::Error {
        let fallback = |_| napi::Error::new(Status::GenericFailure, self.message.clone());
        let error = env
            .create_error(napi::Error::new(
                Status::GenericFailure,
                self.message.clone(),
            ))
            .and_then(|mut object| {
                object.set_named_property("code", self.code)?;
                if let Some(errno) = self.errno {
                    object.set_named_property("errno", errno)?;
                }
                if let Some((syscall, path)) = &self.call {
                    object.set_named_property("syscall", *syscall)?;
                    object.set_named_property("path", path.as_str())?;
                }
                Ok(object.to_unknown())
            });
        match error {
            Ok(error) => napi::Error::from(error),
            Err(error) => fallback(error),
        }
    }
}

impl From<ArchiveError> for BindingError {
    fn from(error: ArchiveError) -> Self {
        let code = match &error {
            ArchiveError::File { .. } => "ERR_COPY_FILE",
            ArchiveError::Changed { .. } => "ERR_COPY_CHANGED",
            ArchiveError::Refused { .. } => "ERR_COPY_REFUSED",
            ArchiveError::Limit { .. } => "ERR_COPY_LIMIT",
            ArchiveError::Malformed(_) | ArchiveError::Truncated => "ERR_COPY_ARCHIVE",
            _ => "ERR_NATIVE_FAILED",
        };
        let binding = Self::new(code, &error);
        match error {
            ArchiveError::File {
                syscall,
                path,
                source,
            } => Self {
                errno: Some(source.raw_os_error()),
                call: Some((syscall, path.to_string_lossy().into_owned())),
                ..binding
            },
            _ => binding,
        }
    }
}

impl From<HostError> for BindingError {
    fn from(error: HostError) -> Self {
        Self::new("ERR_NATIVE_FAILED", &error)
    }
}

impl From<SpawnError> for BindingError {
    fn from(error: SpawnError) -> Self {
        Self::new("ERR_SPAWN_FAILED", &error)
    }
}

impl From<microvm_kvm::Error> for BindingError {
    fn from(error: microvm_kvm::Error) -> Self {
        use microvm_kvm::Error as Kvm;
        let code = match &error {
            Kvm::Open { .. } => match error.errno() {
                libc::ENOENT => "ERR_KVM_MISSING",
                libc::EACCES | libc::EPERM => "ERR_KVM_PERMISSION",
                _ => "ERR_KVM_FAILED",
            },
            Kvm::NotKvm { .. } => "ERR_KVM_NOT_A_DEVICE",
            Kvm::ApiVersion { .. } => "ERR_KVM_API_VERSION",
            Kvm::OutOfBounds { .. } => "ERR_KVM_OUT_OF_BOUNDS",
            Kvm::RegionLength { .. } | Kvm::SlotAddress { .. } => "ERR_KVM_UNALIGNED",
            Kvm::SlotOverlap { .. } => "ERR_KVM_SLOT_OVERLAP",
            _ => "ERR_KVM_FAILED",
        };
        Self {
            code,
            message: with_sources(&error),
            errno: Some(error.errno()),
            call: None,
        }
    }
}

impl From<GuestSpeedError> for BindingError {
    fn from(error: GuestSpeedError) -> Self {
        match error {
            GuestSpeedError::Device(error) => error.into(),
            error => Self::new("ERR_KVM_FAILED", &error),
        }
    }
}

impl From<microvm_ring3::Error> for BindingError {
    fn from(error: microvm_ring3::Error) -> Self {
        use microvm_ring3::Error as Ring3;
        let code = match error {
            // What to do about it is the hint's.
            Ring3::Device { source, .. } => return source.into(),
            Ring3::Kvm { ref source, .. } => {
                let kvm = Self::from(source.clone());
                return Self {
                    message: with_sources(&error),
                    ..kvm
                };
            }
            Ring3::Unsupported { .. } => "ERR_RING3_UNSUPPORTED",
            Ring3::Range { .. }
            | Ring3::Offset { .. }
            | Ring3::NotMapped { .. }
            | Ring3::ReadOnlyMemory => "ERR_RING3_RANGE",
            Ring3::OtherMachine | Ring3::ExtendedState { .. } => "ERR_INVALID_OPTIONS",
            Ring3::Released => "ERR_RING3_CLOSED",
            _ => "ERR_RING3_FAILED",
        };
        Self::new(code, &error)
    }
}

impl From<microvm_ring3_linux::Error> for BindingError {
    fn from(error: microvm_ring3_linux::Error) -> Self {
        use microvm_ring3_linux::Error as Linux;
        let (code, errno) = match error {
            Linux::Platform { ref source, .. } => {
                let platform = Self::from(source.clone());
                return Self {
                    message: with_sources(&error),
                    ..platform
                };
            }
            Linux::Root { source, .. } => ("ERR_RING3_FILE", Some(source.raw_os_error())),
            Linux::WorkingDirectory { source, .. } => ("ERR_EXEC_CWD", Some(source.raw_os_error())),
            Linux::Program { source, .. } => match source.raw_os_error() {
                errno @ (libc::ENOENT | libc::ENOTDIR) => ("ERR_PROGRAM_MISSING", Some(errno)),
                errno => ("ERR_PROGRAM_INVALID", Some(errno)),
            },
            Linux::Executable { .. } => ("ERR_PROGRAM_INVALID", None),
            Linux::Arguments { .. } | Linux::Memory { .. } | Linux::Limit { .. } => {
                ("ERR_INVALID_OPTIONS", None)
            }
            Linux::Host { source, .. } => ("ERR_RING3_FAILED", Some(source.raw_os_error())),
            _ => ("ERR_RING3_FAILED", None),
        };
        Self {
            errno,
            ..Self::new(code, &error)
        }
    }
}

impl From<VsockError> for BindingError {
    fn from(error: VsockError) -> Self {
        Self::new(vsock_code(&error), &error)
    }
}

fn vsock_code(error: &VsockError) -> &'static str {
    match error {
        VsockError::PathTooLong { .. } => "ERR_SOCKET_PATH_TOO_LONG",
        VsockError::Listen { .. } => "ERR_SOCKET_FAILED",
        VsockError::GuestCid(_) => "ERR_NATIVE_FAILED",
        VsockError::Create { .. } | VsockError::VhostUser { .. } => "ERR_MACHINE_FAILED",
    }
}

impl From<VhostVsockError> for BindingError {
    fn from(error: VhostVsockError) -> Self {
        let code = match &error {
            VhostVsockError::Missing { .. } => "ERR_VHOST_VSOCK_MISSING",
            VhostVsockError::Permission { .. } => "ERR_VHOST_VSOCK_PERMISSION",
            VhostVsockError::Taken(_) => "ERR_VSOCK_CID_TAKEN",
            VhostVsockError::Reserved(_) => "ERR_INVALID_OPTIONS",
            VhostVsockError::Open { .. } | VhostVsockError::Refused { .. } => {
                "ERR_VHOST_VSOCK_FAILED"
            }
        };
        Self::new(code, &error)
    }
}

impl From<AfVsockError> for BindingError {
    fn from(error: AfVsockError) -> Self {
        let code = match &error {
            AfVsockError::PortTaken(_) => "ERR_VSOCK_PORT_TAKEN",
            AfVsockError::Refused { .. } => "ERR_VSOCK_REFUSED",
            AfVsockError::TimedOut { .. } => "ERR_CHANNEL_TIMEOUT",
            AfVsockError::Closed => "ERR_MACHINE_EXITED",
            AfVsockError::Create { .. } => "ERR_NATIVE_FAILED",
            AfVsockError::Unavailable(_)
            | AfVsockError::PortPermission { .. }
            | AfVsockError::Listen { .. }
            | AfVsockError::Connect { .. } => "ERR_SOCKET_FAILED",
        };
        Self::new(code, &error)
    }
}

impl From<MachineError> for BindingError {
    fn from(error: MachineError) -> Self {
        let code = match error {
            MachineError::Kvm(error) => return error.into(),
            MachineError::Config(ref error) => config_code(error),
            MachineError::Boot(ref error) => boot_code(error),
            MachineError::Vsock(ref error) => vsock_code(error),
            MachineError::State { .. } => "ERR_MACHINE_EXITED",
            _ => "ERR_MACHINE_FAILED",
        };
        Self::new(code, &error)
    }
}

impl From<ExtractError> for BindingError {
    fn from(error: ExtractError) -> Self {
        let code = match &error {
            ExtractError::Image(error) => boot_code(error),
            ExtractError::Output { .. } => "ERR_CACHE",
            _ => "ERR_KERNEL_INVALID",
        };
        Self::new(code, &error)
    }
}

fn config_code(error: &ConfigError) -> &'static str {
    match error {
        ConfigError::CommandLineLength { .. } => "ERR_COMMAND_LINE_TOO_LONG",
        // Other limits were checked before: this one is the host's.
        ConfigError::Cpus { .. } => "ERR_NOT_SUPPORTED",
        _ => "ERR_INVALID_OPTIONS",
    }
}

fn boot_code(error: &BootError) -> &'static str {
    match error {
        BootError::Missing { image, .. } => match image {
            Image::Kernel => "ERR_KERNEL_MISSING",
            Image::Initramfs => "ERR_ROOTFS_MISSING",
        },
        BootError::Unreadable { image, .. } => match image {
            Image::Kernel => "ERR_KERNEL_UNREADABLE",
            Image::Initramfs => "ERR_ROOTFS_MISSING",
        },
        BootError::Truncated { .. } => "ERR_KERNEL_TRUNCATED",
        BootError::NotAFile { .. } | BootError::NotAKernel { .. } => "ERR_KERNEL_INVALID",
        BootError::OtherArchitecture { .. } => "ERR_KERNEL_ARCHITECTURE",
        BootError::KernelTooLarge { .. } => "ERR_INVALID_OPTIONS",
        BootError::InitramfsTooLarge { .. } => "ERR_INITRAMFS_TOO_LARGE",
        BootError::CommandLine(error) => config_code(error),
        _ => "ERR_MACHINE_FAILED",
    }
}

fn with_sources(error: &(dyn Error + 'static)) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        // Writing to a String cannot fail.
        let _ = write!(message, ": {error}");
        source = error.source();
    }
    message
}

fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.raw_os_error();
        }
        next = error.source();
    }
    None
}
