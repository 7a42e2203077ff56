//! Trees there and back, and archives that mean harm.

use std::fs::{self, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use rustix::fs::{CWD, Timespec, Timestamps};

use crate::decoder::{Entry, Kind};
use crate::encoder::write_entry;
use crate::header::{BLOCK, Header, padding};
use crate::numbers::Time;
use crate::sparse::Segment;
use crate::{Error, PackOptions, Packer, Progress, UnpackOptions, Unpacker, source_name};

fn pack(source: &Path, exclude: &[&str], wanted: usize) -> Vec<u8> {
    let mut packer = Packer::new(PackOptions {
        source: source.to_owned(),
        exclude: exclude
            .iter()
            .map(|text| text.as_bytes().to_vec())
            .collect(),
    });
    let mut archive = Vec::new();
    loop {
        let mut chunk = Vec::new();
        let more = packer.fill(&mut chunk, wanted).unwrap();
        archive.extend_from_slice(&chunk);
        if !more {
            return archive;
        }
    }
}

fn options(destination: &Path, name: Option<&str>) -> UnpackOptions {
    UnpackOptions {
        destination: destination.to_owned(),
        name: name.map(|name| name.as_bytes().to_vec()),
        owner: false,
        devices: false,
        max_bytes: 1 << 40,
        max_entries: 1 << 20,
    }
}

fn unpack(archive: &[u8], options: UnpackOptions) -> Result<Progress, Error> {
    let mut unpacker = Unpacker::new(options);
    unpacker.push(archive)?;
    unpacker.finish()
}

fn copy(source: &str, destination: &Path) -> Result<Progress, Error> {
    let name = source_name(source.as_bytes()).map(|name| str::from_utf8(name).unwrap());
    unpack(
        &pack(Path::new(source), &[], 1 << 16),
        options(destination, name),
    )
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A tree with one of everything.
fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("folder/inner")).unwrap();
    fs::write(root.join("file"), "content").unwrap();
    fs::set_permissions(root.join("file"), Permissions::from_mode(0o640)).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(
        root.join(format!("folder/{}", "ü".repeat(120))),
        vec![7; 100_000],
    )
    .unwrap();
    fs::write(root.join("folder/inner/run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(
        root.join("folder/inner/run"),
        Permissions::from_mode(0o4755),
    )
    .unwrap();
    fs::hard_link(root.join("file"), root.join("folder/same")).unwrap();
    symlink("../file", root.join("folder/link")).unwrap();
    symlink("/no/such", root.join("dangling")).unwrap();
    rustix::fs::mknodat(
        CWD,
        root.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let mut sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.seek(SeekFrom::Start(3 << 20)).unwrap();
    sparse.write_all(b"middle").unwrap();
    sparse.set_len(8 << 20).unwrap();
    fs::File::create(root.join("hole"))
        .unwrap()
        .set_len(5_000_000)
        .unwrap();
    set_time(&root.join("file"), 1_000_000_000, 123_456_789);
    set_time(&root.join("sparse"), -2, 500_000_000);
    set_time(&root.join("dangling"), 1_500_000_000, 1);
    set_time(&root.join("folder/inner"), 1_100_000_000, 42);
    fs::set_permissions(root.join("folder/inner"), Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(root.join("folder"), Permissions::from_mode(0o1750)).unwrap();
    set_time(&root.join("folder"), 1_200_000_000, 999_999_999);
}

/// What there is below a folder: all that a copy keeps.
fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let status = fs::symlink_metadata(&path).unwrap();
            let what = if status.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else if status.is_file() {
                format!("{:?}", fs::read(&path).unwrap())
            } else {
                String::new()
            };
            lines.push(format!(
                "{} {:o} {} {}.{} {} {}",
                path.strip_prefix(root).unwrap().display(),
                status.mode() & !0o6000,
                if status.is_dir() { 0 } else { status.nlink() },
                status.mtime(),
                status.mtime_nsec(),
                if status.is_dir() { 0 } else { status.size() },
                what
            ));
            if status.is_dir() {
                folders.push(path);
            }
        }
    }
    lines.sort();
    lines
}

