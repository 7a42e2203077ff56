//! What the kernel is told at its entry: memory map, command line, initramfs, ACPI.

use linux_loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::layout;
use crate::boot::{Entry, LoadedGuest};
use crate::memory::{GuestMemory, ranges};

const START_INFO_MAGIC: u32 = 0x336e_c578;
/// `hdr.header`: "HdrS".
const BOOT_MAGIC: u32 = 0x5372_6448;
const BOOT_FLAG: u16 = 0xaa55;
/// A boot loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;

/// What a range of the guest's physical addresses is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryKind {
    /// RAM.
    Ram,
    /// Not to be touched.
    Reserved,
    /// ACPI tables, which the kernel may reclaim.
    Acpi,
}

impl MemoryKind {
    /// The number that both boot protocols use.
    fn number(self) -> u32 {
        match self {
            Self::Ram => 1,
            Self::Reserved => 2,
            Self::Acpi => 3,
        }
    }
}

/// An entry of the memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryRange {
    /// First address.
    pub base: u64,
    /// Length in bytes.
    pub length: u64,
    /// What it is.
    pub kind: MemoryKind,
}

/// The guest's memory map for `bytes` of RAM.
#[must_use]
pub fn memory_map(bytes: u64) -> Vec<MemoryRange> {
    let range = |base, end: u64, kind| MemoryRange {
        base,
        length: end.saturating_sub(base),
        kind,
    };
    let mut map = vec![
        range(0, layout::LOW_RAM_END, MemoryKind::Ram),
        range(layout::LOW_RAM_END, layout::ACPI, MemoryKind::Reserved),
        range(layout::ACPI, layout::ACPI_END, MemoryKind::Acpi),
    ];
    map.extend(ranges(bytes).map(|(base, length)| {
        let start = base.max(layout::HIGH_RAM);
        range(start, base + length, MemoryKind::Ram)
    }));
    map
}

/// Writes what the kernel's boot protocol wants to guest memory.
///
/// # Errors
///
/// When it lies outside guest memory.
pub fn write(
    memory: &GuestMemory,
    map: &[MemoryRange],
    guest: &LoadedGuest,
    command_line_length: usize,
) -> Result<(), GuestMemoryError> {
    match guest.kernel.entry {
        Entry::Pvh(_) => write_start_info(memory, map, guest),
        Entry::Linux64(_) => write_zero_page(memory, map, guest, command_line_length),
    }
}

fn write_start_info(
    memory: &GuestMemory,
    map: &[MemoryRange],
    guest: &LoadedGuest,
) -> Result<(), GuestMemoryError> {
    let modules_at = layout::PVH_START_INFO + size_of::<hvm_start_info>() as u64;
    let map_at = modules_at + size_of::<hvm_modlist_entry>() as u64;
    for (index, range) in (0..).zip(map) {
        let entry = hvm_memmap_table_entry {
            addr: range.base,
            size: range.length,
            type_: range.kind.number(),
            reserved: 0,
        };
        let at = map_at + index * size_of::<hvm_memmap_table_entry>() as u64;
        memory.write_obj(entry, GuestAddress(at))?;
    }
    if let Some(initramfs) = guest.initramfs {
        let module = hvm_modlist_entry {
            paddr: initramfs.address,
            size: initramfs.length,
            ..Default::default()
        };
        memory.write_obj(module, GuestAddress(modules_at))?;
    }
    let modules = u32::from(guest.initramfs.is_some());
    let info = hvm_start_info {
        magic: START_INFO_MAGIC,
        version: 1,
        nr_modules: modules,
        modlist_paddr: if modules == 0 { 0 } else { modules_at },
        cmdline_paddr: layout::COMMAND_LINE,
        rsdp_paddr: layout::ACPI,
        memmap_paddr: map_at,
        memmap_entries: u32::try_from(map.len()).unwrap_or(u32::MAX),
        ..Default::default()
    };
    memory.write_obj(info, GuestAddress(layout::PVH_START_INFO))
}

