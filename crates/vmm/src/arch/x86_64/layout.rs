//! Where things lie in the guest's physical address space and on its interrupt lines.
//!
//! ```text
//! 0x0000_0500  GDT                          0x0002_0000  command line (2 KiB)
//! 0x0000_6000  start_info (PVH)             0x0009_fc00  end of low RAM
//! 0x0000_7000  zero page (64-bit boot)      0x000e_0000  ACPI tables, up to 0x000f_ffff
//! 0x0000_8ff0  stack of the 64-bit boot     0x0010_0000  RAM: kernel upward, initramfs at its top
//! 0x0000_9000  page tables, six pages       0xc000_0000  end of RAM below 4 GiB
//! 0xd000_0000  virtio-mmio, 4 KiB a device  0xfec0_0000  I/O APIC
//! 0xfee0_0000  local APIC                   0xfffb_c000  KVM's identity map and TSS
//! 0x1_0000_0000  the rest of RAM
//! ```

/// Global descriptor table of the boot CPU.
pub const GDT: u64 = 0x500;
/// Interrupt descriptor table of the boot CPU (one empty entry).
pub const IDT: u64 = 0x540;
/// `struct hvm_start_info` of the PVH boot protocol; memory map and module list follow it.
pub const PVH_START_INFO: u64 = 0x6000;
/// `struct boot_params` of the Linux boot protocol.
pub const ZERO_PAGE: u64 = 0x7000;
/// Top of the stack that the boot CPU starts with; a page of its own below the page tables.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Top level of the identity mapping: this page, one page of the second level, four of the third.
pub const PAGE_TABLES: u64 = 0x9000;
/// Kernel command line.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Longest command line in bytes, without its NUL: `COMMAND_LINE_SIZE` of Linux on x86 is 2048.
pub const COMMAND_LINE_MAX: usize = 2047;
/// First address below 1 MiB that is not RAM to the guest.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// ACPI tables; Linux scans from here when it was not told where the RSDP lies.
pub const ACPI: u64 = 0xe_0000;
/// End of the ACPI tables.
pub const ACPI_END: u64 = 0x10_0000;
/// Kernels are loaded from here upward.
pub const HIGH_RAM: u64 = 0x10_0000;
/// RAM below 4 GiB ends here at the latest: the hole for MMIO follows.
pub const MMIO_HOLE: u64 = 0xc000_0000;
/// RAM that does not fit below [`MMIO_HOLE`] goes on here.
pub const RAM_ABOVE_4G: u64 = 0x1_0000_0000;

/// First virtio-mmio device.
pub const VIRTIO_MMIO: u64 = 0xd000_0000;
/// Distance from one virtio-mmio device to the next, in bytes.
pub const VIRTIO_MMIO_STRIDE: u64 = 0x1000;
/// Bytes that a virtio-mmio device decodes.
pub const VIRTIO_MMIO_LENGTH: u64 = 0x200;
/// I/O APIC registers, in the kernel's irqchip.
pub const IO_APIC: u32 = 0xfec0_0000;
/// Local APIC registers, in the kernel's irqchip.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// One page that KVM needs on Intel hosts without unrestricted guest support.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages that KVM needs on Intel hosts for its real-mode task state.
pub const KVM_TSS: u64 = 0xfffb_d000;

/// First port of the serial console.
pub const COM1: u16 = 0x3f8;
/// Ports of the serial console.
pub const COM1_LENGTH: u16 = 8;
/// Data port of the keyboard controller.
pub const I8042_DATA: u16 = 0x60;
/// Command and status port of the keyboard controller.
pub const I8042_COMMAND: u16 = 0x64;
/// ACPI sleep control register; the status register is the next port.
pub const ACPI_SLEEP_CONTROL: u16 = 0x600;
/// ACPI sleep status register.
pub const ACPI_SLEEP_STATUS: u16 = 0x601;
/// ACPI event register: what the generic event device has to tell.
pub const ACPI_EVENT: u16 = 0x602;
/// ACPI reset register.
pub const ACPI_RESET: u16 = 0x604;
/// Ports from [`ACPI_SLEEP_CONTROL`] on that the power device decodes.
pub const ACPI_LENGTH: u16 = 5;

/// Interrupt of the serial console.
pub const COM1_GSI: u32 = 4;
/// First interrupt for virtio devices.
pub const VIRTIO_GSI: u32 = 5;
/// Interrupt of the generic event device (power button): the I/O APIC's last line.
pub const EVENT_GSI: u32 = 23;
/// Most virtio devices: one for each interrupt line in between.
pub const VIRTIO_DEVICES_MAX: usize = (EVENT_GSI - VIRTIO_GSI) as usize;
