//! What the guest looks like to its processor: addresses, selectors, and the few instructions that
//! run in its ring 0.
//!
//! The upper half of every address space is the same and closed to ring 3: one page of stubs, the
//! interrupt descriptor table, and for each vCPU a page of descriptors and a stack. There is no
//! kernel: a stub does nothing but leave the guest.

use microvm_kvm::PAGE_SIZE;

/// First address that programs may use, in bytes.
pub const MIN_USER_ADDRESS: u64 = PAGE_SIZE;
/// First address that programs may not use: the lower half but for its last page, which holds
/// [`LOWER_STUB`] where the host needs it.
pub const MAX_USER_ADDRESS: u64 = LOWER_STUB;
/// First address above the lower half.
pub const LOWER_HALF_END: u64 = 1 << 47;

/// A page that ring 3 may execute: `out`, then an undefined instruction. SYSCALL leads here on
/// hosts where it does not change the privilege level.
pub const LOWER_STUB: u64 = LOWER_HALF_END - PAGE_SIZE;
/// Start of the part that all address spaces share.
pub const KERNEL: u64 = 0xffff_8000_0000_0000;

/// Pages of the kernel part, in order.
pub const STUB_PAGE: u64 = 0;
pub const IDT_PAGE: u64 = 1;
pub const LOWER_STUB_PAGE: u64 = 2;
/// First of two pages for each vCPU.
pub const FIRST_VCPU_PAGE: u64 = 3;

/// Most vCPUs of a machine.
pub const MAX_VCPUS: u64 = 128;
/// How many more numbers there are for those that take the place of others. One table of the kernel
/// part maps them all.
pub const SPARE_VCPUS: u64 = 4;

/// Pages of the kernel part of a machine with so many vCPUs.
pub fn kernel_pages(vcpus: u64) -> u64 {
    FIRST_VCPU_PAGE + 2 * vcpus
}

/// Port of all stubs; nothing else is at any port.
pub const PORT: u8 = 0x10;

/// Offset of the SYSCALL stub in its page: `out PORT, al; ud2`.
pub const SYSCALL_STUB: u64 = 0;
/// Offset of the stub that goes to ring 3 by `iretq`, after it the one that does by `sysretq`.
pub const IRET_STUB: u64 = 0x10;
pub const SYSRET_STUB: u64 = 0x20;
/// Offset of the stub of exception 0, and bytes from one to the next.
pub const EXCEPTION_STUBS: u64 = 0x400;
pub const EXCEPTION_STUB_BYTES: u64 = 0x20;
/// Exceptions that have a stub; interrupts never arrive.
pub const EXCEPTIONS: u64 = 32;

/// `out PORT, al; ud2`
pub const OUT: [u8; 4] = [0xe6, PORT, 0x0f, 0x0b];
/// `iretq`
pub const IRET: [u8; 2] = [0x48, 0xcf];
/// `sysretq`
pub const SYSRET: [u8; 3] = [0x48, 0x0f, 0x07];
/// `push rax; mov rax, cr2; push rax; out PORT, al; ud2`: reading CR2 from outside costs a call.
pub const PAGE_FAULT: [u8; 9] = [0x50, 0x0f, 0x20, 0xd0, 0x50, 0xe6, PORT, 0x0f, 0x0b];

/// Offsets in a vCPU's page of descriptors.
pub const TSS: u64 = 0;
pub const GDT: u64 = 0x800;
/// The task state segment, then a bitmap of ports that ends behind [`PORT`]. The processor reads
/// two bytes of it at a time.
pub const TSS_BYTES: u64 = 104 + 8;
pub const GDT_BYTES: u64 = 10 * 8;

/// Offset of the frame that the `iretq` stub takes, in a vCPU's stack page.
pub const IRET_FRAME: u64 = 0x100;
/// Offset of the top of the exception stack.
pub const STACK_TOP: u64 = 0xff0;

pub const KERNEL_CODE: u16 = 0x10;
pub const KERNEL_DATA: u16 = 0x18;
/// What SYSRET counts from. The descriptor itself, 32-bit user code, does not exist.
pub const USER_BASE: u16 = 0x23;
pub const USER_DATA: u16 = 0x2b;
pub const USER_CODE: u16 = 0x33;
pub const TASK: u16 = 0x40;

/// Numbers of the page fault and the general protection fault.
pub const PAGE_FAULT_VECTOR: u8 = 14;
pub const GENERAL_PROTECTION_VECTOR: u8 = 13;

/// Whether the processor pushes an error code for this exception.
pub fn has_error_code(vector: u64) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
}

/// Flags that programs may set: carry, parity, adjust, zero, sign, trap, direction, overflow,
/// alignment check, identification.
pub const USER_FLAGS: u64 = 0x24_0dd5;
/// Flags that are always set in ring 3: the reserved one and interrupts enabled.
pub const FIXED_FLAGS: u64 = 0x202;
/// Flags that SYSCALL clears: trap, interrupt, direction, I/O privilege, nested task, alignment
/// check.
pub const SYSCALL_MASK: u64 = 0x4_7700;

pub const MSR_STAR: u32 = 0xc000_0081;
pub const MSR_LSTAR: u32 = 0xc000_0082;
pub const MSR_CSTAR: u32 = 0xc000_0083;
pub const MSR_SYSCALL_MASK: u32 = 0xc000_0084;

/// Address of a page of the kernel part.
pub fn kernel_address(page: u64) -> u64 {
    KERNEL + page * PAGE_SIZE
}

/// Page of descriptors of a vCPU; its stack is the page after.
pub fn vcpu_page(id: u64) -> u64 {
    FIRST_VCPU_PAGE + 2 * id
}
