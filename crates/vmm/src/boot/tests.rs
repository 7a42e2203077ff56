use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::memory::PageSize;

const MIB: u64 = 1 << 20;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

fn ram() -> Ram {
    Ram::new(64 * MIB, PageSize::Base).unwrap()
}

/// Loads `kernel` with nothing else.
fn load_kernel(kernel: &[u8]) -> Result<LoadedGuest, BootError> {
    let folder = Folder::new();
    load(&ram(), &folder.file("kernel", kernel), None, "")
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// An ELF kernel: a header, one segment of `image` at `address`, and a PVH note.
struct Elf {
    image: Vec<u8>,
    address: u64,
    in_memory: u64,
    entry: u32,
}

impl Elf {
    fn new() -> Self {
        Self {
            image: b"\xf4kernel code".to_vec(),
            address: MIB,
            in_memory: 0x2000,
            entry: MIB as u32,
        }
    }

    fn build(&self) -> Vec<u8> {
        let mut file = vec![0; 64 + 2 * 56];
        put(&mut file, 0, b"\x7fELF\x02\x01\x01");
        put(&mut file, 16, &2u16.to_le_bytes());
        put(&mut file, 18, &62u16.to_le_bytes());
        put(&mut file, 24, &u64::from(self.entry).to_le_bytes());
        put(&mut file, 32, &64u64.to_le_bytes());
        put(&mut file, 54, &56u16.to_le_bytes());
        put(&mut file, 56, &2u16.to_le_bytes());
        let mut note = Vec::new();
        for word in [4u32, 4, 18] {
            note.extend(word.to_le_bytes());
        }
        note.extend(b"Xen\0");
        note.extend(self.entry.to_le_bytes());
        let (note_at, image_at) = (file.len() as u64, (file.len() + note.len()) as u64);
        let image = self.image.len() as u64;
        for (at, kind, fields) in [
            (64, 1u32, [image_at, self.address, image, self.in_memory]),
            (120, 4, [note_at, 0, note.len() as u64, note.len() as u64]),
        ] {
            let [offset, address, in_file, in_memory] = fields;
            put(&mut file, at, &kind.to_le_bytes());
            for (field, value) in [
                (8, offset),
                (16, address),
                (24, address),
                (32, in_file),
                (40, in_memory),
            ] {
                put(&mut file, at + field, &value.to_le_bytes());
            }
        }
        file.extend(note);
        file.extend(&self.image);
        file
    }
}

/// A bzImage with `payload` as its compressed kernel.
fn bzimage(payload: &[u8]) -> Vec<u8> {
    const SETUP: usize = 2 * 512;
    const PAYLOAD: usize = 0x400;
    let length = (PAYLOAD + payload.len()).next_multiple_of(16);
    let mut file = vec![0; SETUP + length];
    file[0x1f1] = 1;
    put(&mut file, 0x1f4, &(length as u32 / 16).to_le_bytes());
    put(&mut file, 0x1fe, b"\x55\xaa");
    put(&mut file, 0x202, b"HdrS");
    put(&mut file, 0x206, &0x20fu16.to_le_bytes());
    file[0x211] = 1;
    put(&mut file, 0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(&mut file, 0x236, &1u16.to_le_bytes());
    put(&mut file, 0x248, &(PAYLOAD as u32).to_le_bytes());
    put(&mut file, 0x24c, &(payload.len() as u32).to_le_bytes());
    put(&mut file, 0x258, &(16 * MIB).to_le_bytes());
    put(&mut file, 0x260, &(4 * MIB as u32).to_le_bytes());
    put(&mut file, SETUP + PAYLOAD, payload);
    file
}

/// `kernel` as the kernel's build packs it.
fn lz4(kernel: &[u8]) -> Vec<u8> {
    let mut packed = super::lz4::MAGIC.to_vec();
    for block in kernel.chunks(8 << 20) {
        let block = lz4_flex::block::compress(block);
        packed.extend((block.len() as u32).to_le_bytes());
        packed.extend(block);
    }
    packed.extend((kernel.len() as u32).to_le_bytes());
    packed
}

#[test]
fn an_elf_kernel_is_entered_by_pvh_and_its_bss_is_zero() {
    let folder = Folder::new();
    let ram = ram();
    let kernel = folder.file("vmlinux", &Elf::new().build());
    let initramfs = folder.file("initramfs", b"070701 and so on");
    let guest = load(&ram, &kernel, Some(&initramfs), "quiet").unwrap();
    assert_eq!(guest.kernel.entry, Entry::Pvh(MIB));
    assert_eq!(guest.kernel.end, MIB + 0x2000);

    let read = |address: u64, length: usize| {
        let mut bytes = vec![0; length];
        let at = GuestAddress(address);
        ram.memory().read_slice(&mut bytes, at).unwrap();
        bytes
    };
    assert_eq!(read(MIB, 14), b"\xf4kernel code\0\0");
    assert_eq!(read(layout::COMMAND_LINE, 6), b"quiet\0");
    let placed = guest.initramfs.unwrap();
    assert_eq!(placed.address, 64 * MIB - 4096);
    assert_eq!(read(placed.address, 16), b"070701 and so on");
}

#[test]
fn an_elf_kernel_without_a_note_is_entered_in_long_mode() {
    let mut kernel = Elf::new().build();
    kernel[120] = 0;
    let guest = load_kernel(&kernel).unwrap();
    assert_eq!(guest.kernel.entry, Entry::Linux64(MIB));
}

#[test]
fn a_bzimage_is_entered_at_its_64_bit_entry_point() {
    let guest = load_kernel(&bzimage(&lz4(b"kernel"))).unwrap();
    assert_eq!(guest.kernel.entry, Entry::Linux64(MIB + 0x200));
    assert_eq!(guest.kernel.end, 20 * MIB);
    assert!(guest.kernel.setup_header.is_some());
}

#[test]
fn a_missing_or_unreadable_file_is_told_apart() {
    let folder = Folder::new();
    let missing = folder.0.path().join("missing");
    let kernel = folder.file("vmlinux", &Elf::new().build());
    assert!(matches!(
        load(&ram(), &missing, None, ""),
        Err(BootError::Missing {
            image: Image::Kernel,
            ..
        })
    ));
    assert!(matches!(
        load(&ram(), &kernel, Some(&missing), ""),
        Err(BootError::Missing {
            image: Image::Initramfs,
            ..
        })
    ));
    let under_a_file = kernel.join("below");
    assert!(matches!(
        load(&ram(), &under_a_file, None, ""),
        Err(BootError::Unreadable { .. })
    ));
}

#[test]
fn folders_fifos_and_devices_are_no_kernels_and_do_not_block() {
    let folder = Folder::new();
    let fifo = folder.0.path().join("fifo");
    let name = CString::new(fifo.as_os_str().as_bytes()).unwrap();
    // SAFETY: the name is a NUL-terminated string that outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    for (path, want) in [
        (fifo.as_path(), "a FIFO"),
        (folder.0.path(), "a directory"),
        (Path::new("/dev/zero"), "a device"),
    ] {
        match load(&ram(), path, None, "") {
            Err(BootError::NotAFile { kind, .. }) => assert_eq!(kind, want),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_is_no_kernel_is_named() {
    for (content, want) in [
        (&b""[..], "empty"),
        (b"#!/bin/sh\n", "script"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"070701", "cpio"),
        (b"neither nor", "neither"),
    ] {
        match load_kernel(content) {
            Err(BootError::NotAKernel { reason, .. }) => assert!(reason.contains(want), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn kernels_for_other_cpus_are_told_by_name() {
    let mut arm64 = vec![0; 64];
    put(&mut arm64, 0x38, b"ARM\x64");
    let mut elf32 = Elf::new().build();
    (elf32[4], elf32[18]) = (1, 3);
    let mut big_endian = Elf::new().build();
    (big_endian[5], big_endian[18], big_endian[19]) = (2, 0, 22);
    let mut bzimage32 = bzimage(b"");
    bzimage32[0x236] = 0;
    for (kernel, want) in [
        (arm64, "arm64"),
        (elf32, "32-bit x86"),
        (big_endian, "s390"),
        (bzimage32, "32-bit x86"),
    ] {
        match load_kernel(&kernel) {
            Err(BootError::OtherArchitecture { architecture, .. }) => {
                assert_eq!(architecture, want);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn truncated_kernels_tell_how_long_they_should_be() {
    let whole = [Elf::new().build(), bzimage(&lz4(&[7; 5000]))];
    for kernel in whole {
        for length in [kernel.len() - 1, kernel.len() - 5] {
            match load_kernel(&kernel[..length]) {
                Err(BootError::Truncated {
                    expected, actual, ..
                }) => assert_eq!((expected, actual), (kernel.len() as u64, length as u64)),
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(matches!(
        load_kernel(b"\x7fELF\x02\x01"),
        Err(BootError::Truncated { expected: 64, .. })
    ));
}

#[test]
fn segments_that_do_not_fit_are_refused() {
    let with = |change: fn(&mut Elf)| {
        let mut elf = Elf::new();
        change(&mut elf);
        load_kernel(&elf.build())
    };
    assert!(matches!(
        with(|elf| elf.in_memory = 1 << 40),
        Err(BootError::KernelTooLarge {
            available: 0x400_0000,
            ..
        })
    ));
    for refused in [
        with(|elf| elf.in_memory = u64::MAX),
        with(|elf| elf.in_memory = 1),
        with(|elf| elf.address = 0x6000),
        with(|elf| elf.entry = 0x6000),
        with(|elf| elf.entry = 0xffff_ffff),
    ] {
        assert!(matches!(refused, Err(BootError::NotAKernel { .. })));
    }
}

#[test]
fn a_bzimage_needs_room_to_unpack_itself() {
    let mut kernel = bzimage(b"packed..");
    put(&mut kernel, 0x260, &(60 * MIB as u32).to_le_bytes());
    assert!(matches!(
        load_kernel(&kernel),
        Err(BootError::KernelTooLarge { .. })
    ));
}

#[test]
fn an_initramfs_larger_than_the_room_for_it_tells_the_room() {
    let folder = Folder::new();
    let kernel = folder.file("vmlinux", &Elf::new().build());
    let large = folder.0.path().join("large");
    fs::File::create(&large).unwrap().set_len(63 * MIB).unwrap();
    match load(&ram(), &kernel, Some(&large), "") {
        Err(BootError::InitramfsTooLarge {
            bytes, available, ..
        }) => assert_eq!((bytes, available), (63 * MIB, 63 * MIB - 0x2000)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_lz4_payload_is_unpacked_whole() {
    let folder = Folder::new();
    let mut elf = Elf::new();
    // More than one block, and nothing that repeats too soon.
    elf.image = (0..9_000_000u32).flat_map(|n| [(n / 7) as u8]).collect();
    elf.in_memory = elf.image.len() as u64;
    let vmlinux = elf.build();
    let packed = folder.file("vmlinuz", &bzimage(&lz4(&vmlinux)));
    let out = folder.0.path().join("vmlinux");
    extract_vmlinux(&packed, &out).unwrap();
    assert!(fs::read(&out).unwrap() == vmlinux);
    assert_eq!(folder.names().len(), 2, "no temporary file is left");
}

#[test]
fn kernels_that_are_not_packed_are_copied() {
    let folder = Folder::new();
    let vmlinux = Elf::new().build();
    let out = folder.0.path().join("out");
    extract_vmlinux(&folder.file("elf", &vmlinux), &out).unwrap();
    assert_eq!(fs::read(&out).unwrap(), vmlinux);
    extract_vmlinux(&folder.file("bzimage", &bzimage(&vmlinux)), &out).unwrap();
    assert!(fs::read(&out).unwrap().starts_with(&vmlinux));
}

#[test]
fn other_ways_of_packing_are_named() {
    let folder = Folder::new();
    for (magic, want) in [
        (&b"\x1f\x8b\x08\x00"[..], "gzip"),
        (b"BZh9", "bzip2"),
        (b"\x5d\0\0\0", "LZMA"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x89LZO", "LZO"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"????", "an unknown method"),
    ] {
        let mut payload = magic.to_vec();
        payload.resize(64, 0);
        let packed = folder.file("vmlinuz", &bzimage(&payload));
        match extract_vmlinux(&packed, &folder.0.path().join("out")) {
            Err(ExtractError::Compression { method, .. }) => assert_eq!(method, want),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(folder.names(), ["vmlinuz"]);
}

#[test]
fn damaged_payloads_leave_no_file() {
    let folder = Folder::new();
    let good = lz4(&Elf::new().build());
    let mut wrong_size = good.clone();
    *wrong_size.last_mut().unwrap() = 0xff;
    let mut wrong_length = good.clone();
    let at = wrong_length.len() - 4;
    put(&mut wrong_length, at, &50u32.to_le_bytes());
    for payload in [wrong_size, wrong_length, lz4(b"not an ELF file")] {
        let packed = folder.file("vmlinuz", &bzimage(&payload));
        let result = extract_vmlinux(&packed, &folder.0.path().join("out"));
        assert!(
            matches!(
                result,
                Err(ExtractError::Payload { .. }
                    | ExtractError::TooLarge { .. }
                    | ExtractError::Image(_))
            ),
            "{result:?}"
        );
        assert_eq!(folder.names(), ["vmlinuz"]);
    }
}

#[test]
fn a_result_that_cannot_be_written_is_told() {
    let folder = Folder::new();
    let packed = folder.file("vmlinuz", &bzimage(&lz4(&Elf::new().build())));
    let out = folder.0.path().join("missing/vmlinux");
    assert!(matches!(
        extract_vmlinux(&packed, &out),
        Err(ExtractError::Output { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever a file says of itself: no panic, no endless loop, nothing outside of memory.
    #[test]
    fn kernels_with_any_bytes_changed_load_or_are_refused(
        is_elf in any::<bool>(),
        changes in prop::collection::vec((0usize..0x300, any::<u8>()), 1..6),
        cut in 0usize..0x600,
    ) {
        let mut kernel = if is_elf {
            Elf::new().build()
        } else {
            bzimage(&lz4(&Elf::new().build()))
        };
        for (at, value) in changes {
            if let Some(byte) = kernel.get_mut(at) {
                *byte = value;
            }
        }
        if cut < 0x300 {
            kernel.truncate(cut);
        }
        let folder = Folder::new();
        let path = folder.file("kernel", &kernel);
        if let Ok(guest) = load(&ram(), &path, None, "") {
            prop_assert!(guest.kernel.end <= 64 * MIB);
            let (Entry::Pvh(entry) | Entry::Linux64(entry)) = guest.kernel.entry;
            prop_assert!((MIB..64 * MIB).contains(&entry));
        }
        let out = folder.0.path().join("out");
        prop_assert_eq!(extract_vmlinux(&path, &out).is_ok(), out.exists());
    }

    #[test]
    fn files_of_any_bytes_are_refused_or_load(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = load_kernel(&bytes);
    }
}
