//! What is found out once per process: capabilities, the processor's features, and the traits of
//! the host. An error sticks: a host does not change while a process runs.

use std::sync::{Mutex, OnceLock};

use kvm_bindings::{
    CpuId, KVM_CAP_IMMEDIATE_EXIT, KVM_CAP_MAX_VCPUS, KVM_CAP_NR_MEMSLOTS, KVM_CAP_SYNC_REGS,
    KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS,
};
use microvm_kvm::Kvm;

use crate::error::Error;
use crate::kernel::{extended_components, features};
use crate::page_tables::lock;
use crate::self_test;
use crate::traits::HostTraits;

/// What all machines of this process share.
#[derive(Clone, Copy, Debug)]
pub struct Global {
    /// What the processor of a guest tells about itself.
    pub cpuid: &'static CpuId,
    /// Optional bits of CR4.
    pub features: u64,
    /// The value of XCR0; 0 where it cannot be set.
    pub components: u64,
    /// Most vCPUs of a machine.
    pub vcpus: u64,
    /// Memory slots of a machine.
    pub slots: u32,
    /// First guest physical address that does not exist.
    pub physical_end: u64,
}

/// Capabilities, and with the first machine the traits of the host.
pub fn initialize(kvm: &Kvm) -> Result<(Global, HostTraits), Error> {
    static STATE: OnceLock<Result<(Global, HostTraits), Error>> = OnceLock::new();
    static FIRST: Mutex<()> = Mutex::new(());
    if let Some(state) = STATE.get() {
        return state.clone();
    }
    // Others wait until the first one knows.
    let _first = lock(&FIRST);
    STATE
        .get_or_init(|| {
            let global = Global::new(kvm)?;
            Ok((global, self_test::run(kvm, global)?))
        })
        .clone()
}

impl Global {
    fn new(kvm: &Kvm) -> Result<Self, Error> {
        let extension = |number: u32, doing| {
            let number = i32::try_from(number).unwrap_or(-1);
            let value = kvm.check_extension(number).map_err(Error::kvm(doing))?;
            Ok::<u64, Error>(u64::try_from(value).unwrap_or(0))
        };
        let doing = "Asking KVM for its capabilities";
        let needed = u64::from(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS);
        if extension(KVM_CAP_SYNC_REGS, doing)? & needed != needed {
            return Err(Error::unsupported(
                "KVM does not exchange registers with a run (KVM_CAP_SYNC_REGS)",
            ));
        }
        if extension(KVM_CAP_IMMEDIATE_EXIT, doing)? == 0 {
            return Err(Error::unsupported(
                "KVM cannot be told to leave a run at once (KVM_CAP_IMMEDIATE_EXIT)",
            ));
        }
        let cpuid = kvm.supported_cpuid().map_err(Error::kvm(doing))?;
        Ok(Self {
            cpuid,
            features: features(cpuid),
            components: extended_components(cpuid),
            vcpus: extension(KVM_CAP_MAX_VCPUS, doing)?.max(1),
            slots: u32::try_from(extension(KVM_CAP_NR_MEMSLOTS, doing)?).unwrap_or(32),
            physical_end: 1 << physical_bits(cpuid),
        })
    }
}

/// Width of guest physical addresses; 36 where KVM does not tell.
fn physical_bits(cpuid: &CpuId) -> u32 {
    let mut entries = cpuid.as_slice().iter();
    let leaf = entries.find(|entry| entry.function == 0x8000_0008);
    leaf.map_or(36, |leaf| (leaf.eax & 0xff).clamp(36, 48))
}
