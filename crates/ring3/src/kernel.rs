//! The kernel part of a machine's memory: stubs, descriptor tables, and what each vCPU needs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kvm_bindings::{kvm_dtable, kvm_segment, kvm_sregs};
use microvm_kvm::{MemoryRegion, PAGE_SIZE, VirtualMachine};
use vm_memory::Bytes;

use crate::error::Error;
use crate::layout::*;
use crate::page_tables::TablePage;
use crate::physical::PhysicalSpace;
use crate::traits::SyscallEntry;

/// Present, writable, accessed, dirty; for the kernel only.
const TABLE: u64 = 0x63;
/// No instruction may be fetched from the page.
const NO_EXECUTE: u64 = 1 << 63;

const CR0: u64 = 0x8005_0033;
/// Physical address extension, FXSAVE, SIMD exceptions.
const CR4: u64 = 0x620;
const CR4_UMIP: u64 = 1 << 11;
const CR4_FSGSBASE: u64 = 1 << 16;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_SMEP: u64 = 1 << 20;
/// System calls, long mode, no-execute.
const EFER: u64 = 0xd01;

/// The kernel part of a machine.
#[derive(Debug)]
pub struct Kernel {
    region: Arc<MemoryRegion>,
    address: u64,
    tables: u64,
    entry: SyscallEntry,
}

/// Entry 256 of a root table, which every address space has.
pub const KERNEL_ENTRY: u64 = 256;

impl Kernel {
    /// Makes the part, for this many numbers of vCPUs, and maps it into the machine. `entry` tells whether
    /// programs need the port of the stubs.
    pub fn new(
        vm: &VirtualMachine,
        physical: &mut PhysicalSpace,
        vcpus: u64,
        entry: SyscallEntry,
    ) -> Result<Self, Error> {
        let doing = "Adding the memory of the stubs";
        // Three more pages map it.
        let tables = kernel_pages(vcpus);
        let length = (tables + 3) * PAGE_SIZE;
        let place = physical.take(length).ok_or(Error::NoRoom { length })?;
        let region = Arc::new(MemoryRegion::anonymous(length).map_err(Error::kvm(doing))?);
        vm.set_guest_memory_region(place.slot, 0, place.address, Arc::clone(&region))
            .map_err(Error::kvm(doing))?;
        let kernel = Self {
            region,
            address: place.address,
            tables,
            entry,
        };
        kernel.write_tables();
        kernel.write_stubs();
        kernel.write_idt();
        Ok(kernel)
    }

    /// What entry [`KERNEL_ENTRY`] of a root table has to be.
    pub fn entry(&self) -> u64 {
        self.table(0).address | TABLE
    }

    /// Guest physical address of the page for [`LOWER_STUB`].
    pub fn lower_stub(&self) -> u64 {
        self.address + LOWER_STUB_PAGE * PAGE_SIZE
    }

    /// Reads a word of the stack page of a vCPU.
    pub fn read_stack(&self, id: u64, offset: u64) -> u64 {
        let offset = (vcpu_page(id) + 1) * PAGE_SIZE + offset;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let memory = self.region.as_volatile_slice();
        memory.load(offset, Ordering::Relaxed).unwrap_or(0)
    }

    /// Writes the frame for the `iretq` stub; returns its address.
    pub fn write_frame(&self, id: u64, rip: u64, rflags: u64, rsp: u64) -> u64 {
        let page = vcpu_page(id) + 1;
        let frame = page * PAGE_SIZE + IRET_FRAME;
        // The selectors, which never change, are there from the start.
        self.write_word(frame, rip);
        self.write_word(frame + 16, rflags);
        self.write_word(frame + 24, rsp);
        kernel_address(page) + IRET_FRAME
    }

    /// The special registers of a vCPU in ring 3. `features` are those of [`features`].
    pub fn sregs(&self, id: u64, reset: &kvm_sregs, features: u64) -> kvm_sregs {
        let page = kernel_address(vcpu_page(id));
        let mut sregs = *reset;
        sregs.cs = user_segment(USER_CODE);
        sregs.ss = user_segment(USER_DATA);
        sregs.ds = user_segment(USER_DATA);
        sregs.es = user_segment(USER_DATA);
        sregs.fs = user_segment(0);
        sregs.gs = user_segment(0);
        sregs.tr = kvm_segment {
            base: page + TSS,
            limit: u32::try_from(TSS_BYTES - 1).unwrap_or(u32::MAX),
            selector: TASK,
            type_: 11,
            present: 1,
            ..Default::default()
        };
        sregs.ldt = kvm_segment {
            unusable: 1,
            ..Default::default()
        };
        sregs.gdt = kvm_dtable {
            base: page + GDT,
            limit: u16::try_from(GDT_BYTES - 1).unwrap_or(u16::MAX),
            ..Default::default()
        };
        sregs.idt = kvm_dtable {
            base: kernel_address(IDT_PAGE),
            limit: u16::try_from(EXCEPTIONS * 16 - 1).unwrap_or(u16::MAX),
            ..Default::default()
        };
        sregs.cr0 = CR0;
        sregs.cr4 = CR4 | features;
        sregs.efer = EFER;
        sregs
    }

    fn table(&self, index: u64) -> TablePage {
        let offset = (self.tables + index) * PAGE_SIZE;
        TablePage::new(Arc::clone(&self.region), self.address, offset)
    }

    fn write_tables(&self) {
        // The kernel part starts at the first entry of each level.
        self.table(0).set(0, self.table(1).address | TABLE);
        self.table(1).set(0, self.table(2).address | TABLE);
        for page in 0..self.tables {
            let flags = match page {
                STUB_PAGE => 0x61,
                LOWER_STUB_PAGE => continue,
                _ => TABLE | NO_EXECUTE,
            };
            self.table(2)
                .set(page, (self.address + page * PAGE_SIZE) | flags);
        }
    }

