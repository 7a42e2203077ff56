//! Where log lines go, and from which level on.

use env_logger::Env;
use log::{LevelFilter, warn};

use crate::options::Options;

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
    if let Err(error) = syslog::init(syslog::Facility::LOG_USER, level, None) {
        to_stderr(level);
        warn!("can't enable syslog: {error}");
    }
}

fn to_stderr(level: LevelFilter) {
    env_logger::Builder::from_env(Env::default().default_filter_or(level.as_str())).init();
}
