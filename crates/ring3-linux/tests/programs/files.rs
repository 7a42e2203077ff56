//! The tree of files: what takes long, what counts, and what moves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use microvm_ring3_linux::{Limits, Program, Run, SandboxOptions};

use crate::fixture::*;

fn folder() -> tempfile::TempDir {
    folder_in(&std::env::temp_dir())
}

fn folder_in(parent: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir_in(parent).unwrap();
    let there = folder.path().join("there");
    fs::create_dir_all(there.join("sub")).unwrap();
    fs::write(there.join("file"), "abcdef").unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    fs::File::open(&there).unwrap().set_modified(old).unwrap();
    fs::set_permissions(&there, PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

fn run(options: SandboxOptions, mode: &str) -> String {
    let program = Program::at(c("files")).args([mode]);
    let outcome = sandbox_with(options).run(program, Run::default()).unwrap();
    let output = String::from_utf8_lossy(&outcome.stdout).into_owned();
    assert_eq!(
        outcome.exit,
        microvm_ring3_linux::ExitStatus::Exited(0),
        "{mode}: {output} {outcome:?}"
    );
    output
}

pub fn paths_and_listings_take_as_long_as_they_are() {
    for mode in ["dots", "names"] {
        assert_eq!(run(SandboxOptions::default(), mode), "good\n", "{mode}");
    }
}

pub fn open_folders_are_followed_where_they_move() {
    assert_eq!(run(SandboxOptions::default(), "moves"), "good\n");
}

pub fn folders_of_the_root_show_what_was_changed() {
    // In memory: an overlay, as the root of the lab or of a container is, lists other inode numbers
    // than its files have.
    let folder = folder_in(Path::new("/dev/shm"));
    let options = SandboxOptions {
        root: Some(folder.path().to_owned()),
        ..SandboxOptions::default()
    };
    assert_eq!(run(options, "folders"), "good\n");
    assert_eq!(
        fs::read(folder.path().join("there/file")).unwrap(),
        b"abcdef"
    );
}

pub fn links_and_mapped_files_count() {
    let folder = folder();
    let options = SandboxOptions {
        root: Some(folder.path().to_owned()),
        limits: Limits {
            memory: 4 << 20,
            open_files: 50,
            ..Limits::default()
        },
        ..SandboxOptions::default()
    };
    let links: u32 = run(options.clone(), "links").trim().parse().unwrap();
    assert!((100..1000).contains(&links), "{links}");
    assert_eq!(run(options, "mapped"), "50\n");
}
