//! What is refused, with which message and exit status.

use super::super::process::{is_root, refused};

pub fn wrong_usage_ends_with_status_2_and_says_what_is_wrong() {
    let share = ["--shared-dir", "/tmp", "--socket-path", "/nowhere/socket"];
    let with = |more: &[&'static str]| [&share[..], more].concat();
    for (args, want) in [
        (vec!["--socket-path", "/tmp/s"], "--shared-dir <SHARED_DIR>"),
        (vec!["--shared-dir", "/tmp"], "--socket"),
        (with(&["--fd", "3"]), "cannot be used with"),
        (
            vec!["--shared-dir", "/", "--fd", "3", "--socket", "/tmp/s"],
            "cannot be used with",
        ),
        (
            with(&["--socket-group", "a", "--print-capabilities"]),
            "cannot be used with",
        ),
        (
            vec!["--shared-dir", "/", "--fd", "3", "--socket-group", "a"],
            "cannot be used with",
        ),
        (
            with(&["--tag", ""]),
            "The tag may not be empty or longer than 36 bytes (encoded as UTF-8).",
        ),
        (
            with(&["--tag", "1234567890123456789012345678901234567"]),
            "longer than 36 bytes",
        ),
        (with(&["--cache", "none"]), "invalid cache policy"),
        (with(&["--cache", "sometimes"]), "invalid cache policy"),
        (with(&["--sandbox", "bubble"]), "Unknown sandbox mode"),
        (with(&["--seccomp", "maybe"]), "Matching variant not found"),
        (
            with(&["--inode-file-handles=often"]),
            "invalid inode file handles mode",
        ),
        (
            with(&["--inode-file-handles", "never"]),
            "equal sign is needed",
        ),
        (
            with(&["--posix-acl=sometimes"]),
            "invalid mode, expected: never, auto, always",
        ),
        (
            with(&["--security-label=sometimes"]),
            "invalid mode, expected: never, auto, always",
        ),
        (
            with(&["--xattrmap", "nonsense"]),
            "invalid value 'nonsense'",
        ),
        (with(&["--log-level", "loud"]), "invalid value 'loud'"),
        (with(&["--request-queues", "0"]), "0 is not in 1..=63"),
        (with(&["--request-queues", "64"]), "64 is not in 1..=63"),
        (with(&["--thread-pool-size", "-1"]), "unexpected argument"),
        (with(&["--rlimit-nofile", "many"]), "invalid digit"),
        (with(&["--uid-map", "1:2:3"]), "invalid value"),
        (with(&["--translate-uid", "some:1:2:3"]), "invalid value"),
        (
            with(&["--migration-mode", "guess"]),
            "invalid migration-mode value",
        ),
        (with(&["--migration-on-error", "cry"]), "invalid"),
        (
            with(&["-o", "cache=never"]),
            "Invalid compat value 'never' for '-o cache'",
        ),
        (
            with(&["-o", "loglevel=loud"]),
            "Invalid compat value 'loud' for '-o loglevel'",
        ),
        (
            with(&["-o", "sandbox=none"]),
            "Invalid compat value 'none' for '-o sandbox'",
        ),
        (
            with(&["-o", "xattrmap=nonsense"]),
            "Invalid compat value 'nonsense' for '-o xattrmap'",
        ),
        (
            with(&["-o", "no_announce_submounts"]),
            "Invalid compat argument '-o no_announce_submounts'",
        ),
        (with(&["-o", "flock"]), "Invalid compat argument '-o flock'"),
        (
            with(&["-o", "colour=red"]),
            "Invalid compat argument '-o colour=red'",
        ),
        (
            with(&["--unheard-of"]),
            "unexpected argument '--unheard-of'",
        ),
    ] {
        let (code, text) = refused(&args);
        assert_eq!(code, Some(2), "{args:?}: {text}");
        assert!(text.contains(want), "{args:?}: {text}");
    }
}

pub fn what_does_not_go_together_ends_with_status_1_and_a_message() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let share = folder.path().to_str().unwrap();
    let socket = folder.path().join("socket");
    let socket = socket.to_str().unwrap();
    let with =
        |more: &[&'static str]| [&["--shared-dir", share, "--socket-path", socket], more].concat();
    let both = with(&[
        "--migration-mode=file-handles",
        "--migration-verify-handles",
        "--migration-confirm-paths",
    ]);
    let mut cases = vec![
        (
            vec!["--socket-path", socket, "-o", "xattr"],
            "missing \"--shared-dir\" or \"-o source\" option",
        ),
        (
            vec!["--shared-dir", "/no/where", "--socket-path", socket],
            "/no/where does not exist",
        ),
        (
            vec!["--shared-dir", share, "--socket-path", "/no/where/s"],
            "/no/where does not exist or is not a directory",
        ),
        (
            vec!["--shared-dir", share, "--socket-path", "/"],
            "Invalid socket file name",
        ),
        (
            vec![
                "--shared-dir",
                file,
                "--socket-path",
                socket,
                "--sandbox",
                "chroot",
            ],
            "A single file cannot be shared with --sandbox=chroot",
        ),
        (
            vec!["--shared-dir", share, "--fd", "0"],
            "it is no listening socket",
        ),
        (
            with(&[
                "--migration-mode",
                "file-handles",
                "--migration-confirm-paths",
            ]),
            "Cannot use --migration-confirm-paths with --migration-mode=file-handles",
        ),
        (
            with(&[
                "--migration-mode",
                "file-handles",
                "--migration-verify-handles",
            ]),
            "Cannot use --migration-verify-handles with --migration-mode=file-handles",
        ),
        // Both are told, one line each.
        (
            both.clone(),
            "Cannot use --migration-confirm-paths with --migration-mode=file-handles (because it is unnecessary)\n",
        ),
        (
            both,
            "Cannot use --migration-verify-handles with --migration-mode=file-handles (because it is unnecessary)\n",
        ),
        (
            with(&["--posix-acl", "--translate-uid", "map:0:0:1"]),
            "with --posix-acl=always, translating",
        ),
        (
            with(&["--posix-acl=auto", "--translate-gid", "map:0:0:1"]),
            "with --posix-acl=auto, translating",
        ),
        (
            with(&["--socket-group", "no-such-group"]),
            "Couldn't resolve the group name",
        ),
        (
            with(&["--modcaps", "chown"]),
            "invalid modcap action: expecting '+'|'-' but found 'c'",
        ),
        (with(&["--modcaps", "+chown:"]), "empty modcap found"),
        (with(&["--modcaps", "+fly"]), "invalid capability 'FLY'"),
        (
            with(&["--modcaps=-dac_read_search"]),
            "can't disable DAC_READ_SEARCH when using --inode-file-handles=prefer",
        ),
        (
            with(&[
                "--modcaps=-dac_read_search",
                "--inode-file-handles=mandatory",
            ]),
            "can't disable DAC_READ_SEARCH when using --inode-file-handles=mandatory",
        ),
        (
            with(&["--translate-uid=map:0:0:10", "--translate-uid=map:5:20:1"]),
            "Failed to create internal filesystem representation",
        ),
        (
            with(&[
                "--translate-gid=host:0:0:10",
                "--translate-gid=squash-host:9:20:1",
            ]),
            "Failed to create internal filesystem representation",
        ),
        (
            with(&["-o", "posix_acl", "--translate-gid", "map:0:0:1"]),
            "with --posix-acl=always, translating",
        ),
        (with(&["-o", "modcaps=+fly"]), "invalid capability 'FLY'"),
        (with(&["--rlimit-nofile", "600"]), "must be at least 610"),
        (
            with(&["--rlimit-nofile=611", "--thread-pool-size=3"]),
            "must be at least 612",
        ),
        (
            with(&["--rlimit-nofile=611", "--request-queues=4"]),
            "must be at least 613",
        ),
        (
            with(&["--rlimit-nofile", "18446744073709551615"]),
            "It cannot be increased above",
        ),
    ];
    if is_root() {
        cases.push((
            with(&["--uid-map", ":0:0:1:"]),
            "uid_map can only be used by unprivileged user",
        ));
        cases.push((
            with(&["--gid-map", ":0:0:1:"]),
            "gid_map can only be used by unprivileged user",
        ));
    } else {
        cases.push((
            with(&["--sandbox", "chroot"]),
            "'chroot' can only be used by root",
        ));
    }
    for (args, want) in cases {
        let (code, text) = refused(&args);
        assert_eq!(code, Some(1), "{args:?}: {text}");
        assert!(text.contains(want), "{args:?}: {text}");
        assert!(!std::path::Path::new(socket).exists(), "{args:?}");
        assert!(!folder.path().join("socket.pid").exists(), "{args:?}");
    }
}

pub fn a_file_in_the_sockets_place_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine");
    std::fs::write(&file, "precious").unwrap();
    let share = folder.path().to_str().unwrap();
    let (code, text) = refused(&[
        "--shared-dir",
        share,
        "--socket-path",
        file.to_str().unwrap(),
    ]);
    assert_eq!(code, Some(1));
    assert!(text.contains("Error creating listener"), "{text}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "precious");
}
