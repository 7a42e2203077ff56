//! Starts on hosts that deny the daemon something: what it says, how it ends, and that it leaves nothing.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::Command;

use microvm_test_support::skip;
use tempfile::TempDir;

use super::fuse::me;
use super::process::{Daemon, command, is_root, require_root};

/// What a person can do about it. `src/virtio-fs/daemon.ts` looks for its beginning.
const HINT: &str = "This user may not create the namespaces of the sandbox: allow user namespaces (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns), run as root, or give up the sandbox with --sandbox none";
const NOBODY: u32 = 65534;

fn checked(result: impl TryInto<i64>) -> io::Result<()> {
    match result.try_into() {
        Ok(0..) => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs a daemon, that should not start, to its end: the messages of its log. Its folder is as it was.
fn ends(args: &[&str], change: impl FnOnce(&mut Command, &TempDir)) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let mut command = command();
    command
        .arg("--socket-path")
        .arg(folder.path().join("socket"));
    let shared = match args.contains(&"--single") {
        true => folder.path().join("file"),
        false => folder.path().to_owned(),
    };
    command.arg("--shared-dir").arg(shared);
    command.args(args.iter().filter(|arg| **arg != "--single"));
    change(&mut command, &folder);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => skip(format!("this cannot be denied here: {error}")),
    };
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1, "{args:?}: {text}");
    text
}

pub fn an_ordinary_user_cannot_give_the_socket_to_a_group_that_is_not_its_own() {
    let text = ends(&["--socket-group", "root"], |command, folder| {
        if is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
            // Its groups are given up as well.
            command.uid(NOBODY).gid(NOBODY);
        } else if me().gid == 0 {
            skip("this user's group is root's");
        }
    });
    let want = "Couldn't set up the group for the socket path: Operation not permitted";
    assert!(text.contains(want), "{text}");
    assert!(!text.contains(HINT), "{text}");
}

/// Denies a process the system call unshare, as container runtimes do.
fn without_unshare(command: &mut Command) {
    let jump = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let give = libc::BPF_RET | libc::BPF_K;
    let denied = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let filter = [
        // The number of the system call is what its description begins with.
        (load, 0, 0, 0),
        (jump, 0, 1, libc::SYS_unshare as u32),
        (give, 0, 0, denied),
        (give, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = filter.map(|(code, jt, jf, k)| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    });
    let install = move || {
        let mut filter = filter;
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_mut_ptr(),
        };
        // SAFETY: takes numbers only.
        checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
        let mode = libc::SECCOMP_MODE_FILTER;
        // SAFETY: a program that lives through the call.
        checked(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) })
    };
    // SAFETY: system calls only.
    unsafe { command.pre_exec(install) };
}

pub fn where_unshare_is_denied_the_sandbox_is_refused_with_what_can_be_done() {
    for (args, want) in [
        (
            &[][..],
            "Error entering sandbox: Unshare(Os { code: 1, kind: PermissionDenied",
        ),
        (
            &["--single"],
            "Error sharing a single file: a mount namespace: Operation not permitted",
        ),
    ] {
        let text = ends(args, |command, _| without_unshare(command));
        assert!(text.contains(want), "{args:?}: {text}");
        assert!(text.contains(HINT), "{args:?}: {text}");
    }
}

pub fn where_unshare_is_denied_several_threads_are_refused_with_what_may_deny_it() {
    for option in ["--thread-pool-size=2", "--request-queues=2"] {
        let args = ["--sandbox", "none", option];
        let text = ends(&args, |command, _| without_unshare(command));
        let want = "The unshare(CLONE_FS) syscall failed with 'Operation not permitted (os error 1)'. If running in a container please check that the container runtime seccomp policy allows unshare.";
        assert!(text.contains(want), "{text}");
        assert!(!text.contains(HINT), "{text}");
    }
    // One thread has nobody to share its working folder with.
    let one = |command: &mut Command| without_unshare(command);
    let folder = tempfile::tempdir().unwrap();
    let args = ["--sandbox", "none", "--thread-pool-size=1"];
    Daemon::start_in(folder, &args, one);
}

/// Puts a process into a user namespace in which it is an ordinary user, and may make no other one.
fn without_user_namespaces(command: &mut Command) {
    let user = me();
    let line = |id| CString::new(format!("1000 {id} 1")).unwrap();
    let (uid, gid) = (line(user.uid), line(user.gid));
    let write = |path: &CStr, text: &CStr| {
        // SAFETY: a string that lives through the call.
        let file = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
        checked(file)?;
        let bytes = text.to_bytes();
        // SAFETY: as many bytes as are said.
        checked(unsafe { libc::write(file, bytes.as_ptr().cast(), bytes.len()) })
    };
    let enter = move || {
        // SAFETY: takes a number only.
        checked(unsafe { libc::unshare(libc::CLONE_NEWUSER) })?;
        write(c"/proc/self/setgroups", c"deny")?;
        write(c"/proc/self/gid_map", &gid)?;
        write(c"/proc/self/uid_map", &uid)?;
        // Before what it may do here is lost with the next program.
        write(c"/proc/sys/user/max_user_namespaces", c"0")
    };
    // SAFETY: system calls only.
    unsafe { command.pre_exec(enter) };
}

pub fn where_user_namespaces_are_forbidden_an_ordinary_user_is_told_what_can_be_done() {
    // A namespace more than there may be is "no space".
    let text = ends(&[], |command, _| without_user_namespaces(command));
    let want = "Error entering sandbox: Unshare(Os { code: 28, kind: StorageFull";
    assert!(text.contains(want), "{text}");
    assert!(text.contains(HINT), "{text}");
    // What it says helps.
    let folder = tempfile::tempdir().unwrap();
    let change = |command: &mut Command| without_user_namespaces(command);
    Daemon::start_in(folder, &["--sandbox", "none"], change);
}

pub fn without_a_syslog_the_log_goes_to_standard_error_and_says_so() {
    require_root("a /dev without a log");
    let enter = || {
        let none = std::ptr::null();
        // SAFETY: takes a number only.
        checked(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
        let private = libc::MS_REC | libc::MS_PRIVATE;
        // SAFETY: a string that lives through the call, and nothing where nothing is asked for.
        checked(unsafe { libc::mount(none, c"/".as_ptr(), none, private, none.cast()) })?;
        let (kind, devices) = (c"tmpfs".as_ptr(), c"/dev".as_ptr());
        // SAFETY: strings that live through the call.
        checked(unsafe { libc::mount(kind, devices, kind, 0, none.cast()) })
    };
    let folder = tempfile::tempdir().unwrap();
    // It starts, for its log can be read.
    let mut daemon = Daemon::start_in(folder, &["--syslog"], |command| {
        // SAFETY: system calls only.
        unsafe { command.pre_exec(enter) };
    });
    assert!(daemon.log.contains("WARN"), "{}", daemon.log);
    assert!(
        daemon.log.contains("can't enable syslog: "),
        "{}",
        daemon.log
    );
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.ends_in_time().code(), Some(1));
}
