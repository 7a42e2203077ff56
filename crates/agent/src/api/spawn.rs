//! The start of a program: everything is made ready here, the child makes system calls only.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr;

use nix::unistd::Pid;

use super::accounts::Identity;
use crate::shell::{self, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND};

const SHELL: &CStr = c"/bin/sh";
/// A child that did not get as far as its program; nobody sees this code.
const EXIT_NOT_STARTED: i32 = 125;
/// Where a child reports from, right above its three streams.
const REPORT: RawFd = 3;

/// A program with its arguments, ready to be executed.
#[derive(Debug)]
pub(crate) struct Program {
    /// Where it may be, in order.
    candidates: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    cwd: CString,
    identity: Option<Identity>,
    not_found: Vec<u8>,
    not_executable: Vec<u8>,
}

/// A child's standard streams.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Streams {
    Pipes([RawFd; 3]),
    /// One terminal for all three, which becomes the session's.
    Terminal(RawFd),
}

/// What a child could not do before its program began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Terminal,
    Identity,
    Folder,
}

impl Program {
    /// `path` is where a name without a slash is looked for.
    ///
    /// # Errors
    ///
    /// Where one of the texts holds a NUL byte.
    pub(crate) fn new(
        argv: &[String],
        environment: impl Iterator<Item = (String, String)>,
        path: &str,
        cwd: &str,
        identity: Option<Identity>,
    ) -> Result<Self, std::ffi::NulError> {
        let name = argv.first().map_or("", String::as_str);
        let candidates = if name.contains('/') {
            vec![CString::new(name)?]
        } else {
            path.split(':')
                .map(|folder| if folder.is_empty() { "." } else { folder })
                .map(|folder| CString::new(format!("{folder}/{name}")))
                .collect::<Result<_, _>>()?
        };
        Ok(Self {
            candidates,
            arguments: argv
                .iter()
                .map(|argument| CString::new(argument.as_str()))
                .collect::<Result<_, _>>()?,
            environment: environment
                .map(|(name, value)| CString::new(format!("{name}={value}")))
                .collect::<Result<_, _>>()?,
            cwd: CString::new(cwd)?,
            identity,
            not_found: format!("microvm-agent: {name}: not found\n").into_bytes(),
            not_executable: format!("microvm-agent: {name}: cannot be executed\n").into_bytes(),
        })
    }

    /// Whose streams they are, where that is not the agent's user.
    pub(crate) fn owner(&self) -> Option<(u32, u32)> {
        let Identity { uid, gid, .. } = self.identity.as_ref()?;
        Some((*uid, *gid))
    }

    /// Makes a child in a session of its own that runs the program. What it cannot do before that it writes to `report`,
    /// which is closed when the program begins.
    pub(crate) fn spawn(
        &self,
        streams: Streams,
        report: RawFd,
        group: Option<BorrowedFd<'_>>,
    ) -> io::Result<Pid> {
        // A first place for the shell, which runs what has no header of its own.
        let mut arguments: Vec<*const libc::c_char> = vec![SHELL.as_ptr()];
        arguments.extend(self.arguments.iter().map(|argument| argument.as_ptr()));
        arguments.push(ptr::null());
        let mut environment: Vec<*const libc::c_char> =
            self.environment.iter().map(|text| text.as_ptr()).collect();
        environment.push(ptr::null());
        match shell::fork_into(group)? {
            Some(pid) => Ok(pid),
            None => self.run(&mut arguments, &environment, streams, report),
        }
    }

