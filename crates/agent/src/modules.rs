//! Kernel modules that came in the initramfs.
//!
//! Whoever built the initramfs has put them in dependency order and numbered their names; the agent knows nothing of
//! dependencies.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::console::note;

/// Where the initramfs holds modules: `NN-name.ko`, or with `.gz`, `.xz` or `.zst` behind it.
pub(crate) const FOLDER: &str = "/.microvm/modules";

/// `MODULE_INIT_COMPRESSED_FILE`: the kernel decompresses the file itself (Linux 5.17, CONFIG_MODULE_DECOMPRESS).
const COMPRESSED_FILE: libc::c_int = 4;

/// Loads every module of a folder in the order of their names. Each failure is noted and the others are still loaded.
pub(crate) fn load_all(folder: &Path) {
    let modules = match list(folder) {
        Ok(modules) => modules,
        // A kernel with everything built in needs no folder.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return note(format_args!("cannot read {}: {error}", folder.display())),
    };
    for module in modules {
        if let Err(error) = load(&module) {
            let name = module.file_name().unwrap_or_default().display();
            let hint = match error {
                Errno::EOPNOTSUPP if is_compressed(&module) => {
                    " (this kernel cannot decompress modules: pack them uncompressed)"
                }
                Errno::ENOENT => " (a module that it needs is missing or has a later name)",
                Errno::ENOEXEC => " (it was built for another kernel)",
                _ => "",
            };
            note(format_args!("cannot load module {name}: {error}{hint}"));
        }
    }
}

fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut modules = Vec::new();
    for entry in fs::read_dir(folder)? {
        modules.push(entry?.path());
    }
    modules.sort();
    Ok(modules)
}

fn is_compressed(module: &Path) -> bool {
    module.extension() != Some(OsStr::new("ko"))
}

fn load(module: &Path) -> Result<(), Errno> {
    let file =
        File::open(module).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    let flags = if is_compressed(module) {
        COMPRESSED_FILE
    } else {
        0
    };
    // SAFETY: the descriptor is open and the parameters are a NUL-terminated string.
    let result = unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            file.as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    };
    match Errno::result(result) {
        // Loaded already, or built in.
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_listed_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["010-c.ko.xz", "002-b.ko", "001-a.ko.zst"] {
            File::create(folder.path().join(name)).unwrap();
        }
        let names: Vec<_> = list(folder.path())
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["001-a.ko.zst", "002-b.ko", "010-c.ko.xz"]);
    }

    #[test]
    fn a_missing_folder_is_no_failure() {
        load_all(Path::new("/nowhere/at-all"));
    }

    #[test]
    fn compressed_modules_are_told_by_their_names() {
        assert!(!is_compressed(Path::new("000-virtio.ko")));
        for name in ["000-virtio.ko.gz", "000-virtio.ko.xz", "000-virtio.ko.zst"] {
            assert!(is_compressed(Path::new(name)), "{name}");
        }
    }
}
