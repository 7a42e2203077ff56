//! The registers with which the boot CPU enters the kernel.

use kvm_bindings::{kvm_dtable, kvm_fpu, kvm_regs, kvm_segment, kvm_sregs};
use microvm_kvm::VirtualCpu;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::layout;
use crate::boot::Entry;
use crate::memory::GuestMemory;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Bit 1 of RFLAGS is always set.
const RFLAGS: u64 = 2;

/// Present, writable page table entry; with [`PAGE_2M`] one that maps 2 MiB.
const PAGE_PRESENT_WRITABLE: u64 = 3;
const PAGE_2M: u64 = 1 << 7;
/// The boot protocol asks for an identity mapping of what the kernel is handed: all below 4 GiB.
const IDENTITY_GIB: u64 = 4;

/// Why the boot CPU could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// A register could not be set.
    #[error(transparent)]
    Kvm(#[from] microvm_kvm::Error),
    /// A table could not be written to guest memory.
    #[error("Descriptor or page tables cannot be written to guest memory")]
    Memory(#[from] GuestMemoryError),
}

/// Puts the boot CPU at the kernel's entry point, in the mode that its boot protocol asks for.
///
/// # Errors
///
/// [`EnterError`] when an ioctl fails or guest memory is too small for the tables.
pub fn enter(vcpu: &VirtualCpu, memory: &GuestMemory, entry: Entry) -> Result<(), EnterError> {
    let mut sregs = vcpu.get_sregs()?;
    let regs = match entry {
        Entry::Pvh(address) => {
            protected_mode(&mut sregs);
            kvm_regs {
                rip: address,
                rbx: layout::PVH_START_INFO,
                rflags: RFLAGS,
                ..Default::default()
            }
        }
        Entry::Linux64(address) => {
            write_page_tables(memory)?;
            long_mode(&mut sregs);
            kvm_regs {
                rip: address,
                rsi: layout::ZERO_PAGE,
                rsp: layout::BOOT_STACK,
                rbp: layout::BOOT_STACK,
                rflags: RFLAGS,
                ..Default::default()
            }
        }
    };
    write_descriptor_table(memory, &sregs)?;
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&regs)?;
    // The values of a reset: all exceptions masked.
    vcpu.set_fpu(&kvm_fpu {
        fcw: 0x37f,
        mxcsr: 0x1f80,
        ..Default::default()
    })?;
    Ok(())
}

/// PVH: 32-bit protected mode, flat segments, no paging.
fn protected_mode(sregs: &mut kvm_sregs) {
    flat_segments(sregs, false);
    sregs.cr0 = CR0_PE | CR0_ET;
    sregs.cr4 = 0;
    sregs.efer = 0;
}

/// The 64-bit boot protocol: long mode with the identity mapping.
fn long_mode(sregs: &mut kvm_sregs) {
    flat_segments(sregs, true);
    sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
    sregs.cr3 = layout::PAGE_TABLES;
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER_LME | EFER_LMA;
}

/// Selectors are those of Linux's boot protocol: code 0x10, data 0x18.
fn flat_segments(sregs: &mut kvm_sregs, long: bool) {
    let code = kvm_segment {
        limit: u32::MAX,
        selector: 0x10,
        type_: 0xb,
        present: 1,
        s: 1,
        g: 1,
        l: u8::from(long),
        db: u8::from(!long),
        ..Default::default()
    };
    let data = kvm_segment {
        selector: 0x18,
        type_: 3,
        l: 0,
        db: 1,
        ..code
    };
    let task = kvm_segment {
        limit: 0x67,
        selector: 0x20,
        type_: 0xb,
        present: 1,
        ..Default::default()
    };
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = task;
    sregs.gdt = kvm_dtable {
        base: layout::GDT,
        limit: 5 * 8 - 1,
        ..Default::default()
    };
    sregs.idt = kvm_dtable {
        base: layout::IDT,
        limit: 7,
        ..Default::default()
    };
}