#[test]
fn a_tree_comes_back_as_it_was_whatever_the_size_of_pieces() {
    let home = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let source = home.path().join("tree");
    make_tree(&source);
    let archive = pack(&source, &[], 1 << 18);
    // Holes are not sent.
    assert!(archive.len() < 400_000, "{} bytes", archive.len());
    for (index, size) in [1, 511, 512, 513, 70_000, 1 << 20].into_iter().enumerate() {
        let destination = home.path().join(format!("copy-{index}"));
        let mut unpacker = Unpacker::new(options(&destination, Some("tree")));
        for piece in archive.chunks(size) {
            unpacker.push(piece).unwrap();
        }
        let progress = unpacker.finish().unwrap();
        assert_eq!(progress.entries, 13);
        assert_eq!(listing(&destination), listing(&source), "pieces of {size}");
        let (sparse, hole) = (destination.join("sparse"), destination.join("hole"));
        assert_eq!(fs::metadata(hole).unwrap().blocks(), 0);
        assert!(fs::metadata(sparse).unwrap().blocks() <= 16);
        assert_eq!(
            fs::metadata(destination.join("file")).unwrap().ino(),
            fs::metadata(destination.join("folder/same")).unwrap().ino()
        );
        assert!(
            fs::symlink_metadata(destination.join("fifo"))
                .unwrap()
                .file_type()
                .is_fifo()
        );
        // Without its owner a set-id bit would mean somebody else.
        assert_eq!(
            fs::metadata(destination.join("folder/inner/run"))
                .unwrap()
                .mode()
                & 0o7777,
            0o755
        );
    }
    for wanted in [1, 600, 4096] {
        assert_eq!(pack(&source, &[], wanted), archive, "chunks of {wanted}");
    }
}

#[test]
fn tar_reads_what_is_packed_and_what_tar_packs_is_read() {
    let home = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let source = home.path().join("tree");
    make_tree(&source);
    let by_tar = home.path().join("by-tar");
    fs::create_dir(&by_tar).unwrap();
    let mut tar = Command::new("tar")
        .args(["x", "--warning=no-timestamp", "-C"])
        .arg(&by_tar)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin
        .take()
        .unwrap()
        .write_all(&pack(&source, &[], 1 << 20))
        .unwrap();
    assert!(tar.wait().unwrap().success());
    assert_eq!(listing(&by_tar.join("tree")), listing(&source));
    for format in ["--format=gnu", "--format=pax", "--format=ustar"] {
        let is_exact = format == "--format=pax";
        let mut tar = Command::new("tar");
        tar.args(["c", format, "--exclude=sparse", "--exclude=ü*"]);
        if is_exact {
            tar.args(["--sparse", "--sparse-version=1.0"]);
        }
        let made = tar
            .arg("-C")
            .arg(home.path())
            .arg("tree")
            .stderr(Stdio::null())
            .output()
            .unwrap();
        let destination = home.path().join(format);
        unpack(&made.stdout, options(&destination, Some("tree"))).unwrap();
        assert_eq!(fs::read(destination.join("hole")).unwrap().len(), 5_000_000);
        assert_eq!(
            fs::read(destination.join("folder/same")).unwrap(),
            b"content"
        );
        if is_exact {
            assert_eq!(fs::metadata(destination.join("hole")).unwrap().blocks(), 0);
        }
    }
}

