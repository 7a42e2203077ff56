//! How a daemon starts and ends, and what is left then.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};

use super::driver::Driver;
use super::fuse::{Mounted, ROOT};
use super::process::{Daemon, command, refused, require_root, send};

fn assert_no_files(daemon: &Daemon) {
    assert!(!daemon.socket().exists() && !daemon.pid_file().exists());
}

pub fn signals_end_it_with_status_1_and_leave_no_files() {
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
        for sandbox in ["namespace", "none"] {
            let mut daemon = Daemon::start(&["--sandbox", sandbox]);
            daemon.signal(signal);
            // Its log ends when all of its processes have.
            assert_eq!(daemon.wait().code(), Some(1), "{signal} {sandbox}");
            assert_no_files(&daemon);
        }
    }
}

pub fn the_end_of_the_connection_ends_it_with_status_0_and_leaves_no_files() {
    let mut daemon = Daemon::start(&[]);
    drop(Mounted::mount(Driver::start(&daemon.socket())));
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(daemon.log.contains("Client disconnected, shutting down"));
    assert_no_files(&daemon);
}

pub fn a_server_that_is_killed_ends_the_whole_daemon_and_leaves_no_files() {
    let mut daemon = Daemon::start(&["--sandbox", "none"]);
    send(daemon.server(), libc::SIGKILL);
    assert_eq!(daemon.wait().code(), Some(128 + libc::SIGKILL));
    assert_no_files(&daemon);
}

pub fn an_end_is_noticed_where_the_starter_ignores_those_of_its_children() {
    let ignore = || {
        // SAFETY: a constant, and no handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        Ok(())
    };
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start_in(folder, &[], |command| {
        // SAFETY: signal is async-signal-safe.
        unsafe { command.pre_exec(ignore) };
    });
    drop(Mounted::mount(Driver::start(&daemon.socket())));
    assert_eq!(daemon.wait().code(), Some(0));
    assert_no_files(&daemon);
}

pub fn a_supervisor_that_is_killed_takes_the_server_along_and_the_next_daemon_takes_over() {
    let mut daemon = Daemon::start(&[]);
    daemon.signal(libc::SIGKILL);
    // The pipe of the log ends when the last process has.
    assert_eq!(daemon.wait().signal(), Some(libc::SIGKILL));
    assert!(daemon.socket().exists() && daemon.pid_file().exists());
    let (folder, share) = (&daemon.folder, daemon.share());
    let mut next = command();
    next.arg("--shared-dir").arg(share);
    next.arg("--socket-path").arg(folder.path().join("socket"));
    next.stderr(std::process::Stdio::piped());
    let mut next = next.spawn().unwrap();
    let mut log = std::io::BufReader::new(next.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("Waiting for vhost-user") {
        line.clear();
        assert_ne!(std::io::BufRead::read_line(&mut log, &mut line).unwrap(), 0);
    }
    drop(Mounted::mount(Driver::start(&daemon.socket())));
    assert!(next.wait().unwrap().success());
}

pub fn the_pid_file_names_the_daemon_and_keeps_a_second_one_away() {
    let daemon = Daemon::start(&[]);
    let text = std::fs::read_to_string(daemon.pid_file()).unwrap();
    assert_eq!(text.trim(), daemon.child.id().to_string());
    let share = daemon.share();
    let socket = daemon.socket();
    let (code, log) = refused(&[
        "--shared-dir",
        share.to_str().unwrap(),
        "--socket-path",
        socket.to_str().unwrap(),
    ]);
    assert_eq!(code, Some(1));
    assert!(log.contains("Error creating pid file"), "{log}");
    assert!(
        log.contains("Another daemon serves this socket path"),
        "{log}"
    );
    // The first one's files are untouched.
    drop(Mounted::mount(Driver::start(&socket)));
}

fn mode_of_socket(daemon: &Daemon) -> u32 {
    daemon.socket().metadata().unwrap().permissions().mode() & 0o777
}

pub fn the_socket_is_for_its_user() {
    assert_eq!(mode_of_socket(&Daemon::start(&[])), 0o700);
}

pub fn the_socket_is_for_a_group_where_one_is_named() {
    require_root("a socket of another group");
    let daemon = Daemon::start(&["--socket-group", "daemon"]);
    assert_eq!(mode_of_socket(&daemon), 0o770);
    let group = std::os::unix::fs::MetadataExt::gid(&daemon.socket().metadata().unwrap());
    assert_ne!(group, 0);
}

pub fn an_inherited_socket_is_accepted_on_and_left_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inherited");
    let listener = OwnedFd::from(UnixListener::bind(&path).unwrap());
    let number = listener.as_raw_fd();
    let mut command = command();
    command
        .arg("--shared-dir")
        .arg(folder.path())
        .args(["--fd", "7"]);
    let inherit = move || {
        // SAFETY: takes numbers only.
        match unsafe { libc::dup2(number, 7) } {
            7 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: dup2 is async-signal-safe.
    unsafe { command.pre_exec(inherit) };
    let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut mounted = Mounted::mount(Driver::start(&path));
    mounted.lookup(ROOT, "none").unwrap_err();
    drop(mounted);
    assert!(child.wait().unwrap().success());
    assert!(path.exists() && !folder.path().join("inherited.pid").exists());
}
