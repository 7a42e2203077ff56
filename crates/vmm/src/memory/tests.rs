use proptest::prelude::*;
use vm_memory::{Bytes, GuestMemoryBackend};

use super::*;

const GIB: u64 = 1 << 30;

fn spans(ram: &Ram) -> Vec<(u64, u64)> {
    ram.memory()
        .iter()
        .map(|region| (region.start_addr().0, region.len()))
        .collect()
}

#[test]
fn small_ram_is_one_region_from_zero() {
    let ram = Ram::new(128 << 20, PageSize::Base).unwrap();
    assert_eq!(spans(&ram), [(0, 128 << 20)]);
    assert_eq!(ram.low_end(), 128 << 20);
}

#[test]
fn ram_that_passes_three_gib_goes_on_at_four_in_the_same_file() {
    let ram = Ram::new(4 * GIB, PageSize::Base).unwrap();
    assert_eq!(spans(&ram), [(0, 3 * GIB), (4 * GIB, GIB)]);
    let offsets: Vec<_> = ram
        .regions()
        .iter()
        .map(|region| {
            let offset = region.file_offset().unwrap();
            (Arc::as_ptr(offset.arc()), offset.start())
        })
        .collect();
    assert_eq!(offsets[0].0, offsets[1].0);
    assert_eq!((offsets[0].1, offsets[1].1), (0, 3 * GIB));

    let memory = ram.memory();
    memory.write_obj(7u8, GuestAddress(5 * GIB - 1)).unwrap();
    assert!(memory.write_obj(7u8, GuestAddress(3 * GIB)).is_err());
    assert!(memory.write_obj(7u8, GuestAddress(5 * GIB)).is_err());
}

#[test]
fn what_the_host_holds_grows_with_the_pages_that_are_used() {
    let ram = Ram::new(64 << 20, PageSize::Base).unwrap();
    let file = ram.file();
    let held = || file.upgrade().map(|file| allocated_bytes(&file));
    assert_eq!(held(), Some(0));
    ram.memory().write_obj(7u8, GuestAddress(32 << 20)).unwrap();
    // A page, or a huge one where the host gives those.
    assert!((4096..=HUGE_PAGE).contains(&held().unwrap()));
    drop(ram);
    assert_eq!(held(), None);
}

#[test]
fn nobody_who_holds_the_file_can_shrink_it() {
    let ram = Ram::new(16 << 20, PageSize::Base).unwrap();
    let file = ram.regions()[0].file_offset().unwrap().file();
    assert_eq!(
        file.set_len(4096).unwrap_err().raw_os_error(),
        Some(libc::EPERM)
    );
}

#[test]
fn huge_pages_are_reserved_at_once_or_refused() {
    // Most hosts reserve none.
    match Ram::new(64 << 20, PageSize::Huge) {
        Ok(ram) => ram.memory().write_obj(7u8, GuestAddress(0)).unwrap(),
        Err(error) => assert!(matches!(
            error,
            MemoryError::Map { .. } | MemoryError::File { .. }
        )),
    }
}

#[test]
fn an_absurd_size_is_an_error() {
    assert!(matches!(
        Ram::new(1 << 62, PageSize::Base),
        Err(MemoryError::Map { .. } | MemoryError::File { .. })
    ));
}

proptest! {
    #[test]
    fn ranges_add_up_and_spare_the_hole(bytes in 1u64..(1 << 44)) {
        let parts: Vec<_> = ranges(bytes).collect();
        prop_assert_eq!(parts.iter().map(|(_, length)| length).sum::<u64>(), bytes);
        for (base, length) in parts {
            prop_assert!(base + length <= layout::MMIO_HOLE || base >= layout::RAM_ABOVE_4G);
        }
    }
}