/// The table that the segment registers came from, for a kernel that loads them again.
fn write_descriptor_table(memory: &GuestMemory, sregs: &kvm_sregs) -> Result<(), GuestMemoryError> {
    let table = [
        0,
        0,
        descriptor(&sregs.cs),
        descriptor(&sregs.ds),
        descriptor(&sregs.tr),
    ];
    for (index, entry) in (0..).zip(table) {
        memory.write_obj(entry, GuestAddress(layout::GDT + index * 8))?;
    }
    memory.write_obj(0u64, GuestAddress(layout::IDT))
}

/// A segment as the descriptor table holds it.
fn descriptor(segment: &kvm_segment) -> u64 {
    let limit = u64::from(if segment.g != 0 {
        segment.limit >> 12
    } else {
        segment.limit
    });
    let bit = |value: u8, at: u32| u64::from(value & 1) << at;
    let base = segment.base;
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | u64::from(segment.type_ & 0xf) << 40
        | bit(segment.s, 44)
        | u64::from(segment.dpl & 3) << 45
        | bit(segment.present, 47)
        | (limit >> 16 & 0xf) << 48
        | bit(segment.avl, 52)
        | bit(segment.l, 53)
        | bit(segment.db, 54)
        | bit(segment.g, 55)
        | (base >> 24 & 0xff) << 56
}

fn write_page_tables(memory: &GuestMemory) -> Result<(), GuestMemoryError> {
    const PAGE: u64 = 4096;
    let (top, second, third) = (
        layout::PAGE_TABLES,
        layout::PAGE_TABLES + PAGE,
        layout::PAGE_TABLES + 2 * PAGE,
    );
    memory.write_obj(second | PAGE_PRESENT_WRITABLE, GuestAddress(top))?;
    for gib in 0..IDENTITY_GIB {
        let table = third + gib * PAGE;
        memory.write_obj(
            table | PAGE_PRESENT_WRITABLE,
            GuestAddress(second + gib * 8),
        )?;
        let mut entries = [0; 4096];
        for (entry, page) in entries.chunks_exact_mut(8).zip(gib << 9..) {
            let value = page << 21 | PAGE_2M | PAGE_PRESENT_WRITABLE;
            entry.copy_from_slice(&value.to_le_bytes());
        }
        memory.write_slice(&entries, GuestAddress(table))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> GuestMemory {
        GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap()
    }

    #[test]
    fn descriptors_are_the_flat_segments_that_linux_knows() {
        let mut sregs = kvm_sregs::default();
        flat_segments(&mut sregs, true);
        assert_eq!(descriptor(&sregs.cs), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(&sregs.ds), 0x00cf_9300_0000_ffff);
        flat_segments(&mut sregs, false);
        assert_eq!(descriptor(&sregs.cs), 0x00cf_9b00_0000_ffff);
        assert_eq!(descriptor(&sregs.tr), 0x0000_8b00_0000_0067);
    }

    #[test]
    fn page_tables_map_every_address_below_four_gib_to_itself() {
        let memory = memory();
        write_page_tables(&memory).unwrap();
        let entry = |table: u64, index: u64| -> u64 {
            let value: u64 = memory.read_obj(GuestAddress(table + index * 8)).unwrap();
            assert_eq!(value & 3, 3);
            value & !0xfff
        };
        for address in [0, 0x10_0000, 0x7fff_ffff, 0xd000_0000, 0xffff_ffff_u64] {
            let second = entry(layout::PAGE_TABLES, address >> 39);
            let third = entry(second, address >> 30 & 0x1ff);
            let page = entry(third, address >> 21 & 0x1ff);
            assert_eq!(page, address >> 21 << 21);
        }
    }

    #[test]
    fn tables_that_do_not_fit_are_an_error() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x9000)]).unwrap();
        assert!(write_page_tables(&memory).is_err());
    }
}
