//! The DSDT: devices that the guest cannot find by itself.

use acpi_tables::aml::{
    And, Device, EISAName, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, IO,
    If, Interrupt, Local, Memory32Fixed, Method, Name, Notify, ONE, OpRegion, OpRegionSpace,
    Package, Path, ResourceTemplate, Store, ZERO,
};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};

use super::{OEM, REVISION, SLEEP_TYPE_OFF, TABLE, VirtioMmio};
use crate::arch::x86_64::layout;

/// Value of a power button's notification: it was pressed.
const PRESSED: u8 = 0x80;

/// A table as bytes, for [`super::Tables`].
pub(super) struct Dsdt(Sdt);

impl Aml for Dsdt {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(self.0.as_slice());
    }
}

/// Builds the table.
pub(super) fn build(devices: &[VirtioMmio]) -> Dsdt {
    let mut aml = Vec::new();
    Name::new(
        "_S5_".into(),
        &Package::new(vec![&SLEEP_TYPE_OFF, &ZERO, &ZERO, &ZERO]),
    )
    .to_aml_bytes(&mut aml);
    serial(&mut aml);
    power_button(&mut aml);
    for (number, device) in (0..=0xfff).zip(devices) {
        virtio(number, device, &mut aml);
    }
    let mut table = Sdt::new(*b"DSDT", 36, 6, OEM, TABLE, REVISION);
    table.append_slice(&aml);
    Dsdt(table)
}

/// Edge-triggered, active high, not shared: as eventfds inject it.
fn interrupt(gsi: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, gsi)
}

fn serial(aml: &mut Vec<u8>) {
    let (first, length) = (layout::COM1, layout::COM1_LENGTH);
    let ports = IO::new(first, first, 1, u8::try_from(length).unwrap_or(8));
    Device::new(
        "_SB_.COM1".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&ports, &interrupt(layout::COM1_GSI)]),
            ),
        ],
    )
    .to_aml_bytes(aml);
}

/// A control method button, and the generic event device through which hardware-reduced machines
/// deliver its events: the interrupt's method reads (and thereby clears) the event register.
fn power_button(aml: &mut Vec<u8>) {
    let (button, events) = (Path::new("\\_SB_.PWRB"), Path::new("EVTS"));
    Device::new(
        "_SB_.PWRB".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C0C")),
            &Name::new("_UID".into(), &ZERO),
        ],
    )
    .to_aml_bytes(aml);
    Device::new(
        "_SB_.GED_".into(),
        vec![
            &Name::new("_HID".into(), &"ACPI0013"),
            &Name::new("_UID".into(), &ZERO),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&interrupt(layout::EVENT_GSI)]),
            ),
            &OpRegion::new(
                "EVTR".into(),
                OpRegionSpace::SystemIO,
                &layout::ACPI_EVENT,
                &ONE,
            ),
            &Field::new(
                "EVTR".into(),
                FieldAccessType::Byte,
                FieldLockRule::NoLock,
                FieldUpdateRule::WriteAsZeroes,
                vec![FieldEntry::Named(*b"EVTS", 8)],
            ),
            &Method::new(
                "_EVT".into(),
                1,
                true,
                vec![
                    &Store::new(&Local(0), &events),
                    &And::new(&Local(0), &Local(0), &ONE),
                    &If::new(&Local(0), vec![&Notify::new(&button, &PRESSED)]),
                ],
            ),
        ],
    )
    .to_aml_bytes(aml);
}

fn virtio(number: u16, device: &VirtioMmio, aml: &mut Vec<u8>) {
    let length = u32::try_from(layout::VIRTIO_MMIO_LENGTH).unwrap_or(u32::MAX);
    let name = format!("_SB_.V{number:03X}");
    Device::new(
        name.as_str().into(),
        vec![
            &Name::new("_HID".into(), &"LNRO0005"),
            &Name::new("_UID".into(), &number),
            &Name::new("_CCA".into(), &ONE),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![
                    &Memory32Fixed::new(true, device.base, length),
                    &interrupt(device.gsi),
                ]),
            ),
        ],
    )
    .to_aml_bytes(aml);
}
