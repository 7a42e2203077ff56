//! Registers and exits as JavaScript objects.

use std::time::Duration;

use microvm_ring3::{Access, Exit, Registers, Restore, SegmentBases, SwitchOptions};
use napi::bindgen_prelude::BigInt;
use napi_derive::napi;

use crate::error::BindingError;
use crate::field::{Field, mirror};

mirror! {
    #[doc = "The general registers."]
    BindingRing3Registers = Registers {
        rax: BigInt,
        rbx: BigInt,
        rcx: BigInt,
        rdx: BigInt,
        rsi: BigInt,
        rdi: BigInt,
        rbp: BigInt,
        rsp: BigInt,
        r8: BigInt,
        r9: BigInt,
        r10: BigInt,
        r11: BigInt,
        r12: BigInt,
        r13: BigInt,
        r14: BigInt,
        r15: BigInt,
        rip: BigInt,
        rflags: BigInt,
    }

    #[doc = "Bases of FS and GS."]
    BindingSegmentBases = SegmentBases {
        fs: BigInt,
        gs: BigInt,
    }
}

/// How a switch is done.
#[derive(Debug)]
#[napi(object)]
pub struct BindingSwitchOptions {
    /// All registers but RCX and R11.
    pub partial: bool,
    /// Milliseconds that the switch may take.
    pub timeout_ms: Option<f64>,
}

/// Why a program stopped, and its registers.
#[derive(Debug)]
#[napi(object)]
pub struct BindingRing3Exit {
    /// Kind of exit.
    #[napi(ts_type = "'system-call' | 'fault' | 'bus-error' | 'interrupted' | 'timed-out'")]
    pub reason: String,
    /// Number of the exception.
    pub vector: Option<u32>,
    /// The processor's error code.
    pub error_code: Option<u32>,
    /// Address of a page fault or bus error.
    pub address: Option<BigInt>,
    /// What a page fault was for.
    #[napi(ts_type = "'read' | 'write' | 'execute'")]
    pub access: Option<String>,
    /// What the program was left with.
    pub registers: BindingRing3Registers,
}

pub(super) fn switch_options(
    options: &BindingSwitchOptions,
) -> Result<SwitchOptions, BindingError> {
    let timeout = options.timeout_ms.map(milliseconds).transpose()?;
    let restore = if options.partial {
        Restore::Partial
    } else {
        Restore::Full
    };
    Ok(SwitchOptions { restore, timeout })
}

/// A duration that JavaScript gives in milliseconds.
pub(super) fn milliseconds(value: f64) -> Result<Duration, BindingError> {
    Duration::try_from_secs_f64(value / 1000.0)
        .map_err(|_| BindingError::invalid("A duration is out of range"))
}

pub(super) fn from_native(exit: Exit, registers: Registers) -> BindingRing3Exit {
    let plain = |reason: &str| BindingRing3Exit {
        reason: reason.to_owned(),
        vector: None,
        error_code: None,
        address: None,
        access: None,
        registers: Field::from_native(registers),
    };
    match exit {
        Exit::SystemCall => plain("system-call"),
        Exit::Fault(fault) => BindingRing3Exit {
            vector: Some(fault.vector.into()),
            error_code: Some(fault.error_code),
            address: fault.address.map(BigInt::from),
            access: fault.access().map(|access| {
                let name = match access {
                    Access::Read => "read",
                    Access::Write => "write",
                    Access::Execute => "execute",
                };
                name.to_owned()
            }),
            ..plain("fault")
        },
        Exit::BusError { address } => BindingRing3Exit {
            address: address.map(BigInt::from),
            ..plain("bus-error")
        },
        Exit::Interrupted => plain("interrupted"),
        Exit::TimedOut => plain("timed-out"),
        other => plain(&format!("{other:?}")),
    }
}