fn write_zero_page(
    memory: &GuestMemory,
    map: &[MemoryRange],
    guest: &LoadedGuest,
    command_line_length: usize,
) -> Result<(), GuestMemoryError> {
    let mut params = boot_params {
        hdr: guest.kernel.setup_header.unwrap_or_default(),
        acpi_rsdp_addr: layout::ACPI,
        ..Default::default()
    };
    let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or_default();
    let header = &mut params.hdr;
    header.header = BOOT_MAGIC;
    header.boot_flag = BOOT_FLAG;
    header.type_of_loader = LOADER_UNDEFINED;
    header.cmd_line_ptr = low(layout::COMMAND_LINE);
    header.cmdline_size = u32::try_from(command_line_length).unwrap_or_default();
    if let Some(initramfs) = guest.initramfs {
        // Always below 4 GiB: RAM there is where images are loaded.
        header.ramdisk_image = low(initramfs.address);
        header.ramdisk_size = low(initramfs.length);
    }
    let mut table = params.e820_table;
    for (entry, range) in table.iter_mut().zip(map) {
        *entry = boot_e820_entry {
            addr: range.base,
            size: range.length,
            r#type: range.kind.number(),
        };
    }
    params.e820_table = table;
    params.e820_entries = u8::try_from(map.len().min(table.len())).unwrap_or_default();
    memory.write_obj(params, GuestAddress(layout::ZERO_PAGE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::{Initramfs, LoadedKernel};

    const GIB: u64 = 1 << 30;

    fn guest(entry: Entry) -> LoadedGuest {
        LoadedGuest {
            kernel: LoadedKernel {
                entry,
                end: 0x20_0000,
                initramfs_last: 0x3ff_ffff,
                setup_header: None,
            },
            initramfs: Some(Initramfs {
                address: 0x300_0000,
                length: 12345,
            }),
        }
    }

    fn memory() -> GuestMemory {
        GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap()
    }

    #[test]
    fn the_map_has_no_gap_below_one_mib_and_no_overlap() {
        for bytes in [16 << 20, 3 * GIB, 3 * GIB + 4096, 8 * GIB] {
            let map = memory_map(bytes);
            let mut end = 0;
            for range in &map {
                assert!(range.base >= end && range.length > 0);
                assert!(range.base == end || range.base == layout::RAM_ABOVE_4G);
                end = range.base + range.length;
            }
            assert_eq!(
                map.last().unwrap().base,
                if bytes > 3 * GIB { 4 * GIB } else { 1 << 20 }
            );
        }
    }

    #[test]
    fn pvh_finds_map_module_and_tables_from_start_info() {
        let memory = memory();
        let map = memory_map(4 * GIB);
        write(&memory, &map, &guest(Entry::Pvh(0)), 5).unwrap();
        let info: hvm_start_info = memory
            .read_obj(GuestAddress(layout::PVH_START_INFO))
            .unwrap();
        assert_eq!(info.magic, START_INFO_MAGIC);
        assert_eq!((info.nr_modules, info.memmap_entries), (1, 5));
        assert_eq!(info.rsdp_paddr, layout::ACPI);
        let module: hvm_modlist_entry = memory.read_obj(GuestAddress(info.modlist_paddr)).unwrap();
        assert_eq!((module.paddr, module.size), (0x300_0000, 12345));
        let last: hvm_memmap_table_entry = memory
            .read_obj(GuestAddress(info.memmap_paddr + 4 * 24))
            .unwrap();
        assert_eq!((last.addr, last.size, last.type_), (4 * GIB, GIB, 1));
        assert!(info.memmap_paddr + 5 * 24 < layout::ZERO_PAGE);
    }

    #[test]
    fn the_zero_page_carries_the_same() {
        let memory = memory();
        let map = memory_map(64 << 20);
        write(&memory, &map, &guest(Entry::Linux64(0)), 5).unwrap();
        let params: boot_params = memory.read_obj(GuestAddress(layout::ZERO_PAGE)).unwrap();
        assert_eq!(params.e820_entries, 4);
        assert_eq!({ params.hdr.ramdisk_image }, 0x300_0000);
        assert_eq!({ params.hdr.ramdisk_size }, 12345);
        assert_eq!({ params.hdr.cmd_line_ptr }, 0x2_0000);
        assert_eq!({ params.acpi_rsdp_addr }, layout::ACPI);
    }
}
