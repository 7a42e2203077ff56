//! Exits as JavaScript objects, and their answers.

use microvm_kvm::{Exit, VirtualCpuRunner};
use napi::bindgen_prelude::{BigInt, Uint8Array};
use napi_derive::napi;

use crate::error::BindingError;

/// Why a vCPU left the guest. Which of the fields are there depends on `reason`.
#[derive(Default)]
#[napi(object, object_from_js = false)]
pub struct BindingExit {
    /// Name of the exit, which decides what else is there.
    pub reason: &'static str,
    /// Port number.
    pub port: Option<u32>,
    /// Bytes of an access.
    pub size: Option<u32>,
    /// Accesses.
    pub count: Option<u32>,
    /// Guest physical address, or of an instruction.
    pub address: Option<BigInt>,
    /// What the guest writes.
    pub data: Option<Uint8Array>,
    /// Bytes that an answer has.
    pub answer_length: Option<u32>,
    /// The processor's or the kernel's reason, the number of an exception, a call or a register.
    pub number: Option<BigInt>,
    /// Suberror, error code, kind or processor.
    pub detail: Option<u32>,
    /// A set of bits.
    pub flags: Option<BigInt>,
    /// Words that come with it.
    pub words: Option<Vec<BigInt>>,
}

// Typed arrays have no Debug.
impl std::fmt::Debug for BindingExit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("BindingExit")
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// Copies an exit out of the memory that is shared with the kernel.
pub(super) fn from_native(exit: Exit<'_>) -> BindingExit {
    let named = |reason| BindingExit {
        reason,
        ..BindingExit::default()
    };
    match exit {
        Exit::IoIn {
            port,
            size,
            count,
            data,
        } => BindingExit {
            port: Some(port.into()),
            size: Some(size.into()),
            count: Some(count),
            answer_length: length(data),
            ..named("io-in")
        },
        Exit::IoOut {
            port,
            size,
            count,
            data,
        } => BindingExit {
            port: Some(port.into()),
            size: Some(size.into()),
            count: Some(count),
            data: Some(bytes(data)),
            ..named("io-out")
        },
        Exit::MmioRead { address, data } => BindingExit {
            address: Some(address.into()),
            answer_length: length(data),
            ..named("mmio-read")
        },
        Exit::MmioWrite { address, data } => BindingExit {
            address: Some(address.into()),
            data: Some(bytes(data)),
            ..named("mmio-write")
        },
        Exit::Hlt => named("hlt"),
        Exit::Shutdown => named("shutdown"),
        Exit::FailEntry {
            hardware_reason,
            cpu,
        } => BindingExit {
            number: Some(hardware_reason.into()),
            detail: Some(cpu),
            ..named("fail-entry")
        },
        Exit::InternalError(error) => BindingExit {
            detail: Some(error.suberror),
            data: error.instruction().map(Uint8Array::new),
            words: Some(words(&error.data)),
            ..named("internal-error")
        },
        Exit::Interrupted => named("interrupted"),
        Exit::SystemEvent { kind, data } => BindingExit {
            detail: Some(kind),
            words: Some(words(&data)),
            ..named("system-event")
        },
        Exit::Debug {
            exception,
            pc,
            dr6,
            dr7,
        } => BindingExit {
            detail: Some(exception),
            address: Some(pc.into()),
            words: Some(words(&[dr6, dr7])),
            ..named("debug")
        },
        Exit::Hypercall {
            number, arguments, ..
        } => BindingExit {
            number: Some(number.into()),
            words: Some(words(&arguments)),
            answer_length: Some(8),
            ..named("hypercall")
        },
        Exit::MsrRead { index, reason, .. } => BindingExit {
            number: Some(u64::from(index).into()),
            flags: Some(u64::from(reason).into()),
            answer_length: Some(8),
            ..named("msr-read")
        },
        Exit::MsrWrite {
            index,
            reason,
            data,
            ..
        } => BindingExit {
            number: Some(u64::from(index).into()),
            flags: Some(u64::from(reason).into()),
            words: Some(words(&[data])),
            ..named("msr-write")
        },
        Exit::IoapicEoi { vector } => BindingExit {
            number: Some(u64::from(vector).into()),
            ..named("ioapic-eoi")
        },
        Exit::IrqWindowOpen => named("irq-window-open"),
        Exit::SetTpr => named("set-tpr"),
        Exit::TprAccess => named("tpr-access"),
        Exit::Exception {
            exception,
            error_code,
        } => BindingExit {
            number: Some(u64::from(exception).into()),
            detail: Some(error_code),
            ..named("exception")
        },
        Exit::Nmi => named("nmi"),
        Exit::MemoryFault {
            flags,
            address,
            size,
        } => BindingExit {
            flags: Some(flags.into()),
            address: Some(address.into()),
            words: Some(words(&[size])),
            ..named("memory-fault")
        },
        Exit::Unknown { hardware_reason } => BindingExit {
            number: Some(hardware_reason.into()),
            ..named("unknown")
        },
        Exit::Unsupported { reason } => BindingExit {
            number: Some(u64::from(reason).into()),
            ..named("unsupported")
        },
    }
}

/// Writes what the guest gets for the read that it waits for.
pub(super) fn answer(runner: &mut VirtualCpuRunner, bytes: &[u8]) -> Result<(), BindingError> {
    let wanted = match runner.last_exit()? {
        Exit::IoIn { data, .. } | Exit::MmioRead { data, .. } => {
            if data.len() == bytes.len() {
                data.copy_from_slice(bytes);
                return Ok(());
            }
            data.len()
        }
        Exit::Hypercall { result: value, .. } | Exit::MsrRead { data: value, .. } => {
            if let Ok(bytes) = bytes.try_into() {
                *value = u64::from_le_bytes(bytes);
                return Ok(());
            }
            size_of::<u64>()
        }
        _ => {
            return Err(invalid("The vCPU's last exit takes no answer".to_owned()));
        }
    };
    let given = bytes.len();
    Err(invalid(format!(
        "The answer has {given} bytes, the guest reads {wanted}"
    )))
}

fn invalid(message: String) -> BindingError {
    BindingError::coded("ERR_KVM_INVALID_ANSWER", message)
}

fn bytes(data: &[u8]) -> Uint8Array {
    Uint8Array::new(data.to_vec())
}

fn length(data: &[u8]) -> Option<u32> {
    u32::try_from(data.len()).ok()
}

fn words(data: &[u64]) -> Vec<BigInt> {
    data.iter().copied().map(BigInt::from).collect()
}
