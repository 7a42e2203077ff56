//! All that needs memory or can fail early is done here, before the new process exists.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{CString, OsStr, OsString, c_char};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::ptr;

use crate::error::SpawnError;
use crate::options::{SpawnOptions, Stdio};

/// Where programs are looked for when the helper's environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// C strings and descriptors, ready for a child that must not allocate.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) program: PathBuf,
    /// The files to try in turn: one, or one for each folder of the search path.
    pub(crate) candidates: Vec<CString>,
    pub(crate) args: CStringArray,
    pub(crate) env: CStringArray,
    pub(crate) cwd: Option<CString>,
    /// (source, number in the child), sorted by number. Every source lies above every number, so that the child can
    /// `dup2` in any order.
    pub(crate) fds: Vec<(OwnedFd, RawFd)>,
    pub(crate) end_signal: i32,
    /// This process's ends of captured streams: stdin, stdout, stderr.
    pub(crate) captured: [Option<OwnedFd>; 3],
}

/// Strings with the NULL-terminated array of pointers that `execve` wants.
#[derive(Debug)]
pub(crate) struct CStringArray {
    // Keeps alive what `pointers` points to; the heap buffers of the strings do not move with the vector.
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers lead into heap buffers that the same value owns and that nobody writes.
unsafe impl Send for CStringArray {}

impl CStringArray {
    fn new(strings: Vec<CString>) -> Self {
        let pointers = strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([ptr::null()])
            .collect();
        Self {
            _strings: strings,
            pointers,
        }
    }

    pub(crate) fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

impl Prepared {
    pub(crate) fn new(options: SpawnOptions) -> Result<Self, SpawnError> {
        let SpawnOptions {
            program,
            args,
            env,
            cwd,
            fds,
            end_signal,
            stdin,
            stdout,
            stderr,
        } = options;
        let env = env.unwrap_or_else(|| env::vars_os().collect());
        let candidates = candidates(&program, &env)?;

        let mut arguments = vec![c_string(program.as_os_str(), "program")?];
        for argument in &args {
            arguments.push(c_string(argument, "argument")?);
        }
        let mut variables = Vec::with_capacity(env.len());
        for (name, value) in env {
            let mut line = name.into_vec();
            line.push(b'=');
            line.extend_from_slice(value.as_bytes());
            variables.push(c_string(OsStr::from_bytes(&line), "environment")?);
        }
        let cwd = cwd
            .map(|folder| c_string(folder.as_os_str(), "working folder"))
            .transpose()?;

        let mut targets = BTreeMap::new();
        for (fd, target) in fds {
            if target < 0 || targets.insert(target, fd).is_some() {
                return Err(SpawnError::TargetDescriptor(target));
            }
        }
        let mut captured = [None, None, None];
        for ((target, stream), ours) in (0..).zip([stdin, stdout, stderr]).zip(&mut captured) {
            if let std::collections::btree_map::Entry::Vacant(entry) = targets.entry(target) {
                let (theirs, end) = open_stream(target, stream)?;
                entry.insert(theirs);
                *ours = end;
            }
        }
        Ok(Self {
            program,
            candidates,
            args: CStringArray::new(arguments),
            env: CStringArray::new(variables),
            cwd,
            fds: lift_above_targets(targets)?,
            end_signal,
            captured,
        })
    }
}

fn c_string(text: &OsStr, what: &'static str) -> Result<CString, SpawnError> {
    CString::new(text.as_bytes()).map_err(|_| SpawnError::NulByte { what })
}

fn candidates(program: &Path, env: &[(OsString, OsString)]) -> Result<Vec<CString>, SpawnError> {
    if program.as_os_str().is_empty() || program.as_os_str().as_bytes().contains(&b'/') {
        return Ok(vec![c_string(program.as_os_str(), "program")?]);
    }
    let path = env
        .iter()
        .find(|(name, _)| name == "PATH")
        .map_or(OsStr::new(DEFAULT_PATH), |(_, value)| value);
    env::split_paths(path)
        .map(|folder| c_string(folder.join(program).as_os_str(), "program"))
        .collect()
}

/// The child's end of a standard stream, and this process's where it is captured.
fn open_stream(target: RawFd, stream: Stdio) -> Result<(OwnedFd, Option<OwnedFd>), SpawnError> {
    match stream {
        Stdio::Null => {
            let null = OpenOptions::new().read(true).write(true).open("/dev/null");
            null.map(|file| (file.into(), None))
                .map_err(|source| SpawnError::Resource {
                    what: "null device",
                    source,
                })
        }
        Stdio::Inherit => {
            let own = match target {
                0 => io::stdin().as_fd().try_clone_to_owned(),
                1 => io::stdout().as_fd().try_clone_to_owned(),
                _ => io::stderr().as_fd().try_clone_to_owned(),
            };
            own.map(|fd| (fd, None))
                .map_err(|source| SpawnError::Resource {
                    what: "standard stream",
                    source,
                })
        }
        Stdio::Capture => {
            let (reader, writer) = io::pipe().map_err(|source| SpawnError::Resource {
                what: "pipe",
                source,
            })?;
            Ok(match target {
                0 => (reader.into(), Some(writer.into())),
                _ => (writer.into(), Some(reader.into())),
            })
        }
        Stdio::Fd(fd) => Ok((fd, None)),
    }
}

/// Moves every source above the highest target: a `dup2` in the child can then never overwrite a source.
fn lift_above_targets(
    targets: BTreeMap<RawFd, OwnedFd>,
) -> Result<Vec<(OwnedFd, RawFd)>, SpawnError> {
    let floor = targets
        .keys()
        .next_back()
        .map_or(0, |highest| highest.saturating_add(1));
    let mut fds = Vec::with_capacity(targets.len());
    for (target, fd) in targets {
        let fd = if fd.as_raw_fd() >= floor {
            fd
        } else {
            // SAFETY: the call takes numbers only.
            let lifted = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, floor) };
            if lifted < 0 {
                return Err(SpawnError::Resource {
                    what: "descriptor",
                    source: io::Error::last_os_error(),
                });
            }
            // SAFETY: the kernel has just made this descriptor for us alone.
            unsafe { OwnedFd::from_raw_fd(lifted) }
        };
        fds.push((fd, target));
    }
    Ok(fds)
}
