use proptest::prelude::*;

use super::*;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The table at an address of `image`, whose checksum is verified.
fn table(image: &[u8], address: u64) -> &[u8] {
    let at = (address - layout::ACPI) as usize;
    let table = &image[at..at + u32_at(image, at + 4) as usize];
    assert_eq!(sum(table), 0, "checksum of {:?}", &table[..4]);
    assert_eq!(at % 8, 0);
    table
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// FADT, MADT and DSDT, found as a guest finds them.
fn walk(image: &[u8]) -> [&[u8]; 3] {
    assert_eq!(&image[..8], b"RSD PTR ");
    assert_eq!((sum(&image[..20]), sum(&image[..36])), (0, 0));
    let xsdt = table(image, u64_at(image, 24));
    assert_eq!(&xsdt[..4], b"XSDT");
    let fadt = table(image, u64_at(xsdt, 36));
    let madt = table(image, u64_at(xsdt, 44));
    let dsdt = table(image, u64_at(fadt, 140));
    assert_eq!(
        (&fadt[..4], &madt[..4], &dsdt[..4]),
        (&b"FACP"[..], &b"APIC"[..], &b"DSDT"[..])
    );
    [fadt, madt, dsdt]
}

fn devices(count: u32) -> Vec<VirtioMmio> {
    (0..count)
        .map(|number| VirtioMmio {
            base: 0xd000_0000 + number * 0x1000,
            gsi: layout::VIRTIO_GSI + number,
        })
        .collect()
}

#[test]
fn a_guest_finds_every_table_by_its_pointers() {
    let image = build(layout::ACPI, 2, &devices(3));
    let [fadt, madt, dsdt] = walk(&image);
    // Hardware-reduced, with a reset register, and no CMOS clock.
    assert_eq!(u32_at(fadt, 112) & (1 << 20 | 1 << 10), 1 << 20 | 1 << 10);
    assert_eq!(fadt[109] & 0x20, 0x20);
    assert_eq!(u64_at(fadt, 120), u64::from(layout::ACPI_RESET));
    assert_eq!(madt.len(), 44 + 2 * 8 + 12);
    let found = dsdt.windows(8).filter(|w| w == b"LNRO0005").count();
    assert_eq!(found, 3);
}

#[test]
fn the_largest_machine_fits() {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let most = devices(layout::VIRTIO_DEVICES_MAX as u32);
    write(&memory, 64, &most).unwrap();
}

#[test]
fn too_many_devices_for_the_space_are_an_error() {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let devices = vec![devices(1)[0]; 250].repeat(20);
    assert!(matches!(
        write(&memory, 1, &devices),
        Err(AcpiError::TooLong { .. })
    ));
}

proptest! {
    #[test]
    fn tables_are_sound_for_any_machine(cpus in 1u8..=64, count in 0u32..=18) {
        let image = build(layout::ACPI, cpus, &devices(count));
        let [_, madt, _] = walk(&image);
        prop_assert_eq!(madt.len(), 44 + usize::from(cpus) * 8 + 12);
    }
}
