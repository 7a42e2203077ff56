//! What the guest's CPUs say about themselves: what this host's KVM supports, with the machine's
//! own topology.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Leaf 1, ECX: the host's own virtualization extensions (Intel).
const VMX: u32 = 1 << 5;
/// Leaf 1, ECX: local APIC timer in TSC-deadline mode. Saves the guest the timer's calibration.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1, ECX: runs under a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, EDX: EBX tells a number of logical processors.
const HTT: u32 = 1 << 28;
/// Leaf 0x80000001, ECX: several cores (AMD).
const CMP_LEGACY: u32 = 1 << 1;
/// Leaf 0x80000001, ECX: the host's own virtualization extensions (AMD).
const SVM: u32 = 1 << 2;
/// Leaf 0x80000001, ECX: performance counters of the core and of the north bridge (AMD).
const PERF_COUNTERS: u32 = 1 << 23 | 1 << 24;
/// Leaves that describe topology by levels; made anew.
const TOPOLOGY_LEAVES: [u32; 2] = [0xb, 0x1f];
/// Level numbers of [`TOPOLOGY_LEAVES`].
const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;

/// Where a CPU stands among the others: one socket, a core for each vCPU, no sibling threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    /// The vCPU's number, which is also its APIC ID.
    pub cpu: u8,
    /// Number of vCPUs.
    pub cpus: u8,
}

impl Topology {
    /// Bits of an APIC ID that number the cores.
    fn core_bits(self) -> u32 {
        u32::from(self.cpus).next_power_of_two().trailing_zeros()
    }
}

/// The CPUID of one vCPU.
///
/// Nested virtualization is hidden: it widens what a guest can reach in the host's kernel.
/// Performance counters are hidden too: they cost the guest's start and tell about the host. (Not
/// AMD's first four: those have no CPUID bit, a guest on AMD may always count on them.)
#[must_use]
pub fn guest_cpuid(supported: &CpuId, topology: Topology, tsc_deadline: bool) -> CpuId {
    let mut entries: Vec<_> = supported
        .as_slice()
        .iter()
        .filter(|entry| !TOPOLOGY_LEAVES.contains(&entry.function))
        .copied()
        .collect();
    for entry in &mut entries {
        adapt(entry, topology, tsc_deadline);
    }
    let last_leaf = entries
        .iter()
        .find(|e| e.function == 0)
        .map_or(0, |e| e.eax);
    if last_leaf >= 0xb {
        entries.extend(levels(topology));
    }
    // Three entries more at most, and KVM's own limit is far away.
    CpuId::from_entries(&entries).unwrap_or_else(|_| supported.clone())
}

fn adapt(entry: &mut kvm_cpuid_entry2, topology: Topology, tsc_deadline: bool) {
    let (cpu, cpus) = (u32::from(topology.cpu), u32::from(topology.cpus));
    let id_space = 1 << topology.core_bits();
    match entry.function {
        0x1 => {
            entry.ebx = entry.ebx & 0xffff | id_space << 16 | cpu << 24;
            entry.ecx = entry.ecx & !VMX | HYPERVISOR;
            set(&mut entry.ecx, TSC_DEADLINE, tsc_deadline);
            set(&mut entry.edx, HTT, cpus > 1);
        }
        // Caches: threads that share it, and (Intel) cores in the package.
        0x4 if entry.eax & 0x1f != 0 => {
            let sharing = if cache_level(entry.eax) >= 3 {
                id_space
            } else {
                1
            };
            entry.eax = entry.eax & 0x3fff | (sharing - 1) << 14 | (id_space - 1) << 26;
        }
        0x8000_001d if entry.eax & 0x1f != 0 => {
            let sharing = if cache_level(entry.eax) >= 3 { cpus } else { 1 };
            entry.eax = entry.eax & !(0xfff << 14) | (sharing - 1) << 14;
        }
        // Performance counters (Intel; AMD from version 2).
        0xa | 0x8000_0022 => {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
        }
        0x8000_0001 => {
            entry.ecx &= !(SVM | PERF_COUNTERS);
            if cpus == 1 {
                entry.ecx &= !CMP_LEGACY;
            }
        }
        0x8000_0008 => {
            entry.ecx = entry.ecx & !0xf0ff | topology.core_bits() << 12 | (cpus - 1);
        }
        // What SVM could do.
        0x8000_000a => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
        0x8000_001e => {
            entry.eax = cpu;
            entry.ebx = cpu;
            entry.ecx = 0;
        }
        _ => {}
    }
}

fn cache_level(eax: u32) -> u32 {
    eax >> 5 & 7
}

fn set(register: &mut u32, bit: u32, on: bool) {
    *register = if on {
        *register | bit
    } else {
        *register & !bit
    };
}

/// The sub-leaves of the extended topology leaf: threads, cores, end.
fn levels(topology: Topology) -> impl Iterator<Item = kvm_cpuid_entry2> {
    let core_bits = topology.core_bits();
    [
        (0, 1, LEVEL_THREAD),
        (core_bits, u32::from(topology.cpus), LEVEL_CORE),
        (0, 0, 0),
    ]
    .into_iter()
    .zip(0..)
    .map(move |((shift, count, level), index)| kvm_cpuid_entry2 {
        function: 0xb,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: count,
        ecx: level << 8 | index,
        edx: u32::from(topology.cpu),
        ..Default::default()
    })
}

