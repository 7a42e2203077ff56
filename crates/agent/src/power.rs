//! The end of the machine.

use std::fs;
use std::panic;
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
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for target in disk_mounts(&mounts) {
        if umount2(target, MntFlags::empty()).is_err() {
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            if let Err(errno) = mount(None::<&str>, target, None::<&str>, flags, None::<&str>) {
                note(format_args!("cannot make {target} read-only: {errno}"));
            }
        }
    }
}

fn disk_mounts(mounts: &str) -> impl Iterator<Item = &str> {
    mounts.lines().rev().filter_map(|line| {
        let mut fields = line.split(' ');
        let (source, target) = (fields.next()?, fields.next()?);
        source.starts_with("/dev/").then_some(target)
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
        let mounts = "rootfs / rootfs rw 0 0\nproc /proc proc rw 0 0\n/dev/vda /data ext4 rw 0 0\n/dev/vdb /data/more ext4 rw 0 0\n";
        assert_eq!(
            disk_mounts(mounts).collect::<Vec<_>>(),
            ["/data/more", "/data"]
        );
    }
}
