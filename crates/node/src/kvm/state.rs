//! A vCPU's registers and other state, as JavaScript objects. Field names are the kernel's.

use kvm_bindings::{
    kvm_cpuid_entry2, kvm_debugregs, kvm_dtable, kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment,
    kvm_sregs, kvm_vcpu_events, kvm_vcpu_events__bindgen_ty_1, kvm_vcpu_events__bindgen_ty_2,
    kvm_vcpu_events__bindgen_ty_3, kvm_vcpu_events__bindgen_ty_4, kvm_vcpu_events__bindgen_ty_5,
    kvm_xcr, kvm_xcrs,
};
use napi::bindgen_prelude::{BigInt, Uint8Array};
use napi_derive::napi;

use crate::error::BindingError;
use crate::field::{Field, mirror};

mirror! {
    #[doc = "`kvm_regs`"]
    BindingRegs = kvm_regs {
        rax: BigInt,
        rbx: BigInt,
        rcx: BigInt,
        rdx: BigInt,
        rsi: BigInt,
        rdi: BigInt,
        rsp: BigInt,
        rbp: BigInt,
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

    #[doc = "`kvm_segment`"]
    BindingSegment = kvm_segment {
        base: BigInt,
        limit: f64,
        selector: f64,
        #[napi(js_name = "type")]
        type_: f64,
        present: f64,
        dpl: f64,
        db: f64,
        s: f64,
        l: f64,
        g: f64,
        avl: f64,
        unusable: f64,
    }

    #[doc = "`kvm_dtable`"]
    BindingDescriptorTable = kvm_dtable {
        base: BigInt,
        limit: f64,
    }

    #[doc = "`kvm_sregs`"]
    BindingSregs = kvm_sregs {
        cs: BindingSegment,
        ds: BindingSegment,
        es: BindingSegment,
        fs: BindingSegment,
        gs: BindingSegment,
        ss: BindingSegment,
        tr: BindingSegment,
        ldt: BindingSegment,
        gdt: BindingDescriptorTable,
        idt: BindingDescriptorTable,
        cr0: BigInt,
        cr2: BigInt,
        cr3: BigInt,
        cr4: BigInt,
        cr8: BigInt,
        efer: BigInt,
        apic_base: BigInt,
        interrupt_bitmap: Vec<BigInt>,
    }

    #[doc = "`kvm_fpu`"]
    BindingFpu = kvm_fpu {
        fpr: Uint8Array,
        fcw: f64,
        fsw: f64,
        ftwx: f64,
        last_opcode: f64,
        last_ip: BigInt,
        last_dp: BigInt,
        xmm: Uint8Array,
        mxcsr: f64,
    }

    #[doc = "`kvm_debugregs`"]
    BindingDebugRegs = kvm_debugregs {
        db: Vec<BigInt>,
        dr6: BigInt,
        dr7: BigInt,
        flags: BigInt,
    }

    #[doc = "`kvm_vcpu_events.exception`"]
    BindingExceptionEvent = kvm_vcpu_events__bindgen_ty_1 {
        injected: f64,
        nr: f64,
        has_error_code: f64,
        pending: f64,
        error_code: f64,
    }

    #[doc = "`kvm_vcpu_events.interrupt`"]
    BindingInterruptEvent = kvm_vcpu_events__bindgen_ty_2 {
        injected: f64,
        nr: f64,
        soft: f64,
        shadow: f64,
    }

    #[doc = "`kvm_vcpu_events.nmi`"]
    BindingNmiEvent = kvm_vcpu_events__bindgen_ty_3 {
        injected: f64,
        pending: f64,
        masked: f64,
    }

    #[doc = "`kvm_vcpu_events.smi`"]
    BindingSmiEvent = kvm_vcpu_events__bindgen_ty_4 {
        smm: f64,
        pending: f64,
        smm_inside_nmi: f64,
        latched_init: f64,
    }

    #[doc = "`kvm_vcpu_events.triple_fault`"]
    BindingTripleFaultEvent = kvm_vcpu_events__bindgen_ty_5 {
        pending: f64,
    }

    #[doc = "`kvm_vcpu_events`"]
    BindingVcpuEvents = kvm_vcpu_events {
        exception: BindingExceptionEvent,
        interrupt: BindingInterruptEvent,
        nmi: BindingNmiEvent,
        sipi_vector: f64,
        flags: f64,
        smi: BindingSmiEvent,
        triple_fault: BindingTripleFaultEvent,
        exception_has_payload: f64,
        exception_payload: BigInt,
    }

    #[doc = "`kvm_msr_entry`"]
    BindingMsr = kvm_msr_entry {
        index: f64,
        data: BigInt,
    }

    #[doc = "`kvm_cpuid_entry2`"]
    BindingCpuidEntry = kvm_cpuid_entry2 {
        function: f64,
        index: f64,
        flags: f64,
        eax: f64,
        ebx: f64,
        ecx: f64,
        edx: f64,
    }

    #[doc = "`kvm_xcr`"]
    BindingXcr = kvm_xcr {
        xcr: f64,
        value: BigInt,
    }
}

/// `kvm_xcrs`: as many as there are.
impl Field<kvm_xcrs> for Vec<BindingXcr> {
    fn from_native(native: kvm_xcrs) -> Self {
        let count = usize::try_from(native.nr_xcrs).unwrap_or(usize::MAX);
        let xcrs = native.xcrs.into_iter().take(count);
        xcrs.map(Field::from_native).collect()
    }

    fn into_native(self, name: &str) -> Result<kvm_xcrs, BindingError> {
        let mut native = kvm_xcrs::default();
        let room = native.xcrs.len();
        native.nr_xcrs = match u32::try_from(self.len()) {
            Ok(count) if self.len() <= room => count,
            _ => {
                let message = format!("{name} has more than {room} entries");
                return Err(BindingError::coded("ERR_INVALID_OPTIONS", message));
            }
        };
        for (to, from) in native.xcrs.iter_mut().zip(self) {
            *to = from.into_native(name)?;
        }
        Ok(native)
    }
}

/// The structures that a list of objects stands for.
pub(super) fn list<N, T: Field<N>>(values: Vec<T>, name: &str) -> Result<Vec<N>, BindingError> {
    let values = values.into_iter().enumerate();
    values
        .map(|(at, value)| value.into_native(&format!("{name}[{at}]")))
        .collect()
}
