//! PID 1 of the guest: it makes a bare kernel usable, dials the host, and runs the commands that come over the channel.
//!
//! The way through the files is the way of a boot: [`mounts`] → [`settings`] → [`modules`] → [`shares`] → [`network`] → [`dial`] →
//! [`mod@serve`] (the one event loop, with [`channel`], [`command`] and [`reaper`] under it) → [`power`].
//! `docs/guest-agent.md` is the contract with the host.
//!
//! One thread, one `poll`: there is no lock, nothing waits in a loop, and only one place takes the status of children.
//! Nothing here may end or panic: the kernel panics when PID 1 is gone.
//!
//! Run by hand as `microvm-agent --unix PATH` it dials a Unix socket instead of the host and touches nothing of the
//! machine: that is how its tests run it.
#![cfg_attr(test, allow(clippy::cast_possible_truncation))]
#![cfg_attr(not(test), no_main)]

mod capture;
mod cgroup;
mod channel;
mod command;
mod console;
mod dial;
mod modules;
mod mounts;
mod network;
mod power;
mod readiness;
mod reaper;
mod serve;
mod settings;
mod shares;
mod shell;
mod signals;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process;

use crate::cgroup::CommandGroups;
use crate::console::note;
use crate::dial::Address;
use crate::power::{Ending, Role};
use crate::serve::Agent;
use crate::settings::Settings;

const USAGE: &str =
    "microvm-agent is PID 1 of a microVM's guest. By hand: microvm-agent --unix PATH";
const BAD_USAGE: i32 = 2;

/// The C entry point: Rust's own would first insist on open standard streams and abort without `/dev/null`, which a
/// guest without a console does not have yet.
#[cfg_attr(not(test), unsafe(no_mangle))]
extern "C" fn main() -> libc::c_int {
    let role = if process::id() == 1 {
        Role::Init
    } else {
        Role::Process
    };
    power::never_panic(role);
    let ending = match role {
        Role::Init => init(),
        Role::Process => by_hand(),
    };
    power::end(role, ending)
}

/// Brings the guest up and serves until it is to end.
fn init() -> Ending {
    console::use_console_of_guest();
    note(format_args!("version {}", env!("CARGO_PKG_VERSION")));
    mounts::mount_all();
    console::ensure_standard_streams();
    console::use_console_of_guest();
    let settings = Settings::read();
    modules::load_all(Path::new(modules::FOLDER));
    if settings.share_is_wrong || !shares::mount_all(settings.root.as_ref(), &settings.shares) {
        return Ending::PowerOff;
    }
    network::set_host_name(&settings.hostname);
    network::bring_up_loopback();
    power::take_over_control_alt_delete();
    command::set_defaults_for_commands();
    serve(
        Role::Init,
        Address::host(settings.port),
        CommandGroups::under(Path::new(cgroup::ROOT)),
    )
}

fn by_hand() -> Ending {
    let Some(path) = unix_path(std::env::args_os().skip(1)) else {
        note(format_args!("{USAGE}"));
        process::exit(BAD_USAGE);
    };
    console::ensure_standard_streams();
    reaper::adopt_orphans();
    serve(Role::Process, Address::Unix(path), CommandGroups::none())
}

fn unix_path(mut arguments: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(option), Some(path), None) if option == "--unix" => Some(path.into()),
        _ => None,
    }
}

fn serve(role: Role, address: Address, groups: CommandGroups) -> Ending {
    match Agent::new(role, address, groups) {
        Ok(agent) => agent.run(),
        Err(error) => {
            note(format_args!("cannot serve: {error}"));
            Ending::PowerOff
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Option<PathBuf> {
        unix_path(arguments.iter().map(OsString::from))
    }

    #[test]
    fn by_hand_it_takes_one_unix_path_and_nothing_else() {
        assert_eq!(parse(&["--unix", "/tmp/s"]), Some("/tmp/s".into()));
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&["--unix"]), None);
        assert_eq!(parse(&["--unix", "/tmp/s", "more"]), None);
        assert_eq!(parse(&["-u", "/tmp/s"]), None);
    }
}
