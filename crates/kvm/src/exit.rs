//! Why a vCPU left the guest.
//!
//! Data of an exit lies in memory that is shared with the kernel. Where the guest waits for an
//! answer the data is mutable: what it holds at the next run is what the guest reads.

use std::ptr::NonNull;

use kvm_bindings::{
    KVM_EXIT_DEBUG, KVM_EXIT_EXCEPTION, KVM_EXIT_FAIL_ENTRY, KVM_EXIT_HLT, KVM_EXIT_HYPERCALL,
    KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_INTR, KVM_EXIT_IO, KVM_EXIT_IO_IN, KVM_EXIT_IO_OUT,
    KVM_EXIT_IOAPIC_EOI, KVM_EXIT_IRQ_WINDOW_OPEN, KVM_EXIT_MEMORY_FAULT, KVM_EXIT_MMIO,
    KVM_EXIT_NMI, KVM_EXIT_SET_TPR, KVM_EXIT_SHUTDOWN, KVM_EXIT_SYSTEM_EVENT, KVM_EXIT_TPR_ACCESS,
    KVM_EXIT_UNKNOWN, KVM_EXIT_X86_RDMSR, KVM_EXIT_X86_WRMSR, KVM_INTERNAL_ERROR_EMULATION,
    KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES, kvm_run,
};

use crate::error::Error;

/// Why a vCPU left the guest.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit<'run> {
    /// The guest reads a port; it gets what `data` holds at the next run.
    IoIn {
        /// Port number.
        port: u16,
        /// Bytes of one access: 1, 2 or 4.
        size: u8,
        /// Accesses; more than 1 for string instructions.
        count: u32,
        /// `size * count` bytes.
        data: &'run mut [u8],
    },
    /// The guest writes to a port.
    IoOut {
        /// Port number.
        port: u16,
        /// Bytes of one access: 1, 2 or 4.
        size: u8,
        /// Accesses; more than 1 for string instructions.
        count: u32,
        /// `size * count` bytes.
        data: &'run [u8],
    },
    /// The guest reads where no memory slot is; it gets what `data` holds at the next run.
    MmioRead {
        /// Guest physical address.
        address: u64,
        /// 1 to 8 bytes.
        data: &'run mut [u8],
    },
    /// The guest writes where no memory slot is.
    MmioWrite {
        /// Guest physical address.
        address: u64,
        /// 1 to 8 bytes.
        data: &'run [u8],
    },
    /// The guest halted (never with an in-kernel interrupt controller, which waits itself).
    Hlt,
    /// The guest reset: a triple fault, usually.
    Shutdown,
    /// The processor refused the guest's state.
    FailEntry {
        /// The processor's reason.
        hardware_reason: u64,
        /// Number of the host's processor.
        cpu: u32,
    },
    /// KVM cannot go on, most often because it cannot emulate an instruction.
    InternalError(InternalError),
    /// A signal or an immediate exit ended the run; nothing happened in the guest.
    Interrupted,
    /// The guest asked for a reset or a power-off, by a way that KVM knows.
    SystemEvent {
        /// A `KVM_SYSTEM_EVENT_` number.
        kind: u32,
        /// What comes with it.
        data: Vec<u64>,
    },
    /// A breakpoint or a single step of the host's debugger.
    Debug {
        /// Number of the exception.
        exception: u32,
        /// Linear address of the instruction.
        pc: u64,
        /// Debug status register.
        dr6: u64,
        /// Debug control register.
        dr7: u64,
    },
    /// The guest calls the hypervisor; it gets what `result` holds at the next run.
    Hypercall {
        /// Number of the call.
        number: u64,
        /// Its arguments.
        arguments: [u64; 6],
        /// Its result.
        result: &'run mut u64,
    },
    /// The guest reads a model-specific register that is left to this process.
    MsrRead {
        /// Number of the register.
        index: u32,
        /// A set of `KVM_MSR_EXIT_REASON_` bits.
        reason: u32,
        /// What the guest reads.
        data: &'run mut u64,
        /// Not 0: the guest gets a general protection fault instead.
        error: &'run mut u8,
    },
    /// The guest writes a model-specific register that is left to this process.
    MsrWrite {
        /// Number of the register.
        index: u32,
        /// A set of `KVM_MSR_EXIT_REASON_` bits.
        reason: u32,
        /// What the guest writes.
        data: u64,
        /// Not 0: the guest gets a general protection fault.
        error: &'run mut u8,
    },
    /// The guest ended an interrupt at the IOAPIC (with a split interrupt controller).
    IoapicEoi {
        /// The interrupt's vector.
        vector: u8,
    },
    /// An interrupt can be injected now, as was asked for.
    IrqWindowOpen,
    /// The guest changed the task priority register.
    SetTpr,
    /// The guest accessed the task priority register, as was asked for.
    TprAccess,
    /// The guest raised an exception that KVM leaves to this process.
    Exception {
        /// Number of the exception.
        exception: u32,
        /// Its error code.
        error_code: u32,
    },
    /// A non-maskable interrupt of the host.
    Nmi,
    /// The guest touched memory that the host cannot give it.
    MemoryFault {
        /// A set of `KVM_MEMORY_EXIT_FLAG_` bits.
        flags: u64,
        /// Guest physical address.
        address: u64,
        /// Bytes.
        size: u64,
    },
    /// The processor left the guest for a reason that KVM does not know.
    Unknown {
        /// The processor's reason.
        hardware_reason: u64,
    },
    /// An exit that this crate does not know.
    Unsupported {
        /// A `KVM_EXIT_` number.
        reason: u32,
    },
}