#[test]
fn a_copy_goes_where_docker_cp_puts_it() {
    let home = tempfile::tempdir().unwrap();
    let at = |path: &str| home.path().join(path);
    fs::create_dir_all(at("src/inner")).unwrap();
    fs::write(at("src/inner/file"), "new").unwrap();
    let source = at("src").display().to_string();
    let file = at("src/inner/file").display().to_string();
    // A folder to what is not there, and to a folder.
    copy(&source, &at("a")).unwrap();
    assert_eq!(fs::read(at("a/inner/file")).unwrap(), b"new");
    copy(&source, &at("a")).unwrap();
    assert_eq!(fs::read(at("a/src/inner/file")).unwrap(), b"new");
    // Its contents.
    fs::create_dir(at("b")).unwrap();
    fs::set_permissions(at("b"), Permissions::from_mode(0o711)).unwrap();
    for target in ["b", "c"] {
        copy(&format!("{source}/."), &at(target)).unwrap();
        assert_eq!(fs::read(at(target).join("inner/file")).unwrap(), b"new");
    }
    assert_eq!(
        fs::metadata(at("b")).unwrap().mode() & 0o777,
        0o711,
        "a folder that is there stays as it is"
    );
    // A file to what is not there, over a file, over a link, into a folder.
    fs::write(at("old"), "old").unwrap();
    symlink("old", at("link")).unwrap();
    for target in ["d", "d", "link"] {
        copy(&file, &at(target)).unwrap();
        assert_eq!(fs::read(at(target)).unwrap(), b"new");
    }
    assert_eq!(
        fs::read(at("old")).unwrap(),
        b"old",
        "a link is replaced, not followed"
    );
    copy(&file, &at("b")).unwrap();
    assert_eq!(fs::read(at("b/file")).unwrap(), b"new");
    // Where nothing can be.
    let code = |result: Result<Progress, Error>| match result {
        Err(Error::File { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    use rustix::io::Errno;
    assert_eq!(code(copy(&source, &at("d"))), Errno::NOTDIR);
    assert_eq!(code(copy(&source, &at("no/such"))), Errno::NOENT);
    assert_eq!(code(copy(&file, &at("no/such"))), Errno::NOENT);
    assert_eq!(code(copy(&file, &at("new/"))), Errno::NOTDIR);
    fs::create_dir_all(at("e/src/inner/file")).unwrap();
    assert_eq!(code(copy(&source, &at("e"))), Errno::ISDIR);
    rustix::fs::mknodat(
        CWD,
        at("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    assert_eq!(code(copy(&file, &at("fifo"))), Errno::EXIST);
}

#[test]
fn what_is_excluded_is_not_packed() {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("tree");
    make_tree(&source);
    let archive = pack(&source, &["folder/", "*e", "/hole"], 1 << 16);
    let destination = home.path().join("copy");
    unpack(&archive, options(&destination, Some("tree"))).unwrap();
    let mut names: Vec<_> = fs::read_dir(destination)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["dangling", "empty", "fifo"]);
}

#[test]
fn a_file_that_shrinks_is_told_and_one_that_grows_is_packed_as_it_was() {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("file");
    fs::write(&source, vec![1; 10_000]).unwrap();
    let mut packer = Packer::new(PackOptions {
        source: source.clone(),
        exclude: Vec::new(),
    });
    let mut chunk = Vec::new();
    packer.fill(&mut chunk, 1000).unwrap();
    fs::File::options()
        .append(true)
        .open(&source)
        .unwrap()
        .write_all(&[2; 100])
        .unwrap();
    packer.fill(&mut chunk, 5000).unwrap();
    fs::File::options()
        .write(true)
        .open(&source)
        .unwrap()
        .set_len(6000)
        .unwrap();
    assert!(
        matches!(packer.fill(&mut chunk, 100_000), Err(Error::Changed { path }) if path == source)
    );
}

#[test]
fn a_source_that_cannot_be_packed_is_an_error() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut packer = Packer::new(PackOptions {
        source: path,
        exclude: Vec::new(),
    });
    assert!(packer.fill(&mut Vec::new(), 1).is_err());
    let mut packer = Packer::new(PackOptions {
        source: home.path().join("none"),
        exclude: Vec::new(),
    });
    assert!(packer.check().is_err());
    assert!(packer.fill(&mut Vec::new(), 1).is_err());
    // Within a folder it is left out.
    // A folder's two headers, records, and the end.
    assert!(pack(home.path(), &[], 1000).len() <= 5 * BLOCK);
}

fn entry(kind: Kind, name: &str) -> Entry {
    Entry {
        kind,
        name: name.as_bytes().to_vec(),
        link: Vec::new(),
        mode: 0o6777,
        uid: 0,
        gid: 0,
        modified: Time::default(),
        size: 0,
        segments: None,
        device: (1, 3),
    }
}

fn link(kind: Kind, name: &str, target: &str) -> Entry {
    Entry {
        link: target.as_bytes().to_vec(),
        ..entry(kind, name)
    }
}

fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        let content = b"evil";
        let entry = match entry.kind {
            Kind::File if entry.size == 0 => Entry {
                size: content.len() as u64,
                ..entry.clone()
            },
            _ => entry.clone(),
        };
        write_entry(&mut bytes, &entry);
        if entry.kind == Kind::File && entry.segments.is_none() {
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len() + padding(bytes.len() as u64), 0);
        }
    }
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    bytes
}

