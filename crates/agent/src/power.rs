//! The end of the machine.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::panic;
use std::path::PathBuf;
use std::process;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pause, sync};

use crate::console::note;

/// The command line that asks for a clean power-off. No shell command can hold a NUL byte.
pub(crate) const POWEROFF_COMMAND: &[u8] = b"\0poweroff";

const EXIT_PANICKED: i32 = 101;

/// Whether there is a machine to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// PID 1 of a guest.
    Init,
    /// An ordinary process, run by hand: it ends itself and touches nothing else.
    Process,
}

/// How the machine is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Off: the VMM ends.
    PowerOff,
    /// A reset, which the VMM reports as such.
    Restart,
}

/// Sends a signal to everybody else.
pub(crate) fn signal_all(role: Role, signal: Signal) {
    match role {
        Role::Init => {
            // Fails only when nobody is there.
            let _ = kill(Pid::from_raw(-1), signal);
        }
        Role::Process => {
            for child in own_children() {
                let _ = kill(child, signal);
            }
        }
    }
}

fn own_children() -> Vec<Pid> {
    let pid = process::id();
    let list = fs::read_to_string(format!("/proc/self/task/{pid}/children")).unwrap_or_default();
    list.split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok().map(Pid::from_raw))
        .collect()
}

/// Writes everything back and ends the machine. Everybody else has been ended before.
pub(crate) fn end(role: Role, ending: Ending) -> ! {
    if role == Role::Process {
        process::exit(0);
    }
    sync();
    detach_disks();
    let mode = match ending {
        Ending::PowerOff => RebootMode::RB_POWER_OFF,
        Ending::Restart => RebootMode::RB_AUTOBOOT,
    };
    let Err(errno) = reboot(mode);
    note(format_args!("cannot end the machine: {errno}"));
    // Only a kernel that refuses gets here, and PID 1 may not end.
    loop {
        pause();
    }
}

/// Unmounts what lies on disks, the latest first; what is still in use is at least made read-only.
fn detach_disks() {
    let mounts = fs::read("/proc/self/mounts").unwrap_or_default();
    for target in disk_mounts(&mounts) {
        if umount2(&target, MntFlags::empty()).is_err() {
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            if let Err(errno) = mount(None::<&str>, &target, None::<&str>, flags, None::<&str>) {
                let target = target.display();
                note(format_args!("cannot make {target} read-only: {errno}"));
            }
        }
    }
}

fn disk_mounts(mounts: &[u8]) -> impl Iterator<Item = PathBuf> {
    let lines = mounts.split(|byte| *byte == b'\n').rev();
    lines.filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let (source, target) = (fields.next()?, fields.next()?);
        source.starts_with(b"/dev/").then(|| unescape(target))
    })
}

/// The kernel writes blanks, line ends and backslashes of a path as a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let code = (byte == b'\\')
            .then(|| after.first_chunk())
            .flatten()
            .and_then(octal);
        path.push(code.unwrap_or(byte));
        rest = match code {
            Some(_) => after.get(3..).unwrap_or_default(),
            None => after,
        };
    }
    PathBuf::from(OsString::from_vec(path))
}

fn octal(digits: &[u8; 3]) -> Option<u8> {
    digits.iter().try_fold(0_u8, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        value.checked_mul(8)?.checked_add(digit)
    })
}

/// Makes the kernel send SIGINT for Ctrl-Alt-Del instead of resetting at once.
pub(crate) fn take_over_control_alt_delete() {
    if let Err(errno) = set_cad_enabled(false) {
        note(format_args!("cannot take over Ctrl-Alt-Del: {errno}"));
    }
}

/// A panic of PID 1 would be one of the kernel: write everything back and power off instead.
pub(crate) fn never_panic(role: Role) {
    panic::set_hook(Box::new(move |information| {
        note(format_args!("internal error, powering off: {information}"));
        if role == Role::Process {
            process::exit(EXIT_PANICKED);
        }
        end(role, Ending::PowerOff)
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_disks_are_detached_and_the_latest_first() {
        let mounts = b"rootfs / rootfs rw 0 0\nproc /proc proc rw 0 0\n/dev/vda /data ext4 rw 0 0\n/dev/vdb /data/more ext4 rw 0 0\n";
        assert_eq!(
            disk_mounts(mounts).collect::<Vec<_>>(),
            [PathBuf::from("/data/more"), PathBuf::from("/data")]
        );
    }

    #[test]
    fn a_mount_s_path_is_read_as_the_kernel_escapes_it() {
        for (field, path) in [
            ("/a\\040b\\011\\012c", "/a b\t\nc"),
            ("/back\\134040slash", "/back\\040slash"),
            ("/\\303\\244", "/\u{e4}"),
            ("/end\\04", "/end\\04"),
            ("/end\\", "/end\\"),
            ("/big\\777\\089", "/big\\777\\089"),
        ] {
            assert_eq!(unescape(field.as_bytes()), PathBuf::from(path));
        }
    }
}
