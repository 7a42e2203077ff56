//! `microvm-virtiofsd`: serves a host folder to one guest by virtio-fs, as a vhost-user back end.
//!
//! The command line is that of virtiofsd 1.14.0, with `--request-queues`, `--reconnect` and
//! `--print-vhost-user-json` besides. Crate `virtiofsd`
//! is the file-system layer (FUSE requests, inodes, sandbox); this executable is everything around it: options, the
//! steps of the start and their order, rings and requests, state transfer, and leaving nothing behind.
//!
//! It is a process of its own and never part of another one: the sandbox, the system call filter, capabilities, the
//! umask and resource limits are the whole process's.
//!
//! | process | what it does |
//! |---|---|
//! | supervisor ([`supervise`]) | owns the pid file and the socket's file, waits, removes both; without them there is none |
//! | parent (crate `virtiofsd`) | created the namespaces; waits without capabilities |
//! | server | confined; all that a guest's requests reach |

mod backend;
mod capabilities;
mod confine;
mod entry;
mod error;
mod logging;
mod memory_holes;
mod names;
mod options;
mod seccomp;
mod serve;
mod signals;
mod single_file;
mod socket;
mod start;
mod supervise;

use std::process::ExitCode;

fn main() -> ExitCode {
    let options = options::parse();
    if options.print_capabilities {
        print!("{}", options::CAPABILITIES);
        return ExitCode::SUCCESS;
    }
    logging::start(&options);
    let done = match options.print_vhost_user_json {
        true => entry::text().map(|text| print!("{text}")),
        false => start::run(options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            if let Some(hint) = error.hint() {
                log::error!("{hint}");
            }
            ExitCode::FAILURE
        }
    }
}