    fn write_stubs(&self) {
        self.write(STUB_PAGE, SYSCALL_STUB, &OUT);
        self.write(STUB_PAGE, IRET_STUB, &IRET);
        self.write(STUB_PAGE, SYSRET_STUB, &SYSRET);
        for vector in 0..EXCEPTIONS {
            let offset = EXCEPTION_STUBS + vector * EXCEPTION_STUB_BYTES;
            if vector == u64::from(PAGE_FAULT_VECTOR) {
                self.write(STUB_PAGE, offset, &PAGE_FAULT);
            } else {
                self.write(STUB_PAGE, offset, &OUT);
            }
        }
        self.write(LOWER_STUB_PAGE, 0, &OUT);
    }

    fn write_idt(&self) {
        for vector in 0..EXCEPTIONS {
            let stub = kernel_address(STUB_PAGE) + EXCEPTION_STUBS + vector * EXCEPTION_STUB_BYTES;
            // Breakpoints may be raised by an instruction.
            let privilege: u64 = if vector == 3 || vector == 4 { 3 } else { 0 };
            let low = stub & 0xffff
                | u64::from(KERNEL_CODE) << 16
                // Interrupt stack 1: whatever the stack pointer is, the frame is where the host
                // reads it.
                | 1 << 32
                | (0x8e | privilege << 5) << 40
                | (stub >> 16 & 0xffff) << 48;
            let offset = IDT_PAGE * PAGE_SIZE + vector * 16;
            self.write_word(offset, low);
            self.write_word(offset + 8, stub >> 32);
        }
    }

    /// Writes the descriptors of a vCPU, before it is made.
    pub fn write_vcpu(&self, id: u64) {
        let page = vcpu_page(id);
        let start = page * PAGE_SIZE;
        let stack = kernel_address(page + 1) + STACK_TOP;
        let frame = (page + 1) * PAGE_SIZE + IRET_FRAME;
        self.write_word(frame + 8, USER_CODE.into());
        self.write_word(frame + 32, USER_DATA.into());
        // RSP0 and IST1.
        for offset in [4, 36] {
            self.write(page, TSS + offset, &stack.to_le_bytes());
        }
        self.write(page, TSS + 102, &104u16.to_le_bytes());
        let mut ports = [0xff; 8];
        // Ring 3 has the port of the stubs only where it has a stub.
        if self.entry == SyscallEntry::Ring3
            && let Some(byte) = ports.get_mut(usize::from(PORT / 8))
        {
            *byte &= !(1 << (PORT % 8));
        }
        self.write(page, TSS + 104, &ports);
        let task = kernel_address(page) + TSS;
        let task_low = (TSS_BYTES - 1)
            | (task & 0xff_ffff) << 16
            // Present, a busy 64-bit task.
            | 0x8b << 40
            | (task >> 24 & 0xff) << 56;
        let entries = [
            (KERNEL_CODE, 0x00af_9b00_0000_ffff),
            (KERNEL_DATA, 0x00cf_9300_0000_ffff),
            (USER_DATA & !3, 0x00cf_f300_0000_ffff),
            (USER_CODE & !3, 0x00af_fb00_0000_ffff),
            (TASK, task_low),
            (TASK + 8, task >> 32),
        ];
        for (selector, descriptor) in entries {
            self.write_word(start + GDT + u64::from(selector), descriptor);
        }
    }

    fn write_word(&self, offset: u64, word: u64) {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let memory = self.region.as_volatile_slice();
        // The offset is inside by construction, and aligned.
        let stored = memory.store(word, offset, Ordering::Relaxed);
        debug_assert!(stored.is_ok());
    }

    fn write(&self, page: u64, offset: u64, bytes: &[u8]) {
        let written = self.region.write(page * PAGE_SIZE + offset, bytes);
        debug_assert!(written.is_ok());
    }
}

fn user_segment(selector: u16) -> kvm_segment {
    let code = selector == USER_CODE;
    kvm_segment {
        limit: u32::MAX,
        selector,
        type_: if code { 11 } else { 3 },
        present: 1,
        dpl: 3,
        db: u8::from(!code),
        s: 1,
        l: u8::from(code),
        g: 1,
        ..Default::default()
    }
}

/// Features of the processor that programs profit from, as bits of CR4: those of the CPUID that
/// KVM gives to guests.
pub fn features(cpuid: &kvm_bindings::CpuId) -> u64 {
    let leaf = |function| {
        let mut entries = cpuid.as_slice().iter();
        entries.find(|entry| entry.function == function && entry.index == 0)
    };
    let mut bits = 0;
    if leaf(1).is_some_and(|leaf| leaf.ecx & 1 << 26 != 0) {
        bits |= CR4_OSXSAVE;
    }
    if let Some(leaf) = leaf(7) {
        for (bit, feature) in [(0, CR4_FSGSBASE), (7, CR4_SMEP)] {
            if leaf.ebx & 1 << bit != 0 {
                bits |= feature;
            }
        }
        if leaf.ecx & 1 << 2 != 0 {
            bits |= CR4_UMIP;
        }
    }
    bits
}

/// Components of the extended state that programs get, as bits of XCR0: x87, SSE, AVX, AVX-512;
/// 0 where there is no XSAVE.
pub fn extended_components(cpuid: &kvm_bindings::CpuId) -> u64 {
    if features(cpuid) & CR4_OSXSAVE == 0 {
        return 0;
    }
    let mut entries = cpuid.as_slice().iter();
    let leaf = entries.find(|entry| entry.function == 0xd && entry.index == 0);
    leaf.map_or(0, |leaf| u64::from(leaf.eax) & 0xe7)
}
