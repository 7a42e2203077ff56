//! PID 1 of the guest: it makes a bare kernel usable, dials the host, and runs the commands that come over the channel.
//!
//! The way through the files is the way of a boot: [`mounts`] → [`settings`] → [`modules`] → [`shares`] → [`network`] →
//! [`dial`] → [`mod@serve`] (the one event loop, with [`channel`], [`command`] and [`reaper`] under it) → [`power`]. Beside the event
//! loop, [`api`] serves processes, files and ports. `docs/guest-agent.md` and `docs/agent-api.md` are the contracts with
//! the host.
//!
//! Two threads: the event loop's, with one `poll`, and the API's, with one tokio runtime (which hands calls that may block
//! to a few more). They share [`children`] and nothing else: only one place takes the status of children.
//! Nothing here may end or panic: the kernel panics when PID 1 is gone.
//!
//! Run by hand as `microvm-agent --unix PATH [--api PATH]` it dials a Unix socket instead of the host, listens on the other
//! for users of its API, and touches nothing of the machine: that is how its tests run it.
#![cfg_attr(test, allow(clippy::cast_possible_truncation))]
#![cfg_attr(not(test), no_main)]

mod api;
mod capture;
mod cgroup;
mod channel;
mod children;
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
use std::sync::Arc;

use crate::cgroup::CommandGroups;
use crate::children::Children;
use crate::console::note;
use crate::dial::Address;
use crate::power::{Ending, Role};
use crate::serve::Agent;
use crate::settings::Settings;

const USAGE: &str =
    "microvm-agent is PID 1 of a microVM's guest. By hand: microvm-agent --unix PATH [--api PATH]";
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
        Some(api::Address::Vsock),
    )
}

fn by_hand() -> Ending {
    let Some(paths) = unix_paths(std::env::args_os().skip(1)) else {
        note(format_args!("{USAGE}"));
        process::exit(BAD_USAGE);
    };
    console::ensure_standard_streams();
    reaper::adopt_orphans();
    serve(
        Role::Process,
        Address::Unix(paths.channel),
        paths.api.map(api::Address::Unix),
    )
}

#[derive(Debug, PartialEq, Eq)]
struct UnixPaths {
    channel: PathBuf,
    api: Option<PathBuf>,
}

fn unix_paths(arguments: impl Iterator<Item = OsString>) -> Option<UnixPaths> {
    let words: Vec<OsString> = arguments.collect();
    let (channel, api) = match words.as_slice() {
        [option, path] if option == "--unix" => (path, None),
        [option, path, other, api] if option == "--unix" && other == "--api" => (path, Some(api)),
        _ => return None,
    };
    Some(UnixPaths {
        channel: channel.into(),
        api: api.map(Into::into),
    })
}

fn serve(role: Role, address: Address, api: Option<api::Address>) -> Ending {
    let groups = |folder| match role {
        Role::Init => CommandGroups::under(Path::new(folder)),
        Role::Process => CommandGroups::none(),
    };
    let children = Arc::new(Children::default());
    match Agent::new(role, address, groups(cgroup::ROOT), Arc::clone(&children)) {
        Ok(agent) => {
            // Before the host is dialed: who hears that the guest is ready may use the API at once.
            if let Some(address) = api {
                api::start(address, children, groups(cgroup::API_ROOT));
            }
            agent.run()
        }
        Err(error) => {
            note(format_args!("cannot serve: {error}"));
            Ending::PowerOff
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Option<UnixPaths> {
        unix_paths(arguments.iter().map(OsString::from))
    }

    #[test]
    fn by_hand_it_takes_a_unix_path_and_perhaps_another_and_nothing_else() {
        let paths = |channel: &str, api: Option<&str>| {
            Some(UnixPaths {
                channel: channel.into(),
                api: api.map(Into::into),
            })
        };
        assert_eq!(parse(&["--unix", "/tmp/s"]), paths("/tmp/s", None));
        assert_eq!(
            parse(&["--unix", "/tmp/s", "--api", "/tmp/a"]),
            paths("/tmp/s", Some("/tmp/a"))
        );
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&["--unix"]), None);
        assert_eq!(parse(&["--unix", "/tmp/s", "more"]), None);
        assert_eq!(parse(&["--api", "/tmp/s"]), None);
    }
}