#[test]
fn nothing_is_written_outside_of_the_target() {
    use Kind::{BlockDevice, CharacterDevice, File, Folder, HardLink, SymbolicLink};
    let attacks: &[&[Entry]] = &[
        &[entry(File, "../escaped")],
        &[entry(File, "t/../../escaped")],
        &[entry(Folder, "t"), entry(File, "t/../../escaped")],
        &[entry(Folder, "t"), entry(File, "other")],
        &[
            entry(Folder, "t"),
            link(SymbolicLink, "t/out", ".."),
            entry(File, "t/out/escaped"),
        ],
        &[
            entry(Folder, "t"),
            link(SymbolicLink, "t/out", "../secret"),
            entry(File, "t/out/x"),
        ],
        &[
            entry(Folder, "t"),
            link(SymbolicLink, "t/a", "b"),
            link(SymbolicLink, "t/b", ".."),
            entry(File, "t/a/escaped"),
        ],
        &[
            entry(Folder, "t"),
            entry(Folder, "t/d"),
            link(SymbolicLink, "t/d/out", "../.."),
            entry(Folder, "t/d/out/escaped"),
        ],
        &[
            entry(Folder, "t"),
            link(SymbolicLink, "t/out", ".."),
            entry(Folder, "t/out"),
        ],
        &[
            entry(Folder, "t"),
            link(HardLink, "t/x", "../secret"),
            entry(File, "t/x"),
        ],
        &[entry(Folder, "t"), link(HardLink, "t/x", "t/../../secret")],
        &[entry(Folder, "t"), link(HardLink, "t/x", "secret")],
        &[
            entry(Folder, "t"),
            link(SymbolicLink, "t/out", ".."),
            link(HardLink, "t/x", "t/out/secret"),
        ],
        &[entry(Folder, "t"), entry(CharacterDevice, "t/null")],
        &[entry(Folder, "t"), entry(BlockDevice, "t/disk")],
        &[entry(File, "")],
        &[link(SymbolicLink, "", "..")],
        &[entry(Folder, "t"), entry(File, "t")],
    ];
    for with_target in [false, true] {
        for attack in attacks {
            let home = tempfile::tempdir().unwrap();
            fs::write(home.path().join("secret"), "secret").unwrap();
            set_time(&home.path().join("secret"), 5, 5);
            let target = home.path().join("target");
            if with_target {
                fs::create_dir(&target).unwrap();
            }
            let result = unpack(&archive(attack), options(&target, Some("t")));
            assert!(result.is_err(), "{attack:?}");
            let outside: Vec<_> = fs::read_dir(home.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .filter(|name| name != "target")
                .collect();
            assert_eq!(outside, ["secret"], "{attack:?}");
            let secret = fs::metadata(home.path().join("secret")).unwrap();
            assert_eq!(
                (secret.nlink(), secret.mtime(), secret.mode() & 0o7777),
                (1, 5, secret.mode() & 0o777),
                "{attack:?}"
            );
            assert_eq!(
                fs::read(home.path().join("secret")).unwrap(),
                b"secret",
                "{attack:?}"
            );
        }
    }
    let absolute = archive(&[entry(File, "/tmp/escaped")]);
    let home = tempfile::tempdir().unwrap();
    assert!(matches!(
        unpack(&absolute, options(home.path(), None)),
        Err(Error::Refused { .. })
    ));
}

#[test]
fn links_that_were_there_are_not_followed_either() {
    let home = tempfile::tempdir().unwrap();
    let target = home.path().join("target");
    fs::create_dir_all(target.join("t")).unwrap();
    fs::write(home.path().join("secret"), "secret").unwrap();
    symlink("../../secret", target.join("t/file")).unwrap();
    symlink("../..", target.join("t/out")).unwrap();
    let through = [entry(Kind::Folder, "t"), entry(Kind::File, "t/out/escaped")];
    assert!(matches!(
        unpack(&archive(&through), options(&target, Some("t"))),
        Err(Error::Refused { .. })
    ));
    unpack(
        &archive(&[entry(Kind::Folder, "t"), entry(Kind::File, "t/file")]),
        options(&target, Some("t")),
    )
    .unwrap();
    assert_eq!(fs::read(home.path().join("secret")).unwrap(), b"secret");
    assert_eq!(fs::read(target.join("t/file")).unwrap(), b"evil");
    assert!(!home.path().join("escaped").exists());
}

#[test]
fn limits_are_kept_before_anything_is_made() {
    let home = tempfile::tempdir().unwrap();
    let target = home.path().join("t");
    let limited = |max_bytes, max_entries| UnpackOptions {
        max_bytes,
        max_entries,
        ..options(&target, Some("t"))
    };
    let bomb = Entry {
        size: 1 << 50,
        segments: Some(Vec::new()),
        ..entry(Kind::File, "t/bomb")
    };
    let result = unpack(
        &archive(&[entry(Kind::Folder, "t"), bomb]),
        limited(1 << 30, 10),
    );
    assert!(matches!(
        result,
        Err(Error::Limit {
            unit: "bytes",
            limit: 0x4000_0000
        })
    ));
    let many: Vec<Entry> = (0..20)
        .map(|index| entry(Kind::Folder, &format!("t/{index}")))
        .collect();
    let result = unpack(&archive(&many), limited(1 << 30, 10));
    assert!(matches!(
        result,
        Err(Error::Limit {
            unit: "entries",
            limit: 10
        })
    ));
    let deep: Vec<Entry> = (0..3)
        .map(|index| entry(Kind::Fifo, &format!("t/deep{index}/a/b/c/d")))
        .collect();
    assert!(unpack(&archive(&deep), limited(1 << 30, 9)).is_err());
    let files: Vec<Entry> = (0..3)
        .map(|index| entry(Kind::File, &format!("t/f{index}")))
        .collect();
    assert!(unpack(&archive(&files), limited(12, 3)).is_ok());
    assert!(unpack(&archive(&files), limited(11, 3)).is_err());
}

#[test]
fn an_archive_that_is_cut_off_is_told_and_leaves_folders_as_they_should_be() {
    let home = tempfile::tempdir().unwrap();
    let target = home.path().join("t");
    let whole = archive(&[
        Entry {
            mode: 0o751,
            ..entry(Kind::Folder, "t")
        },
        entry(Kind::File, "t/f"),
    ]);
    for end in [512, 1024, 1026, 1536, 2048] {
        let mut unpacker = Unpacker::new(options(&target, Some("t")));
        unpacker.push(&whole[..end]).unwrap();
        assert!(matches!(unpacker.finish(), Err(Error::Truncated)), "{end}");
        fs::remove_dir_all(&target)
            .or_else(|_| fs::remove_dir_all(&target))
            .unwrap();
    }
    let mut unpacker = Unpacker::new(options(&target, Some("t")));
    unpacker.push(&whole[..512]).unwrap();
    drop(unpacker);
    assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, 0o751);
    assert!(unpack(&[], options(&target, None)).is_err());
}

