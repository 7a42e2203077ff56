//! `-o`: the options of the daemon written in C, comma-separated, as `name`, `no_name` or `name=value`.

use clap::CommandFactory;
use clap::error::{Error, ErrorKind};
use log::LevelFilter;
use virtiofsd::passthrough::xattrmap::XattrMap;
use virtiofsd::passthrough::{CachePolicy, NegotiationMode};
use virtiofsd::sandbox::SandboxMode;

use super::Options;

/// Works the `-o` options into the others. They win, whatever the order.
pub fn apply(options: &mut Options) -> Result<(), Error> {
    let lines = options.compat_options.clone().unwrap_or_default();
    for option in lines.iter().flat_map(|line| line.split(',')) {
        match option.split('=').collect::<Vec<_>>()[..] {
            [name, value] => set_value(options, option, name, value)?,
            [name] => set_flag(options, name)?,
            _ => return Err(unknown(option)),
        }
    }
    Ok(())
}

fn set_value(options: &mut Options, option: &str, name: &str, value: &str) -> Result<(), Error> {
    let invalid = || {
        Options::command().error(
            ErrorKind::InvalidValue,
            format!("Invalid compat value '{value}' for '-o {name}'"),
        )
    };
    match name {
        "source" => options.shared_dir = Some(value.to_owned()),
        "modcaps" => options.modcaps = Some(value.to_owned()),
        "xattrmap" => {
            options.xattrmap = Some(XattrMap::try_from(value).map_err(|_| invalid())?);
        }
        "cache" => {
            options.cache = match value {
                "auto" => CachePolicy::Auto,
                "always" => CachePolicy::Always,
                "metadata" => CachePolicy::Metadata,
                "none" => CachePolicy::Never,
                _ => return Err(invalid()),
            };
        }
        "loglevel" => {
            options.log_level = match value {
                "debug" => LevelFilter::Debug,
                "info" => LevelFilter::Info,
                "warn" => LevelFilter::Warn,
                "err" => LevelFilter::Error,
                _ => return Err(invalid()),
            };
        }
        "sandbox" => {
            options.sandbox = match value {
                "namespace" => SandboxMode::Namespace,
                "chroot" => SandboxMode::Chroot,
                _ => return Err(invalid()),
            };
        }
        _ => return Err(unknown(option)),
    }
    Ok(())
}

fn set_flag(options: &mut Options, name: &str) -> Result<(), Error> {
    let (on, flag) = match name.strip_prefix("no_") {
        Some(flag) => (false, flag),
        None => (true, name),
    };
    let mode = match on {
        true => NegotiationMode::Always,
        false => NegotiationMode::Never,
    };
    match (flag, on) {
        ("xattr", _) => options.xattr = on,
        ("readdirplus", _) => options.no_readdirplus = !on,
        ("writeback", _) => options.writeback = on,
        ("allow_direct_io", _) => options.allow_direct_io = on,
        ("announce_submounts", true) => options.announce_submounts = true,
        ("killpriv_v2", _) => options.killpriv_v2 = on,
        ("posix_acl", _) => options.posix_acl = mode,
        ("security_label", _) => options.security_label = mode,
        // The guest keeps its locks to itself in any case.
        ("posix_lock" | "flock", false) => {}
        _ => return Err(unknown(name)),
    }
    Ok(())
}

fn unknown(option: &str) -> Error {
    Options::command().error(
        ErrorKind::UnknownArgument,
        format!("Invalid compat argument '-o {option}'"),
    )
}
