//! Model-specific registers that firmware would have set.

use kvm_bindings::{CpuId, kvm_msr_entry};
use microvm_kvm::{Error, VirtualCpu};

use super::cpuid::is_intel;

const MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs are on, and what no range covers is write-back memory.
const MTRR_ON_WRITE_BACK: u64 = 1 << 11 | 6;
const MISC_ENABLE: u32 = 0x1a0;
/// `REP MOVS` and `REP STOS` are fast; Linux avoids them where an Intel CPU says otherwise.
const FAST_STRINGS: u64 = 1;

/// Sets them.
pub(super) fn setup(vcpu: &VirtualCpu, cpuid: &CpuId) -> Result<(), Error> {
    let mut entries = vec![msr(MTRR_DEF_TYPE, MTRR_ON_WRITE_BACK)];
    if is_intel(cpuid) {
        // KVM holds bits in there that may not change.
        let now = vcpu.get_msrs(&[MISC_ENABLE])?;
        let now = now.first().map_or(0, |entry| entry.data);
        entries.push(msr(MISC_ENABLE, now | FAST_STRINGS));
    }
    vcpu.set_msrs(&entries)
}

fn msr(index: u32, data: u64) -> kvm_msr_entry {
    kvm_msr_entry {
        index,
        data,
        ..Default::default()
    }
}