#[test]
fn with_owners_set_id_bits_are_kept() {
    let home = tempfile::tempdir().unwrap();
    let (uid, gid) = (
        rustix_uid(home.path()),
        fs::metadata(home.path()).unwrap().gid(),
    );
    let own = Entry {
        uid,
        gid,
        ..entry(Kind::File, "f")
    };
    let target = home.path().join("f");
    unpack(
        &archive(&[own]),
        UnpackOptions {
            owner: true,
            ..options(&target, Some("f"))
        },
    )
    .unwrap();
    assert_eq!(fs::metadata(target).unwrap().mode() & 0o7777, 0o6777);
}

fn rustix_uid(path: &Path) -> u32 {
    fs::metadata(path).unwrap().uid()
}

/// Any entry, with names that are likely to meet.
fn any_entry() -> impl Strategy<Value = Entry> {
    let name = prop_oneof![
        "(t|a|b|\\.\\.|\\.|)(/(a|b|\\.\\.|\\.)){0,4}/?",
        "/?[a-c/.]{0,8}"
    ];
    let kind = prop_oneof![
        Just(Kind::File),
        Just(Kind::Folder),
        Just(Kind::SymbolicLink),
        Just(Kind::HardLink),
        Just(Kind::Fifo),
        Just(Kind::CharacterDevice)
    ];
    (kind, name.clone(), name, any::<bool>()).prop_map(|(kind, name, target, is_sparse)| Entry {
        segments: (kind == Kind::File && is_sparse).then(Vec::<Segment>::new),
        ..link(kind, &name, &target)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_archive_reaches_outside_of_the_target(entries in proptest::collection::vec(any_entry(), 1..12), named in any::<bool>()) {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("a"), "secret").unwrap();
        fs::create_dir(home.path().join("b")).unwrap();
        let target = home.path().join("target");
        fs::create_dir(&target).unwrap();
        set_time(home.path(), 7, 7);
        let bytes = archive(&entries);
        let _ = unpack(&bytes, UnpackOptions { max_bytes: 1 << 20, ..options(&target, named.then_some("t")) });
        // Making or removing anything beside the target would have changed this.
        prop_assert_eq!(fs::metadata(home.path()).unwrap().mtime(), 7);
        prop_assert_eq!(fs::read(home.path().join("a")).unwrap(), b"secret");
        prop_assert_eq!(fs::metadata(home.path().join("a")).unwrap().nlink(), 1);
        prop_assert_eq!(fs::read_dir(home.path().join("b")).unwrap().count(), 0);
    }

    #[test]
    fn any_bytes_are_unpacked_or_refused(header in any::<bool>(), bytes in proptest::collection::vec(any::<u8>(), 0..2000), kind in any::<u8>()) {
        let home = tempfile::tempdir().unwrap();
        let target = home.path().join("target");
        fs::create_dir(&target).unwrap();
        set_time(home.path(), 7, 7);
        let mut whole = Vec::new();
        if header {
            whole.extend_from_slice(&Header { name: b"n".to_vec(), kind, size: 1000, ..Header::default() }.encode());
        }
        whole.extend_from_slice(&bytes);
        let _ = unpack(&whole, UnpackOptions { max_bytes: 1 << 20, ..options(&target, None) });
        prop_assert_eq!(fs::metadata(home.path()).unwrap().mtime(), 7);
    }
}