/// Width of a guest physical address in bits; 36 where the CPU does not tell.
#[must_use]
pub fn physical_address_bits(supported: &CpuId) -> u32 {
    supported
        .as_slice()
        .iter()
        .find(|entry| entry.function == 0x8000_0008)
        .map_or(36, |entry| entry.eax & 0xff)
}

/// Whether the CPU is Intel's by its vendor string.
pub(super) fn is_intel(cpuid: &CpuId) -> bool {
    cpuid
        .as_slice()
        .iter()
        .any(|entry| entry.function == 0 && entry.ebx.to_le_bytes() == *b"Genu")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaf(function: u32, eax: u32, ebx: u32, ecx: u32, edx: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        }
    }

    fn find(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
        *cpuid
            .as_slice()
            .iter()
            .find(|e| e.function == function && e.index == index)
            .unwrap()
    }

    fn host() -> CpuId {
        CpuId::from_entries(&[
            leaf(0, 0xd, u32::from_le_bytes(*b"Auth"), 0, 0),
            leaf(1, 0, 0x0708_0800, VMX | 1, 0xffff),
            leaf(0xa, 1, 2, 3, 4),
            leaf(0xb, 9, 9, 9, 9),
            leaf(0x8000_0001, 0, 0, SVM | PERF_COUNTERS | CMP_LEGACY | 1, 0),
            leaf(0x8000_0008, 0x3030, 0, 0x0001_703f, 0),
            leaf(0x8000_001d, 0x1c_c163, 0, 0, 0),
            leaf(0x8000_001e, 7, 0x103, 2, 0),
        ])
        .unwrap()
    }

    #[test]
    fn each_cpu_knows_its_own_number_in_every_leaf() {
        let cpuid = guest_cpuid(&host(), Topology { cpu: 2, cpus: 3 }, true);
        assert_eq!(find(&cpuid, 1, 0).ebx, 0x0204_0800);
        assert_eq!(find(&cpuid, 0x8000_001e, 0).eax, 2);
        for index in 0..3 {
            assert_eq!(find(&cpuid, 0xb, index).edx, 2);
        }
        let cores = find(&cpuid, 0xb, 1);
        assert_eq!((cores.eax, cores.ebx, cores.ecx), (2, 3, 0x201));
        assert_eq!(find(&cpuid, 0x8000_0008, 0).ecx, 0x0001_2002);
        assert_eq!(find(&cpuid, 0x8000_001d, 0).eax >> 14 & 0xfff, 2);
    }

    #[test]
    fn a_single_cpu_claims_no_siblings() {
        let cpuid = guest_cpuid(&host(), Topology { cpu: 0, cpus: 1 }, false);
        let first = find(&cpuid, 1, 0);
        assert_eq!((first.edx & HTT, first.ebx >> 16 & 0xff), (0, 1));
        assert_eq!(first.ecx & TSC_DEADLINE, 0);
        assert_eq!(find(&cpuid, 0x8000_0001, 0).ecx & CMP_LEGACY, 0);
        assert_eq!(find(&cpuid, 0x8000_0008, 0).ecx & 0xf0ff, 0);
    }

    #[test]
    fn nested_virtualization_and_performance_counters_are_hidden() {
        let cpuid = guest_cpuid(&host(), Topology { cpu: 0, cpus: 2 }, true);
        let first = find(&cpuid, 1, 0);
        assert_eq!(first.ecx, 1 | TSC_DEADLINE | HYPERVISOR);
        assert_eq!(find(&cpuid, 0x8000_0001, 0).ecx, 1 | CMP_LEGACY);
        assert_eq!(find(&cpuid, 0xa, 0).eax, 0);
    }

    proptest! {
        #[test]
        fn apic_ids_fit_the_announced_bits(cpus in 1u8..=64, cpu in 0u8..64) {
            prop_assume!(cpu < cpus);
            let cpuid = guest_cpuid(&host(), Topology { cpu, cpus }, true);
            let shift = find(&cpuid, 0xb, 1).eax;
            prop_assert!(u32::from(cpu) >> shift == 0);
            prop_assert_eq!(find(&cpuid, 1, 0).ebx >> 16 & 0xff, 1 << shift);
        }

        #[test]
        fn any_host_leaves_are_adapted_without_a_panic(
            leaves in prop::collection::vec((any::<u32>(), any::<u32>(), any::<u32>()), 0..80),
            cpus in 1u8..=64,
        ) {
            let entries: Vec<_> = leaves
                .into_iter()
                .map(|(function, eax, ecx)| leaf(function & 0x8000_003f, eax, eax, ecx, ecx))
                .collect();
            let host = CpuId::from_entries(&entries).unwrap();
            let _ = guest_cpuid(&host, Topology { cpu: cpus - 1, cpus }, true);
            prop_assert!(physical_address_bits(&host) <= 255);
        }
    }
}
