//! Upstream's virtiofsd as a process.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

const VERSION: &str = "1.14.0";

pub struct Virtiofsd {
    process: Child,
    folder: TempDir,
    sockets: TempDir,
}

impl Virtiofsd {
    /// Starts the daemon on an empty folder, or says on stderr why the test does not run. With
    /// `MICROVM_TEST_REQUIRE_ALL=1` that is a failure.
    pub fn start() -> Option<Self> {
        let Some(executable) = find() else {
            let why = format!(
                "NOT RUN: no virtiofsd {VERSION}; `npm run set-up -- --test` builds it, or name \
                 one by MICROVM_TEST_VIRTIOFSD\n"
            );
            assert!(
                std::env::var_os("MICROVM_TEST_REQUIRE_ALL").is_none_or(|all| all != "1"),
                "{why}"
            );
            // Past the test runner, which keeps what passing tests print.
            std::io::stderr().write_all(why.as_bytes()).unwrap();
            return None;
        };
        let folder = TempDir::new().unwrap();
        let sockets = TempDir::new().unwrap();
        // It listens before it starts: nobody has to wait for it.
        let listener = UnixListener::bind(sockets.path().join("fs.sock")).unwrap();
        let process = Command::new(executable)
            .arg("--fd=0")
            .arg("--shared-dir")
            .arg(folder.path())
            .args(["--tag=share", "--sandbox=none", "--seccomp=none"])
            .args(["--inode-file-handles=never", "--log-level=error"])
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .spawn()
            .unwrap();
        Some(Self {
            process,
            folder,
            sockets,
        })
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.sockets.path().join("fs.sock")
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.wait();
    }

    pub fn wait(&mut self) {
        self.process.wait().unwrap();
    }
}

impl Drop for Virtiofsd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn find() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("MICROVM_TEST_VIRTIOFSD") {
        return Some(path.into());
    }
    let cache = std::env::var_os("MICROVM_CACHE")
        .map(PathBuf::from)
        .or_else(|| {
            let base = std::env::var_os("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
            Some(base.join("microvm"))
        });
    let built = cache.map(|cache| {
        cache
            .join(format!("tools/virtiofsd-{VERSION}"))
            .join("bin/virtiofsd")
    });
    let on_path = std::env::var_os("PATH").into_iter().flat_map(|path| {
        std::env::split_paths(&path)
            .map(|folder| folder.join("virtiofsd"))
            .collect::<Vec<_>>()
    });
    on_path.chain(built).find(|candidate| candidate.is_file())
}