    /// The child's part.
    fn run(
        &self,
        arguments: &mut [*const libc::c_char],
        environment: &[*const libc::c_char],
        streams: Streams,
        report: RawFd,
    ) -> ! {
        // SAFETY: the call has no preconditions.
        unsafe { libc::setsid() };
        let sources = match streams {
            Streams::Pipes(sources) => sources,
            Streams::Terminal(terminal) => [terminal; 3],
        };
        for (number, source) in (0..).zip(sources) {
            // SAFETY: the call takes numbers only. The sources lie above 2, so none is overwritten.
            unsafe { libc::dup2(source, number) };
        }
        if report != REPORT {
            // SAFETY: the call takes numbers only; all that may have this number has been put in its place above.
            unsafe { libc::dup3(report, REPORT, libc::O_CLOEXEC) };
        }
        // SAFETY: the call takes numbers only. This copy of the agent runs no destructors, so nobody misses a descriptor.
        unsafe { libc::syscall(libc::SYS_close_range, REPORT + 1, libc::c_uint::MAX, 0) };
        if let Streams::Terminal(_) = streams {
            // SAFETY: the call takes numbers only.
            check(
                unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) },
                Step::Terminal,
            );
        }
        if let Some(identity) = &self.identity {
            become_user(identity);
        }
        // SAFETY: the path is NUL-terminated.
        check(unsafe { libc::chdir(self.cwd.as_ptr()) }, Step::Folder);
        shell::reset_for_program();
        self.execute(arguments, environment)
    }

    fn execute(
        &self,
        arguments: &mut [*const libc::c_char],
        environment: &[*const libc::c_char],
    ) -> ! {
        let mut forbidden = false;
        for candidate in &self.candidates {
            let Some(own) = arguments.get(1..) else { break };
            // Of most candidates there is none, and to ask is quicker than to try.
            // SAFETY: the path is NUL-terminated.
            if unsafe { libc::access(candidate.as_ptr(), libc::F_OK) } == 0 {
                // SAFETY: the path is NUL-terminated and both arrays end with NULL.
                unsafe { libc::execve(candidate.as_ptr(), own.as_ptr(), environment.as_ptr()) };
            }
            match io::Error::last_os_error().raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                Some(libc::ENOEXEC) => {
                    // A script without a first line of its own is the shell's, as every shell has it.
                    if let Some(script) = arguments.get_mut(1) {
                        *script = candidate.as_ptr();
                    }
                    // SAFETY: as above.
                    unsafe {
                        libc::execve(SHELL.as_ptr(), arguments.as_ptr(), environment.as_ptr())
                    };
                    forbidden = true;
                    break;
                }
                _ => forbidden = true,
            }
        }
        let (reason, exit_code) = if forbidden {
            (&self.not_executable, EXIT_NOT_EXECUTABLE)
        } else {
            (&self.not_found, EXIT_NOT_FOUND)
        };
        // SAFETY: the buffer is as long as told.
        unsafe { libc::write(2, reason.as_ptr().cast(), reason.len()) };
        // SAFETY: _exit ends this child only.
        unsafe { libc::_exit(i32::from(exit_code)) }
    }
}

/// By bare system calls: libc's functions would have all threads of the process change, and this copy has but one.
fn become_user(identity: &Identity) {
    let Identity {
        uid, gid, groups, ..
    } = identity;
    // SAFETY: the list is as long as told.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    check(i32::from(result != 0), Step::Identity);
    // SAFETY: the call takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_setresgid, *gid, *gid, *gid) };
    check(i32::from(result != 0), Step::Identity);
    // SAFETY: the call takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, *uid, *uid, *uid) };
    check(i32::from(result != 0), Step::Identity);
}

/// Ends the child with a report where a call has failed.
fn check(result: libc::c_int, step: Step) {
    if result == 0 {
        return;
    }
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    let mut report = [0_u8; REPORT_BYTES];
    if let Some((first, rest)) = report.split_first_mut() {
        *first = step as u8;
        rest.copy_from_slice(&errno.to_ne_bytes());
    }
    // SAFETY: the buffer is as long as told.
    unsafe { libc::write(REPORT, report.as_ptr().cast(), report.len()) };
    // SAFETY: _exit ends this child only.
    unsafe { libc::_exit(EXIT_NOT_STARTED) }
}

/// How long a report is: the step, and the errno.
pub(crate) const REPORT_BYTES: usize = 1 + size_of::<i32>();

/// Reads a report; `None` where there is none, as the program has begun.
pub(crate) fn failed_step(report: &[u8]) -> Option<(Step, io::Error)> {
    let (step, errno) = report.split_first()?;
    let errno = i32::from_ne_bytes(*errno.first_chunk()?);
    let step = [Step::Terminal, Step::Identity, Step::Folder]
        .into_iter()
        .find(|known| *known as u8 == *step)?;
    Some((step, io::Error::from_raw_os_error(errno)))
}
