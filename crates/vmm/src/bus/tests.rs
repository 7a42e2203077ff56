use std::sync::Mutex;

use proptest::prelude::*;

use super::*;

/// Answers every read with its number and remembers the writes.
#[derive(Default)]
struct Recorder {
    fill: u8,
    writes: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl BusDevice for Recorder {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(self.fill.wrapping_add(offset as u8));
    }
    fn write(&self, offset: u64, data: &[u8]) {
        self.writes.lock().unwrap().push((offset, data.to_vec()));
    }
}

fn recorder(fill: u8) -> Arc<Recorder> {
    Arc::new(Recorder {
        fill,
        ..Recorder::default()
    })
}

#[test]
fn an_access_reaches_the_device_whose_range_holds_it() {
    let mut bus = Bus::new();
    let (low, high) = (recorder(0x10), recorder(0x20));
    bus.insert(0x300, 8, high.clone()).unwrap();
    bus.insert(0x100, 8, low.clone()).unwrap();

    let mut byte = [0];
    bus.read(0x101, &mut byte);
    assert_eq!(byte, [0x11]);
    bus.write(0x307, &[9]);
    assert_eq!(*high.writes.lock().unwrap(), [(7, vec![9])]);
    assert!(low.writes.lock().unwrap().is_empty());
}

#[test]
fn reads_that_no_device_owns_wholly_are_all_ones() {
    let mut bus = Bus::new();
    bus.insert(0x100, 8, recorder(0)).unwrap();
    for (address, length) in [(0xff, 1), (0xff, 2), (0x107, 2), (0x108, 4), (u64::MAX, 8)] {
        let mut data = vec![0; length];
        bus.read(address, &mut data);
        assert!(data.iter().all(|&b| b == 0xff), "{address:#x}+{length}");
        bus.write(address, &data);
    }
    bus.read(0x100, &mut []);
    bus.write(0x100, &[]);
}

#[test]
fn a_range_may_end_at_the_top_of_the_address_space() {
    let mut bus = Bus::new();
    bus.insert(u64::MAX - 3, 4, recorder(1)).unwrap();
    let mut byte = [0];
    bus.read(u64::MAX, &mut byte);
    assert_eq!(byte, [4]);
    assert!(matches!(
        bus.insert(u64::MAX - 3, 5, recorder(1)),
        Err(BusError::Range { .. })
    ));
    assert!(matches!(
        bus.insert(0, 0, recorder(1)),
        Err(BusError::Range { .. })
    ));
}

proptest! {
    #[test]
    fn accepted_ranges_never_overlap_and_each_owns_its_bytes(
        inserts in prop::collection::vec((0u64..256, 1u64..32), 1..24),
    ) {
        let mut bus = Bus::new();
        let mut owner = [None::<u8>; 512];
        for (number, (base, length)) in inserts.into_iter().enumerate() {
            let span = base as usize..(base + length) as usize;
            let free = owner[span.clone()].iter().all(Option::is_none);
            let device = Arc::new(Fixed(number as u8));
            prop_assert_eq!(bus.insert(base, length, device).is_ok(), free);
            if free {
                owner[span].fill(Some(number as u8));
            }
        }
        for (address, owner) in owner.iter().enumerate() {
            let mut byte = [0];
            bus.read(address as u64, &mut byte);
            prop_assert_eq!(byte[0], owner.unwrap_or(0xff));
        }
    }
}

struct Fixed(u8);

impl BusDevice for Fixed {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(self.0);
    }
    fn write(&self, _offset: u64, _data: &[u8]) {}
}
