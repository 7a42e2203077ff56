//! x86-64: the guest's address map and the state in which its CPUs start.
//!
//! [`setup_vcpu`] gives every vCPU what firmware would have given it; [`enter`] puts the boot CPU
//! at the kernel's entry point. The others wait in KVM for the kernel's INIT and SIPI.

mod boot_params;
mod cpuid;
pub mod layout;
mod msrs;
mod registers;

pub use boot_params::{MemoryKind, MemoryRange, memory_map, write as write_boot_params};
pub use cpuid::{Topology, guest_cpuid, physical_address_bits};
pub use registers::{EnterError, enter};

use kvm_bindings::{CpuId, kvm_lapic_state};
use microvm_kvm::{Error, VirtualCpu};

/// Offsets and values of the local APIC's two interrupt inputs: the legacy interrupt controller
/// on LINT0, NMI on LINT1, as the multiprocessor specification wants them from firmware.
const LINT: [(usize, u32); 2] = [(0x350, 0x700), (0x360, 0x400)];

/// Gives a vCPU its CPUID, model-specific registers and local APIC.
///
/// # Errors
///
/// The first ioctl that fails.
pub fn setup_vcpu(vcpu: &VirtualCpu, cpuid: &CpuId) -> Result<(), Error> {
    vcpu.set_cpuid2(cpuid)?;
    msrs::setup(vcpu, cpuid)?;
    let mut lapic = vcpu.get_lapic()?;
    for (offset, value) in LINT {
        set_lapic_register(&mut lapic, offset, value);
    }
    vcpu.set_lapic(&lapic)
}

fn set_lapic_register(lapic: &mut kvm_lapic_state, offset: usize, value: u32) {
    if let Some(register) = lapic.regs.get_mut(offset..offset + 4) {
        for (to, from) in register.iter_mut().zip(value.to_le_bytes()) {
            *to = i8::from_ne_bytes([from]);
        }
    }
}
