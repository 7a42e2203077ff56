//! The log, and the old names of options, which it warns of.

use std::ffi::CString;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;

use super::super::driver::Driver;
use super::super::fuse::Mounted;
use super::super::guest::mount;
use super::super::process::{Daemon, command, refused, require_root};

pub fn log_levels_are_followed_and_the_environment_has_precedence() {
    let log = |args: &[&str], variable: Option<&str>| {
        let folder = tempfile::tempdir().unwrap();
        let mut daemon = Daemon::start_in(folder, args, |command| {
            if let Some(value) = variable {
                command.env("RUST_LOG", value);
            }
        });
        drop(mount(&daemon));
        daemon.wait();
        daemon.log.clone()
    };
    assert!(!log(&[], None).contains("DEBUG"));
    assert!(log(&["--log-level", "debug"], None).contains("Received request"));
    let old = log(&["-d", "-f"], None);
    assert!(old.contains("Received request"), "{old}");
    assert!(
        old.contains("Use of deprecated flag '-d'") && old.contains("Use of deprecated flag '-f'")
    );
    assert!(log(&["-o", "loglevel=debug"], None).contains("Use of deprecated option format '-o'"));
    assert!(log(&[], Some("debug")).contains("Received request"));
    assert!(!log(&["--log-level", "debug"], Some("info")).contains("Received request"));
    let fallback = log(&["--inode-file-handles=fallback"], None);
    assert!(
        fallback.contains("Use of deprecated value 'fallback'"),
        "{fallback}"
    );
}

pub fn a_log_level_leaves_out_what_is_below_it() {
    // A warning, an error, and nothing else happens.
    let start = [
        "--shared-dir",
        "/",
        "--socket-path",
        "/no/where/socket",
        "-f",
    ];
    for (args, warns, fails) in [
        (&[][..], true, true),
        (&["--log-level", "trace"], true, true),
        (&["--log-level", "warn"], true, true),
        (&["--log-level", "error"], false, true),
        (&["--log-level", "off"], false, false),
        (&["-o", "loglevel=warn"], true, true),
        (&["-o", "loglevel=err"], false, true),
    ] {
        let (status, text) = refused(&[&start, args].concat());
        assert_eq!(status, Some(1));
        assert_eq!(text.contains("WARN"), warns, "{args:?}: {text}");
        assert_eq!(text.contains("ERROR"), fails, "{args:?}: {text}");
        assert!(fails || text.is_empty(), "{args:?}: {text}");
    }
    // And takes in what is above it.
    let said = |level: &str| {
        let mut daemon = Daemon::start(&["--log-level", level]);
        drop(mount(&daemon));
        daemon.wait();
        daemon.log.clone()
    };
    assert!(said("trace").contains("Received request"));
    let info = said("info");
    assert!(info.contains("INFO") && !info.contains("Received request"));
}

pub fn the_old_names_of_the_socket_and_the_folder_still_work() {
    let folder = tempfile::tempdir().unwrap();
    let source = format!("source={}", folder.path().display());
    let socket = folder.path().join("old");
    let mut child = command()
        .args(["-o", &source, "--log-level", "off"])
        .arg("--socket")
        .arg(&socket)
        .env("RUST_LOG", "info")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    while !text.contains("Waiting for vhost-user") {
        assert_ne!(
            std::io::BufRead::read_line(&mut log, &mut text).unwrap(),
            0,
            "{text}"
        );
    }
    assert!(
        text.contains("use of deprecated parameter '--socket'"),
        "{text}"
    );
    drop(Mounted::mount(Driver::start(&socket)));
    assert!(child.wait().unwrap().success());
}

pub fn its_capabilities_for_management_software_are_printed_alone() {
    let output = command()
        .args(["--print-capabilities", "--log-level", "debug"])
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    let text = String::from_utf8(output.stdout).unwrap();
    for word in [
        "\"type\": \"fs\"",
        "migrate-precopy",
        "posix-acl-negotiation-mode",
        "separate-options",
    ] {
        assert!(text.contains(word), "{text}");
    }
}

pub fn its_file_for_management_software_is_printed_with_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    // The way to it does not count.
    let link = folder.path().join("link");
    let program = Path::new(env!("CARGO_BIN_EXE_microvm-virtiofsd"));
    std::os::unix::fs::symlink(program, &link).unwrap();
    let mut command = std::process::Command::new(link);
    let output = command.arg("--print-vhost-user-json").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    let place = program.canonicalize().unwrap();
    let want = include_str!("../../../vhost-user.json")
        .replace("/usr/libexec/microvm-virtiofsd", place.to_str().unwrap());
    assert!(want.contains(place.to_str().unwrap()), "{want}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), want);
}

pub fn a_log_for_syslog_goes_there_and_nowhere_else() {
    require_root("another /dev/log");
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("log");
    let log = UnixDatagram::bind(&place).unwrap();
    log.set_read_timeout(Some(std::time::Duration::from_secs(20)))
        .unwrap();
    let place = CString::new(place.to_str().unwrap()).unwrap();
    let checked = |result: i32| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    let enter = move || {
        let none = std::ptr::null();
        // SAFETY: takes a number only.
        checked(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
        let private = libc::MS_REC | libc::MS_PRIVATE;
        // SAFETY: a string that lives through the call, and nothing where nothing is asked for.
        checked(unsafe { libc::mount(none, c"/".as_ptr(), none, private, none.cast()) })?;
        let (kind, devices) = (c"tmpfs".as_ptr(), c"/dev".as_ptr());
        // SAFETY: strings that live through the call.
        checked(unsafe { libc::mount(kind, devices, kind, 0, none.cast()) })?;
        let at = c"/dev/log".as_ptr();
        // SAFETY: a string and numbers.
        checked(unsafe { libc::mknod(at, libc::S_IFREG | 0o600, 0) })?;
        // SAFETY: two strings that live through the call.
        checked(unsafe { libc::mount(place.as_ptr(), at, none, libc::MS_BIND, none.cast()) })
    };
    let mut command = command();
    command.arg("--shared-dir").arg(folder.path());
    let socket = folder.path().join("socket");
    command.arg("--socket-path").arg(&socket);
    command.args(["--syslog", "--log-level", "debug", "--sandbox", "none"]);
    command.stderr(std::process::Stdio::piped());
    // SAFETY: system calls only.
    unsafe { command.pre_exec(enter) };
    let child = command.spawn().unwrap();
    let mut room = [0; 4096];
    let mut expect = |text: &str| loop {
        let length = log.recv(&mut room).unwrap();
        let line = String::from_utf8_lossy(&room[..length]).into_owned();
        if line.contains(text) {
            return line;
        }
    };
    let line = expect("Waiting for vhost-user");
    // Facility user, level informational.
    assert!(
        line.starts_with("<14>") && line.contains("microvm-virtiof"),
        "{line}"
    );
    let mounted = Mounted::mount(Driver::start(&socket));
    // From within the system call filter too.
    expect("Received request");
    drop(mounted);
    expect("Client disconnected");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
}