/// Why KVM cannot go on with a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalError {
    /// A `KVM_INTERNAL_ERROR_` number; 1: an instruction cannot be emulated.
    pub suberror: u32,
    /// What comes with it; its meaning depends on `suberror`.
    pub data: Vec<u64>,
}

impl InternalError {
    /// Bytes of the instruction that cannot be emulated, where KVM tells them.
    #[must_use]
    pub fn instruction(&self) -> Option<Vec<u8>> {
        let (&flags, rest) = self.data.split_first()?;
        let told = u64::from(KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES);
        if self.suberror != KVM_INTERNAL_ERROR_EMULATION || flags & told == 0 {
            return None;
        }
        // One byte of length, then up to 15 bytes.
        let bytes: Vec<u8> = rest
            .iter()
            .take(2)
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let (&length, bytes) = bytes.split_first()?;
        Some(bytes.iter().copied().take(usize::from(length)).collect())
    }
}

/// Reads the exit that the kernel has described in the run state at `run`.
///
/// # Safety
///
/// `run` is the start of a vCPU's run state, mapped for `length` bytes (at least `kvm_run`) for
/// reading and writing throughout `'run`. Nobody else writes the exit's part of it or refers to
/// it meanwhile.
pub(crate) unsafe fn decode<'run>(
    run: NonNull<kvm_run>,
    length: usize,
) -> Result<Exit<'run>, Error> {
    let run = run.as_ptr();
    // SAFETY: in the mapping, by the caller's promise.
    let reason = unsafe { (*run).exit_reason };
    // SAFETY: as above, and nobody else refers to this part.
    let details = unsafe { &mut (*run).__bindgen_anon_1 };
    // Every part of the union is plain integers, so that any bytes are valid for it, and the
    // kernel has filled the one that belongs to the reason.
    Ok(match reason {
        KVM_EXIT_IO => {
            // SAFETY: see above.
            let io = unsafe { details.io };
            let count = usize::try_from(io.count).ok();
            let size = count.and_then(|count| count.checked_mul(usize::from(io.size)));
            let offset = usize::try_from(io.data_offset).ok();
            let (Some(size), Some(offset)) = (size, offset) else {
                return Err(Error::RunState {
                    what: "length of the port's data",
                });
            };
            if offset < size_of::<kvm_run>()
                || offset.checked_add(size).is_none_or(|end| end > length)
            {
                return Err(Error::RunState {
                    what: "place of the port's data",
                });
            }
            // SAFETY: the offset is inside the mapping.
            let data = unsafe { run.cast::<u8>().add(offset) };
            // SAFETY: so is the end, and the data lies behind `kvm_run`: no other reference is
            // there.
            let data = unsafe { std::slice::from_raw_parts_mut(data, size) };
            let (port, size, count) = (io.port, io.size, io.count);
            match u32::from(io.direction) {
                KVM_EXIT_IO_IN => Exit::IoIn {
                    port,
                    size,
                    count,
                    data,
                },
                KVM_EXIT_IO_OUT => Exit::IoOut {
                    port,
                    size,
                    count,
                    data,
                },
                _ => {
                    return Err(Error::RunState {
                        what: "direction of the port's data",
                    });
                }
            }
        }
        KVM_EXIT_MMIO => {
            // SAFETY: see above.
            let mmio = unsafe { &mut details.mmio };
            let length = usize::try_from(mmio.len).unwrap_or(usize::MAX);
            let Some(data) = mmio.data.get_mut(..length) else {
                return Err(Error::RunState {
                    what: "length of the MMIO data",
                });
            };
            let address = mmio.phys_addr;
            if mmio.is_write == 0 {
                Exit::MmioRead { address, data }
            } else {
                Exit::MmioWrite { address, data }
            }
        }
        KVM_EXIT_HLT => Exit::Hlt,
        KVM_EXIT_SHUTDOWN => Exit::Shutdown,
        KVM_EXIT_INTR => Exit::Interrupted,
        KVM_EXIT_FAIL_ENTRY => {
            // SAFETY: see above.
            let failure = unsafe { details.fail_entry };
            Exit::FailEntry {
                hardware_reason: failure.hardware_entry_failure_reason,
                cpu: failure.cpu,
            }
        }
        KVM_EXIT_INTERNAL_ERROR => {
            // SAFETY: see above.
            let internal = unsafe { details.internal };
            Exit::InternalError(InternalError {
                suberror: internal.suberror,
                data: prefix(&internal.data, internal.ndata),
            })
        }
        KVM_EXIT_SYSTEM_EVENT => {
            // SAFETY: see above.
            let event = unsafe { details.system_event };
            // SAFETY: as above, of the union inside.
            let data = unsafe { event.__bindgen_anon_1.data };
            Exit::SystemEvent {
                kind: event.type_,
                data: prefix(&data, event.ndata),
            }
        }
        KVM_EXIT_DEBUG => {
            // SAFETY: see above.
            let debug = unsafe { details.debug }.arch;
            Exit::Debug {
                exception: debug.exception,
                pc: debug.pc,
                dr6: debug.dr6,
                dr7: debug.dr7,
            }
        }
        KVM_EXIT_HYPERCALL => {
            // SAFETY: see above.
            let call = unsafe { &mut details.hypercall };
            Exit::Hypercall {
                number: call.nr,
                arguments: call.args,
                result: &mut call.ret,
            }
        }
        KVM_EXIT_X86_RDMSR => {
            // SAFETY: see above.
            let msr = unsafe { &mut details.msr };
            Exit::MsrRead {
                index: msr.index,
                reason: msr.reason,
                data: &mut msr.data,
                error: &mut msr.error,
            }
        }
        KVM_EXIT_X86_WRMSR => {
            // SAFETY: see above.
            let msr = unsafe { &mut details.msr };
            Exit::MsrWrite {
                index: msr.index,
                reason: msr.reason,
                data: msr.data,
                error: &mut msr.error,
            }
        }
        KVM_EXIT_IOAPIC_EOI => {
            // SAFETY: see above.
            let vector = unsafe { details.eoi }.vector;
            Exit::IoapicEoi { vector }
        }
        KVM_EXIT_EXCEPTION => {
            // SAFETY: see above.
            let exception = unsafe { details.ex };
            Exit::Exception {
                exception: exception.exception,
                error_code: exception.error_code,
            }
        }
        KVM_EXIT_MEMORY_FAULT => {
            // SAFETY: see above.
            let fault = unsafe { details.memory_fault };
            Exit::MemoryFault {
                flags: fault.flags,
                address: fault.gpa,
                size: fault.size,
            }
        }
        KVM_EXIT_UNKNOWN => {
            // SAFETY: see above.
            let hardware_reason = unsafe { details.hw }.hardware_exit_reason;
            Exit::Unknown { hardware_reason }
        }
        KVM_EXIT_IRQ_WINDOW_OPEN => Exit::IrqWindowOpen,
        KVM_EXIT_SET_TPR => Exit::SetTpr,
        KVM_EXIT_TPR_ACCESS => Exit::TprAccess,
        KVM_EXIT_NMI => Exit::Nmi,
        reason => Exit::Unsupported { reason },
    })
}

/// The first `count` words, or all where `count` is more.
fn prefix(words: &[u64], count: u32) -> Vec<u64> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    words.iter().copied().take(count).collect()
}
