//! Any archive, in any pieces: it is unpacked or refused, alike however it is cut, and nothing outside of the target changes.
#![no_main]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use microvm_archive::{UnpackOptions, Unpacker};

const BLOCK: usize = 512;
/// Names are short and few, so that entries meet.
const NAMES: [&[u8]; 12] = [
    b"t",
    b"t/",
    b"t/a",
    b"t/b",
    b"t/a/b",
    b"t/a/../b",
    b"..",
    b"../secret",
    b"/secret",
    b"t/../../secret",
    b"",
    b"t/a/b/",
];

#[derive(Debug, Arbitrary)]
struct Input {
    parts: Vec<Part>,
    cuts: Vec<u16>,
    named: bool,
    /// Ends as an archive does, so that the end's own work is done too.
    ended: bool,
}

#[derive(Debug, Arbitrary)]
enum Part {
    /// A header in good form, so that the fuzzer need not find out how to make one, and its content.
    Entry {
        kind: u8,
        name: u8,
        link: u8,
        mode: u16,
        content: Vec<u8>,
        /// How far its size is from what follows.
        lie: i8,
    },
    /// Records ahead of an entry.
    Extended { key: u8, value: Vec<u8>, lie: i8 },
    /// A header of any bytes whose sum is right.
    Header { bytes: Vec<u8> },
    /// Anything.
    Bytes { bytes: Vec<u8> },
}

/// What the decoder knows, and one that it does not.
const KEYS: [&str; 12] = [
    "path",
    "linkpath",
    "size",
    "uid",
    "gid",
    "mtime",
    "GNU.sparse.major",
    "GNU.sparse.minor",
    "GNU.sparse.name",
    "GNU.sparse.realsize",
    "GNU.sparse.map",
    "comment",
];
const KINDS: &[u8] = b"01234567\0xgLK";

fn header(kind: u8, name: &[u8], link: &[u8], mode: u16, size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name);
    block[157..157 + link.len()].copy_from_slice(link);
    block[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(b"00000000000\0");
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    signed(block)
}

/// With the sum that it must have.
fn signed(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().copied().map(u32::from).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn push_padded(archive: &mut Vec<u8>, content: &[u8]) {
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
}

fn pick<T: Copy>(list: &[T], index: u8) -> T {
    list[usize::from(index) % list.len()]
}

fn archive_of(parts: &[Part], ended: bool) -> Vec<u8> {
    let mut archive = Vec::new();
    for part in parts {
        match part {
            Part::Entry {
                kind,
                name,
                link,
                mode,
                content,
                lie,
            } => {
                let size = (content.len() as u64).saturating_add_signed((*lie).into());
                let (name, link) = (pick(&NAMES, *name), pick(&NAMES, *link));
                archive.extend(header(pick(KINDS, *kind), name, link, *mode, size));
                push_padded(&mut archive, content);
            }
            Part::Extended { key, value, lie } => {
                let mut record = b" ".to_vec();
                record.extend(pick(&KEYS, *key).bytes());
                record.push(b'=');
                record.extend(value);
                record.push(b'\n');
                // Three digits, or what a lie makes of them.
                let length = (record.len() + 3).saturating_add_signed((*lie).into());
                let mut records = format!("{length:03}").into_bytes();
                records.extend(record);
                archive.extend(header(b'x', b"x", b"", 0, records.len() as u64));
                push_padded(&mut archive, &records);
            }
            Part::Header { bytes } => {
                let mut block = [0; BLOCK];
                let length = bytes.len().min(BLOCK);
                block[..length].copy_from_slice(&bytes[..length]);
                archive.extend(signed(block));
            }
            Part::Bytes { bytes } => archive.extend_from_slice(bytes),
        }
    }
    if ended {
        archive.resize(archive.len() + 2 * BLOCK, 0);
    }
    archive
}

/// What came of it: the outcome, and all that was made.
fn unpack<'a>(
    target: &Path,
    named: bool,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (String, Vec<String>) {
    fs::create_dir(target).expect("a folder");
    let mut unpacker = Unpacker::new(UnpackOptions {
        destination: target.to_owned(),
        name: named.then(|| b"t".to_vec()),
        owner: false,
        devices: false,
        max_bytes: 1 << 20,
        max_entries: 64,
    });
    let mut outcome = Ok(());
    for piece in pieces {
        outcome = unpacker.push(piece);
        if outcome.is_err() {
            break;
        }
    }
    let outcome = match outcome {
        Ok(()) => format!("{:?}", unpacker.finish()),
        Err(error) => {
            drop(unpacker);
            format!("{error:?}")
        }
    };
    (outcome, listing(target))
}

fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        // One that its mode keeps this user out of tells no more.
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(status) = fs::symlink_metadata(&path) else {
                continue;
            };
            lines.push(format!(
                "{} {:o} {}",
                path.strip_prefix(root).expect("inside").display(),
                status.mode(),
                if status.is_dir() { 0 } else { status.size() },
            ));
            if status.is_dir() {
                folders.push(path);
            }
        }
    }
    lines.sort();
    lines
}

/// A folder with a secret, beside which everything is unpacked.
fn world() -> &'static PathBuf {
    static WORLD: OnceLock<PathBuf> = OnceLock::new();
    WORLD.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("archive-fuzz-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("secret"), "secret").expect("a file");
        folder
    })
}

fn remove(target: &Path) {
    // A folder without its owner's rights keeps an ordinary user from emptying it.
    if fs::remove_dir_all(target).is_err() {
        let _ = std::process::Command::new("chmod")
            .args(["-R", "u+rwx"])
            .arg(target)
            .status();
        fs::remove_dir_all(target).expect("it can be removed");
    }
}

fuzz_target!(|input: Input| {
    let world = world();
    let archive = archive_of(&input.parts, input.ended);
    let mut cuts: Vec<usize> = input
        .cuts
        .iter()
        .map(|cut| usize::from(*cut).min(archive.len()))
        .collect();
    cuts.extend([0, archive.len()]);
    cuts.sort_unstable();
    let pieces = cuts.windows(2).map(|cut| &archive[cut[0]..cut[1]]);
    let target = world.join("target");
    let whole = unpack(&target, input.named, std::iter::once(archive.as_slice()));
    remove(&target);
    let in_pieces = unpack(&target, input.named, pieces);
    remove(&target);
    assert_eq!(whole, in_pieces);
    // Nothing beside the target was made, changed or linked.
    let beside: Vec<_> = fs::read_dir(world)
        .expect("it is there")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(beside, ["secret"]);
    let secret = world.join("secret");
    assert_eq!(fs::read(&secret).expect("it is there"), b"secret");
    assert_eq!(
        fs::symlink_metadata(&secret).expect("it is there").nlink(),
        1
    );
});
