//! Any file that is said to be a program.
#![no_main]

use libfuzzer_sys::fuzz_target;
use microvm_ring3_linux::parse_elf;

const LIMIT: u64 = 1 << 30;

fuzz_target!(|bytes: &[u8]| {
    let Ok(elf) = parse_elf(bytes, LIMIT) else {
        return;
    };
    // What the loader counts on.
    let mut total = 0;
    let mut last = 0;
    for segment in &elf.segments {
        assert!(segment.first_page() >= last && segment.length > 0);
        assert!(segment.file_length <= segment.length);
        assert!(segment.offset + segment.file_length <= bytes.len() as u64);
        assert!(!(segment.write && segment.execute));
        last = segment.last_page();
        total += last - segment.first_page();
    }
    assert!(total <= LIMIT && last < 1 << 47);
    assert!(elf.segments.iter().any(|segment| {
        segment.execute && (segment.address..segment.address + segment.length).contains(&elf.entry)
    }));
});
