//! A vCPU's state can be read, and set as it was read.

use kvm_bindings::{CpuId, kvm_msr_entry};
use microvm_kvm::{Error, Kvm};

use crate::fixture::{machine_with, run_to_halt, runner_of};

/// Time stamp counter adjustment; every KVM has it.
const MSR_IA32_TSC: u32 = 0x10;
const MSR_STAR: u32 = 0xc000_0081;

pub fn closure_value_is_handed_back_by_modify_regs() {
    let (machine, _) = machine_with(&[0xf4]);
    let runner = runner_of(&machine);
    let before = runner
        .modify_regs(|regs| std::mem::replace(&mut regs.rbx, 0x1122_3344_5566_7788))
        .unwrap();
    assert_eq!(before, 0);
    let regs = runner.get_regs().unwrap();
    assert_eq!(regs.rbx, 0x1122_3344_5566_7788);
    runner.set_regs(&regs).unwrap();
}

pub fn every_state_that_is_read_can_be_set_again() {
    let (machine, _) = machine_with(&[0xf4]);
    let mut runner = runner_of(&machine);
    let vcpu = runner.vcpu();
    let cpuid = Kvm::open().unwrap().supported_cpuid().unwrap();
    vcpu.set_cpuid2(cpuid).unwrap();
    // The kernel fills in what depends on the vCPU's state, but leaves the list as it is.
    let functions = |cpuid: &CpuId| -> Vec<(u32, u32)> {
        let entries = cpuid.as_slice().iter();
        entries.map(|entry| (entry.function, entry.index)).collect()
    };
    assert_eq!(functions(&vcpu.get_cpuid2().unwrap()), functions(cpuid));

    let mut fpu = vcpu.get_fpu().unwrap();
    fpu.xmm[3] = [7; 16];
    vcpu.set_fpu(&fpu).unwrap();
    assert_eq!(vcpu.get_fpu().unwrap().xmm[3], [7; 16]);

    let mut xsave = vcpu.get_xsave().unwrap();
    // SAFETY: the fixed part is changed, not the length of the rest.
    let region = unsafe { &mut xsave.as_mut_fam_struct().xsave.region };
    region[(160 + 3 * 16) / 4] = 0x0505_0505;
    // The header's bits for x87 and SSE: their parts are not in their initial state.
    region[512 / 4] |= 3;
    vcpu.set_xsave(&xsave).unwrap();
    assert_eq!(vcpu.get_fpu().unwrap().xmm[3][..4], [5; 4]);
    let again = vcpu.get_xsave().unwrap();
    assert_eq!(
        again.as_fam_struct_ref().xsave.region[(160 + 3 * 16) / 4],
        0x0505_0505
    );

    let sregs = vcpu.get_sregs().unwrap();
    vcpu.set_sregs(&sregs).unwrap();
    assert_eq!(vcpu.get_sregs().unwrap(), sregs);

    let events = vcpu.get_vcpu_events().unwrap();
    vcpu.set_vcpu_events(&events).unwrap();
    let xcrs = vcpu.get_xcrs().unwrap();
    vcpu.set_xcrs(&xcrs).unwrap();
    let state = vcpu.get_mp_state().unwrap();
    vcpu.set_mp_state(state).unwrap();
    vcpu.set_guest_debug(&kvm_bindings::kvm_guest_debug::default())
        .unwrap();
    // There is no interrupt controller in the kernel.
    let error = vcpu.get_lapic().unwrap_err();
    assert_eq!(
        (error.call(), error.errno()),
        ("KVM_GET_LAPIC", libc::EINVAL)
    );
    run_to_halt(&mut runner);
}

pub fn msr_that_kvm_refuses_is_named() {
    let (machine, _) = machine_with(&[0xf4]);
    let vcpu = machine.create_vcpu(0).unwrap();
    let values = vcpu.get_msrs(&[MSR_IA32_TSC, MSR_STAR]).unwrap();
    assert_eq!(values[1].index, MSR_STAR);
    let entry = kvm_msr_entry {
        index: MSR_STAR,
        data: 0x0023_0010_0000_0000,
        ..Default::default()
    };
    vcpu.set_msrs(&[entry]).unwrap();
    assert_eq!(vcpu.get_msrs(&[MSR_STAR]).unwrap()[0].data, entry.data);

    let unknown = 0x1234_5678;
    let error = vcpu.get_msrs(&[MSR_IA32_TSC, unknown]).unwrap_err();
    assert!(
        matches!(error, Error::Msr { index, .. } if index == unknown),
        "{error}"
    );
    let refused = kvm_msr_entry {
        index: unknown,
        ..entry
    };
    let error = vcpu.set_msrs(&[entry, refused]).unwrap_err();
    assert!(
        matches!(error, Error::Msr { index, .. } if index == unknown),
        "{error}"
    );
}

pub fn many_msrs_take_several_calls() {
    let (machine, _) = machine_with(&[0xf4]);
    let vcpu = machine.create_vcpu(0).unwrap();
    let values = vcpu.get_msrs(&[MSR_STAR; 600]).unwrap();
    assert_eq!(values.len(), 600);
    vcpu.set_msrs(&values).unwrap();
    assert!(vcpu.get_msrs(&[]).unwrap().is_empty());
}

pub fn vcpu_number_in_use_or_too_high_is_refused() {
    let (machine, _) = machine_with(&[0xf4]);
    let _vcpu = machine.create_vcpu(0).unwrap();
    let error = machine.create_vcpu(0).unwrap_err();
    assert_eq!(
        (error.call(), error.errno()),
        ("KVM_CREATE_VCPU", libc::EEXIST)
    );
    let error = machine.create_vcpu(1 << 30).unwrap_err();
    assert_eq!(error.errno(), libc::EINVAL);
}

pub fn debug_registers_keep_their_values() {
    let (machine, _) = machine_with(&[0xf4]);
    let vcpu = machine.create_vcpu(0).unwrap();
    let mut debug = vcpu.get_debug_regs().unwrap();
    debug.db[2] = 0x1234;
    vcpu.set_debug_regs(&debug).unwrap();
    assert_eq!(vcpu.get_debug_regs().unwrap().db[2], 0x1234);
}
