//! ACPI tables: how the guest finds its CPUs, devices and the way to switch itself off.
//!
//! Hardware-reduced ACPI: no PM timer, no fixed event registers. RSDP, XSDT, FADT, MADT and DSDT
//! lie one behind the other in [`layout::ACPI`]..[`layout::ACPI_END`].

mod dsdt;

use acpi_tables::fadt::{FADT, FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::arch::x86_64::layout;
use crate::memory::GuestMemory;

const OEM: [u8; 6] = *b"MICROV";
const TABLE: [u8; 8] = *b"MICROVM ";
const REVISION: u32 = 1;

/// Written to the sleep type field to switch the machine off: the guest learns it from `_S5`.
pub const SLEEP_TYPE_OFF: u8 = 5;
/// Written to the reset register to restart the machine.
pub const RESET_VALUE: u8 = 1;

/// `IA-PC boot architecture flags`: there is no VGA.
const NO_VGA: u16 = 1 << 2;
/// There is no CMOS clock. Without this flag Linux reads its ports 40,000 times.
const NO_CMOS_RTC: u16 = 1 << 5;

/// A virtio-mmio device as the guest's tables announce it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtioMmio {
    /// First address of its registers, below 4 GiB.
    pub base: u32,
    /// Its interrupt line.
    pub gsi: u32,
}

/// Why the tables could not be written.
#[derive(Debug, thiserror::Error)]
pub enum AcpiError {
    /// They are longer than the space for them.
    #[error("ACPI tables have {length} bytes, {max} fit")]
    TooLong {
        /// Their length in bytes.
        length: usize,
        /// The room for them, in bytes.
        max: usize,
    },
    /// Guest memory does not reach that far.
    #[error("ACPI tables cannot be written to guest memory")]
    Memory(#[from] GuestMemoryError),
}

/// Writes all tables to guest memory.
///
/// # Errors
///
/// [`AcpiError`]; not for any machine whose configuration was accepted.
pub fn write(memory: &GuestMemory, cpus: u8, devices: &[VirtioMmio]) -> Result<(), AcpiError> {
    let bytes = build(layout::ACPI, cpus, devices);
    let max = usize::try_from(layout::ACPI_END - layout::ACPI).unwrap_or(0);
    if bytes.len() > max {
        return Err(AcpiError::TooLong {
            length: bytes.len(),
            max,
        });
    }
    memory.write_slice(&bytes, GuestAddress(layout::ACPI))?;
    Ok(())
}

/// The bytes of all tables, to lie at `base`. The RSDP is first.
fn build(base: u64, cpus: u8, devices: &[VirtioMmio]) -> Vec<u8> {
    // The RSDP has a fixed length; the others follow it in the order in which they refer to each
    // other, last first.
    let mut tables = Tables {
        next: base + Rsdp::len() as u64,
        bytes: Vec::new(),
    };
    let dsdt = tables.push(&dsdt::build(devices));
    let fadt = tables.push(&fadt(dsdt));
    let madt = tables.push(&madt(cpus));
    let mut xsdt = XSDT::new(OEM, TABLE, REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = tables.push(&xsdt);

    let mut bytes = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut bytes);
    bytes.extend(tables.bytes);
    bytes
}

/// Tables one behind the other, each aligned to eight bytes.
struct Tables {
    next: u64,
    bytes: Vec<u8>,
}

impl Tables {
    /// Adds a table and returns its address.
    fn push(&mut self, table: &dyn Aml) -> u64 {
        let address = self.next.next_multiple_of(8);
        for _ in self.next..address {
            self.bytes.byte(0);
        }
        let before = self.bytes.len();
        table.to_aml_bytes(&mut self.bytes);
        self.next = address + (self.bytes.len() - before) as u64;
        address
    }
}

fn fadt(dsdt: u64) -> FADT {
    let port = |number: u16| {
        GAS::new(
            AddressSpace::SystemIo,
            8,
            0,
            AccessSize::ByteAccess,
            number.into(),
        )
    };
    let mut table = FADTBuilder::new(OEM, TABLE, REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        // Set: there is no such button among the fixed events; it is a device of the DSDT.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    table.iapc_boot_arch = (NO_VGA | NO_CMOS_RTC).into();
    table.reset_reg = port(layout::ACPI_RESET);
    table.reset_value = RESET_VALUE;
    table.sleep_control_reg = port(layout::ACPI_SLEEP_CONTROL);
    table.sleep_status_reg = port(layout::ACPI_SLEEP_STATUS);
    table.finalize()
}

fn madt(cpus: u8) -> MADT {
    let lapic = LocalInterruptController::Address(layout::LOCAL_APIC);
    let mut table = MADT::new(OEM, TABLE, REVISION, lapic);
    for cpu in 0..cpus {
        table.add_structure(ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled));
    }
    table.add_structure(IoApic::new(0, layout::IO_APIC, 0));
    table
}

#[cfg(test)]
mod tests;
