//! The start of a program: everything is made ready here, the child makes system calls only.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
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
    /// What its reason not to run begins with.
    complaint: Vec<u8>,
}

/// Why no candidate runs: the end of a line, and the exit code.
type Reason = (&'static str, u8);

const NOT_FOUND: Reason = ("not found\n", EXIT_NOT_FOUND);
/// The file is there: the kernel looks for what its first line or its ELF header names.
const NO_INTERPRETER: Reason = ("its interpreter or loader is missing\n", EXIT_NOT_FOUND);
const NOT_EXECUTABLE: Reason = ("cannot be executed\n", EXIT_NOT_EXECUTABLE);

/// Why a candidate that is there does not run.
fn reason_of(errno: i32) -> Reason {
    let text = match errno {
        libc::E2BIG => "an argument or the environment is too long for the kernel\n",
        libc::ETXTBSY => "cannot be executed while it is written\n",
        libc::ENOMEM => "cannot be executed: there is not enough memory\n",
        libc::EIO => "cannot be executed: it cannot be read\n",
        libc::ELOOP => "cannot be executed: too many symbolic links or interpreters\n",
        _ => return NOT_EXECUTABLE,
    };
    (text, EXIT_NOT_EXECUTABLE)
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
            complaint: format!("microvm-agent: {name}: ").into_bytes(),
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
        // As a shell has it: what is not there is not the reason where another candidate has a better one.
        let mut reason = None;
        let mut incomplete = false;
        for candidate in &self.candidates {
            let Some(own) = arguments.get(1..) else { break };
            // Of most candidates there is none, and to ask is quicker than to try.
            // SAFETY: the path is NUL-terminated.
            let is_there = unsafe { libc::access(candidate.as_ptr(), libc::F_OK) } == 0;
            if is_there {
                // SAFETY: the path is NUL-terminated and both arrays end with NULL.
                unsafe { libc::execve(candidate.as_ptr(), own.as_ptr(), environment.as_ptr()) };
            }
            match Errno::last_raw() {
                libc::ENOENT | libc::ENOTDIR => incomplete |= is_there,
                libc::ENOEXEC => {
                    // A script without a first line of its own is the shell's, as every shell has it.
                    if let Some(script) = arguments.get_mut(1) {
                        *script = candidate.as_ptr();
                    }
                    // SAFETY: as above.
                    unsafe {
                        libc::execve(SHELL.as_ptr(), arguments.as_ptr(), environment.as_ptr())
                    };
                    reason = Some(reason_of(Errno::last_raw()));
                    break;
                }
                errno => {
                    reason.get_or_insert(reason_of(errno));
                }
            }
        }
        let otherwise = if incomplete {
            NO_INTERPRETER
        } else {
            NOT_FOUND
        };
        let (text, exit_code) = reason.unwrap_or(otherwise);
        // One write, so that no other process's line gets in between.
        let line = [self.complaint.as_slice(), text.as_bytes()].map(|part| libc::iovec {
            iov_base: part.as_ptr().cast_mut().cast(),
            iov_len: part.len(),
        });
        // SAFETY: the buffers are as long as told, and only read.
        unsafe { libc::writev(2, line.as_ptr(), 2) };
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

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::Command;

    use nix::fcntl::OFlag;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::pipe2;
    use tempfile::TempDir;

    use super::*;

    /// Runs a program that is looked for in these folders; tells its exit code and what it says.
    fn run(argv: &[&str], environment: &[(&str, &str)], path: &[&Path]) -> (i32, String) {
        let argv: Vec<String> = argv.iter().map(ToString::to_string).collect();
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let path: Vec<&str> = path.iter().map(|folder| folder.to_str().unwrap()).collect();
        let program = Program::new(&argv, environment, &path.join(":"), "/", None).unwrap();
        let (output, child_output) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let (_report, child_report) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let streams = Streams::Pipes([child_output.as_raw_fd(); 3]);
        let pid = program
            .spawn(streams, child_report.as_raw_fd(), None)
            .unwrap();
        drop((child_output, child_report));
        let mut said = String::new();
        File::from(output).read_to_string(&mut said).unwrap();
        match waitpid(pid, None).unwrap() {
            WaitStatus::Exited(_, code) => (code, said),
            status => panic!("{status:?}"),
        }
    }

    /// By a process of its own: the children of other tests have what is open for writing here, for a moment, and nobody
    /// could run it meanwhile.
    fn write(folder: &Path, name: &str, content: &[u8]) -> String {
        let (original, path) = (folder.join("original"), folder.join(name));
        fs::write(&original, content).unwrap();
        let copied = Command::new("cp").arg(&original).arg(&path).status();
        assert!(copied.unwrap().success());
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn complaint(code: i32, name: &str, text: &str) -> (i32, String) {
        (code, format!("microvm-agent: {name}: {text}\n"))
    }

    #[test]
    fn a_program_that_is_nowhere_is_not_found() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [Path::new("/no/such/folder"), folder.path()];
        let expected = complaint(127, "tool", "not found");
        assert_eq!(run(&["tool"], &[], &folders), expected);
        let expected = complaint(127, "/no/such/tool", "not found");
        assert_eq!(run(&["/no/such/tool"], &[], &[]), expected);
    }

    #[test]
    fn a_program_without_its_interpreter_or_loader_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let script = write(folder.path(), "script", b"#!/no/such/interpreter\n");
        let through_a_file = write(folder.path(), "through", b"#!/proc/version/sh\n");
        let elf = with_loader(b"/no/such/loader\0");
        let elf = elf.map(|elf| write(folder.path(), "elf", &elf));
        for path in [script, through_a_file].into_iter().chain(elf) {
            let expected = complaint(127, &path, "its interpreter or loader is missing");
            assert_eq!(run(&[&path], &[], &[]), expected);
        }
    }

    /// This test's own program, as one that asks for another loader. None where it is static.
    fn with_loader(name: &[u8]) -> Option<Vec<u8>> {
        const INTERPRETER: usize = 3;
        let mut elf = fs::read("/proc/self/exe").unwrap();
        let number = |at: usize, bytes: usize| {
            let field = elf.get(at..at + bytes).unwrap();
            field
                .iter()
                .rev()
                .fold(0, |number, byte| number << 8 | usize::from(*byte))
        };
        let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
        let header = (0..count)
            .map(|index| table + index * size)
            .find(|header| number(*header, 4) == INTERPRETER)?;
        let (offset, length) = (number(header + 8, 8), number(header + 32, 8));
        assert!(name.len() <= length);
        let place = elf.get_mut(offset..offset + length).unwrap();
        place.fill(0);
        place.get_mut(..name.len()).unwrap().copy_from_slice(name);
        Some(elf)
    }

    #[test]
    fn a_candidate_without_its_interpreter_does_not_hide_one_that_runs() {
        let (broken, whole) = two_folders();
        write(broken.path(), "tool", b"#!/no/such/interpreter\n");
        let expected = complaint(127, "tool", "its interpreter or loader is missing");
        let folders = [broken.path(), whole.path()];
        assert_eq!(run(&["tool"], &[], &folders), expected);
        write(whole.path(), "tool", b"#!/bin/sh\nexit 7\n");
        assert_eq!(run(&["tool"], &[], &folders), (7, String::new()));
    }

    #[test]
    fn a_candidate_that_may_not_be_executed_is_remembered() {
        let (forbidden, broken) = two_folders();
        let path = write(forbidden.path(), "tool", b"#!/bin/sh\n");
        fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
        write(broken.path(), "tool", b"#!/no/such/interpreter\n");
        for folders in [
            [forbidden.path(), broken.path()],
            [broken.path(), forbidden.path()],
        ] {
            let expected = complaint(126, "tool", "cannot be executed");
            assert_eq!(run(&["tool"], &[], &folders), expected);
        }
    }

    fn two_folders() -> (TempDir, TempDir) {
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap())
    }

    #[test]
    fn texts_that_are_too_long_for_the_kernel_are_told() {
        let long = "x".repeat(shell::ARGUMENT_LIMIT);
        let text = "an argument or the environment is too long for the kernel";
        let expected = complaint(126, "/bin/sh", text);
        assert_eq!(run(&["/bin/sh", &long], &[], &[]), expected);
        assert_eq!(run(&["/bin/sh"], &[("LONG", &long)], &[]), expected);
        // With one candidate after another it is the same.
        let expected = complaint(126, "sh", text);
        let folders = [Path::new("/bin"), Path::new("/no/such/folder")];
        assert_eq!(run(&["sh", &long], &[], &folders), expected);
    }

    #[test]
    fn a_program_that_is_being_written_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), "tool", b"#!/bin/sh\n");
        let _writer = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let expected = complaint(126, &path, "cannot be executed while it is written");
        assert_eq!(run(&[&path], &[], &[]), expected);
    }

    #[test]
    fn a_script_without_a_first_line_of_its_own_is_the_shells() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "tool", b"exit $1\n");
        assert_eq!(
            run(&["tool", "9"], &[], &[folder.path()]),
            (9, String::new())
        );
    }
}
