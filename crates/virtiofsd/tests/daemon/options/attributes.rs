//! Extended attributes, and what is kept in them.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::super::fuse::{ROOT, me};
use super::super::guest::{mount, mounted_with};
use super::super::process::{Daemon, require_root};

/// A file's attribute, as the host sees it.
fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let name = CString::new(name).unwrap();
    let mut value = vec![0; 256];
    let room = value.as_mut_ptr().cast();
    // SAFETY: two strings, and room for as many bytes as are said.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), room, value.len()) };
    value.truncate(usize::try_from(length).ok()?);
    Some(value)
}

pub fn extended_attributes_are_there_when_asked_for_and_renamed_when_mapped() {
    let (_daemon, mut mounted) = mounted_with(&[]);
    let file = mounted.lookup(ROOT, "file").unwrap();
    assert_eq!(
        mounted.set_xattr(file.node, "user.a", b"x").unwrap_err(),
        libc::ENOSYS
    );

    let (_daemon, mut mounted) = mounted_with(&["--xattr"]);
    let file = mounted.lookup(ROOT, "file").unwrap();
    mounted.set_xattr(file.node, "user.a", b"x").unwrap();
    assert_eq!(mounted.get_xattr(file.node, "user.a").unwrap(), b"x");

    let (daemon, mut mounted) = mounted_with(&["--xattrmap", ":map::user.virtiofs.:"]);
    let file = mounted.lookup(ROOT, "file").unwrap();
    mounted.set_xattr(file.node, "trusted.b", b"y").unwrap();
    assert_eq!(mounted.get_xattr(file.node, "trusted.b").unwrap(), b"y");
    let stored = attribute(&daemon.share().join("file"), "user.virtiofs.trusted.b");
    assert_eq!(stored.unwrap(), b"y");
}

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// An access list that lets one user more in than the owner and the owner's group (`linux/posix_acl_xattr.h`).
fn list(user: u32) -> Vec<u8> {
    let nobody = u32::MAX;
    let entries = [
        (0x01u16, 7u16, nobody),
        (0x02, 6, user),
        (0x04, 5, nobody),
        (0x10, 7, nobody),
        (0x20, 0, nobody),
    ];
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

pub fn access_lists_are_the_hosts_own() {
    require_root("access lists that name other users");
    let (daemon, mut mounted) = mounted_with(&["--posix-acl"]);
    let file = mounted.lookup(ROOT, "file").unwrap();
    mounted.set_xattr(file.node, ACCESS, &list(4000)).unwrap();
    assert_eq!(mounted.get_xattr(file.node, ACCESS).unwrap(), list(4000));
    let stored = attribute(&daemon.share().join("file"), ACCESS);
    assert_eq!(stored.unwrap(), list(4000));

    // Without the option they stay out of reach, also where attributes are not.
    let (daemon, mut mounted) = mounted_with(&["--xattr"]);
    let file = mounted.lookup(ROOT, "file").unwrap();
    let refused = mounted.set_xattr(file.node, ACCESS, &list(4000));
    assert_eq!(refused.unwrap_err(), libc::ENOTSUP);
    assert_eq!(attribute(&daemon.share().join("file"), ACCESS), None);
}

pub fn a_new_file_gets_its_folders_list_or_the_umask_of_the_guests_program() {
    require_root("access lists that name other users");
    let (daemon, mut mounted) = mounted_with(&["--posix-acl"]);
    let mode = |name: &str| {
        let path = daemon.share().join(name);
        path.metadata().unwrap().permissions().mode() & 0o777
    };
    mounted
        .create_with(ROOT, "masked", [0o666, 0o077], &[])
        .unwrap();
    assert_eq!(mode("masked"), 0o600);
    assert_eq!(attribute(&daemon.share().join("masked"), ACCESS), None);

    mounted.set_xattr(ROOT, DEFAULT, &list(4000)).unwrap();
    mounted
        .create_with(ROOT, "listed", [0o666, 0o077], &[])
        .unwrap();
    // The group's bits are the list's mask, of what was asked for; the umask is not worked in.
    assert_eq!(mode("listed"), 0o660);
    assert!(attribute(&daemon.share().join("listed"), ACCESS).is_some());
}

pub fn a_new_file_gets_the_security_label_that_the_guest_sends() {
    // Renamed, for only some may set the real one.
    let map = ["--xattrmap", ":map::user.virtiofs.:"];
    let (daemon, mut mounted) = mounted_with(&[&["--security-label"][..], &map].concat());
    let label = b"system_u:object_r:user_t:s0";
    let mut context = Vec::new();
    context.extend(u32::try_from(label.len()).unwrap().to_le_bytes());
    context.extend([0; 4]);
    context.extend(b"security.selinux\0");
    context.extend(label);
    let mut extension = u32::try_from(8 + context.len())
        .unwrap()
        .to_le_bytes()
        .to_vec();
    extension.extend(1u32.to_le_bytes());
    extension.extend(context);
    mounted
        .create_with(ROOT, "labelled", [0o644, 0], &extension)
        .unwrap();
    let stored = attribute(
        &daemon.share().join("labelled"),
        "user.virtiofs.security.selinux",
    );
    assert_eq!(stored.unwrap(), label);
    // It is agreed on, so it is in every such request.
    let without = mounted.create(ROOT, "unlabelled").unwrap_err();
    assert_eq!(without, libc::EINVAL);
    assert!(!daemon.share().join("unlabelled").exists());
}

pub fn setuid_and_setgid_bits_are_cleared_for_the_guest_that_agreed_to_it() {
    require_root("files of other users");
    const OPEN_KILLS: u32 = 1;
    const WRITE_KILLS: u32 = 1 << 2;
    const SET_KILLS: u32 = 1 << 11;
    for (args, want) in [(&["--killpriv-v2"][..], 0), (&[], 0o6000)] {
        let daemon = Daemon::start(args);
        for name in ["written", "emptied", "shortened"] {
            let path = daemon.share().join(name);
            std::fs::write(&path, "content").unwrap();
            std::os::unix::fs::chown(&path, Some(1000), Some(1000)).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o6775)).unwrap();
        }
        let mut mounted = mount(&daemon);
        assert_eq!(mounted.caller.uid, me().uid);
        let file = mounted.lookup(ROOT, "written").unwrap();
        let handle = mounted.open(file.node, libc::O_RDWR).unwrap();
        mounted
            .write_with(file.node, handle, 0, b"x", WRITE_KILLS)
            .unwrap();
        let file = mounted.lookup(ROOT, "emptied").unwrap();
        mounted
            .open_with(file.node, libc::O_RDWR | libc::O_TRUNC, OPEN_KILLS)
            .unwrap();
        let file = mounted.lookup(ROOT, "shortened").unwrap();
        mounted.truncate_with(file.node, 3, SET_KILLS).unwrap();
        for name in ["written", "emptied", "shortened"] {
            let mode = daemon.share().join(name).metadata().unwrap().permissions();
            assert_eq!(mode.mode() & 0o6000, want, "{args:?} {name}");
        }
    }
}
