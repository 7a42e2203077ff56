//! Where log lines go, and from which level on.
//!
//! A guest can have some lines written, as often as it likes. On standard error, which may be a file of the host's, the
//! first of each connection are written and the others counted. (A syslog daemon has limits of its own.)

use std::sync::atomic::{AtomicU32, Ordering};

use env_logger::{Env, Logger};
use log::{LevelFilter, Log, Metadata, Record, info, warn};

use crate::options::Options;

/// Lines about one connection's requests.
const LINES: u32 = 100;
/// Modules that a guest's requests reach.
const REACHED: [&str; 4] = [
    "virtiofsd::",
    "vhost",
    "microvm_virtiofsd::backend",
    "microvm_virtiofsd::logging",
];

/// Lines about the present connection's requests so far.
static WRITTEN: AtomicU32 = AtomicU32::new(0);

/// Starts logging. `RUST_LOG` decides on standard error where it is set, the option otherwise.
pub fn start(options: &Options) {
    let level = match options.compat_debug {
        true => LevelFilter::Debug,
        false => options.log_level,
    };
    // A panic is contained where it happens; its text belongs into the log.
    std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    if !options.syslog {
        return to_stderr(level);
    }
    // Only by its socket: by the network, which the library falls back to, nobody would know whether it is heard.
    if let Err(error) = syslog::init_unix(syslog::Facility::LOG_USER, level) {
        to_stderr(level);
        warn!("can't enable syslog: {error}");
    }
}

/// Tells of the lines that were left out since the last connection, and begins to count anew.
pub fn next_connection() {
    let written = WRITTEN.swap(0, Ordering::Relaxed);
    if let Some(left_out @ 1..) = written.checked_sub(LINES) {
        info!("{left_out} lines about the last connection's requests were left out");
    }
}

fn to_stderr(level: LevelFilter) {
    let logger =
        env_logger::Builder::from_env(Env::default().default_filter_or(level.as_str())).build();
    let level = logger.filter();
    if log::set_boxed_logger(Box::new(Bounded(logger))).is_ok() {
        log::set_max_level(level);
    }
}

/// Writes the first lines about a connection's requests only, unless there is to be a line for each of them anyway.
struct Bounded(Logger);

impl Log for Bounded {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if !self.0.matches(record) {
            return;
        }
        let reached = REACHED
            .iter()
            .any(|module| record.target().starts_with(module));
        if !reached || log::max_level() > LevelFilter::Info {
            return self.0.log(record);
        }
        match WRITTEN.fetch_add(1, Ordering::Relaxed) {
            0..LINES => self.0.log(record),
            LINES => self.0.log(
                &Record::builder()
                    .metadata(record.metadata().clone())
                    .args(format_args!(
                        "Further lines about this connection's requests are left out"
                    ))
                    .build(),
            ),
            _ => {}
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}
