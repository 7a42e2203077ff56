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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn parsed(args: &[&str]) -> Options {
        let least = ["microvm-virtiofsd", "--shared-dir=/a", "--socket-path=/b"];
        Options::try_parse_from(least.iter().chain(args)).unwrap()
    }

    /// The options after `-o words`, or the message of the refusal.
    fn with(args: &[&str], words: &str) -> Result<Options, String> {
        let mut options = parsed(&[args, &["-o", words]].concat());
        apply(&mut options).map_err(|error| error.to_string())?;
        options.compat_options = None;
        Ok(options)
    }

    /// Asserts that the words after `args` change these options so, and no others.
    fn assert_sets(args: &[&str], words: &str, set: fn(&mut Options)) {
        let before = parsed(args);
        let mut want = before.clone();
        set(&mut want);
        let [before, want] = [before, want].map(|options| format!("{options:?}"));
        assert_ne!(before, want, "{words}: the row shows nothing");
        let got = with(args, words).unwrap();
        assert_eq!(format!("{got:?}"), want, "{args:?} -o {words}");
    }

    #[test]
    fn every_word_sets_its_option_and_no_other() {
        type Row = (&'static [&'static str], &'static str, fn(&mut Options));
        let rows: &[Row] = &[
            (&[], "xattr", |o| o.xattr = true),
            (&["--xattr"], "no_xattr", |o| o.xattr = false),
            (&["--no-readdirplus"], "readdirplus", |o| {
                o.no_readdirplus = false;
            }),
            (&[], "no_readdirplus", |o| o.no_readdirplus = true),
            (&[], "writeback", |o| o.writeback = true),
            (&["--writeback"], "no_writeback", |o| o.writeback = false),
            (&[], "allow_direct_io", |o| o.allow_direct_io = true),
            (&["--allow-direct-io"], "no_allow_direct_io", |o| {
                o.allow_direct_io = false;
            }),
            (&[], "announce_submounts", |o| o.announce_submounts = true),
            (&[], "killpriv_v2", |o| o.killpriv_v2 = true),
            (&["--killpriv-v2"], "no_killpriv_v2", |o| {
                o.killpriv_v2 = false;
            }),
            (&[], "posix_acl", |o| o.posix_acl = NegotiationMode::Always),
            (&["--posix-acl=auto"], "posix_acl", |o| {
                o.posix_acl = NegotiationMode::Always;
            }),
            (&["--posix-acl"], "no_posix_acl", |o| {
                o.posix_acl = NegotiationMode::Never;
            }),
            (&[], "security_label", |o| {
                o.security_label = NegotiationMode::Always;
            }),
            (&["--security-label=auto"], "no_security_label", |o| {
                o.security_label = NegotiationMode::Never;
            }),
            (&[], "source=/c", |o| o.shared_dir = Some("/c".to_owned())),
            (&["--modcaps=+kill"], "modcaps=+sys_admin:-chown", |o| {
                o.modcaps = Some("+sys_admin:-chown".to_owned());
            }),
            (&[], "xattrmap=:map::user.virtiofs.:", |o| {
                o.xattrmap = XattrMap::try_from(":map::user.virtiofs.:").ok();
            }),
            (&["--cache=never"], "cache=auto", |o| {
                o.cache = CachePolicy::Auto;
            }),
            (&[], "cache=always", |o| o.cache = CachePolicy::Always),
            (&[], "cache=metadata", |o| o.cache = CachePolicy::Metadata),
            (&[], "cache=none", |o| o.cache = CachePolicy::Never),
            (&[], "loglevel=debug", |o| o.log_level = LevelFilter::Debug),
            (&["--log-level=off"], "loglevel=info", |o| {
                o.log_level = LevelFilter::Info;
            }),
            (&[], "loglevel=warn", |o| o.log_level = LevelFilter::Warn),
            (&[], "loglevel=err", |o| o.log_level = LevelFilter::Error),
            (&["--sandbox=none"], "sandbox=namespace", |o| {
                o.sandbox = SandboxMode::Namespace;
            }),
            (&[], "sandbox=chroot", |o| o.sandbox = SandboxMode::Chroot),
            // The last word counts, and each of them.
            (&[], "cache=always,xattr,cache=none", |o| {
                o.xattr = true;
                o.cache = CachePolicy::Never;
            }),
            (&["-o", "xattr,cache=always"], "no_xattr", |o| {
                o.compat_options = None;
                o.cache = CachePolicy::Always;
            }),
        ];
        for (args, words, set) in rows {
            assert_sets(args, words, *set);
        }
        // Two that there is nothing to set for.
        for word in ["no_posix_lock", "no_flock"] {
            let plain = format!("{:?}", parsed(&[]));
            assert_eq!(format!("{:?}", with(&[], word).unwrap()), plain, "{word}");
        }
    }

    #[test]
    fn other_words_and_values_are_refused_by_name() {
        let values = [
            ("cache", "never"),
            ("cache", "AUTO"),
            ("cache", ""),
            ("loglevel", "error"),
            ("loglevel", "trace"),
            ("loglevel", "off"),
            ("sandbox", "none"),
            ("sandbox", ""),
            ("xattrmap", "nonsense"),
            ("xattrmap", ""),
        ];
        for (name, value) in values {
            let message = with(&[], &format!("{name}={value}")).unwrap_err();
            let want = format!("Invalid compat value '{value}' for '-o {name}'");
            assert!(message.contains(&want), "{message}");
        }
        for word in [
            "no_announce_submounts",
            "posix_lock",
            "flock",
            "no_no_xattr",
            "Xattr",
            "xattr=on",
            "cache",
            "source",
            "modcaps",
            "timeout=1",
            "cache=auto=always",
            "fuse",
            "",
        ] {
            let message = with(&[], &format!("xattr,{word}")).unwrap_err();
            // As it was written.
            let given = format!("Invalid compat argument '-o {word}'");
            assert!(message.contains(&given), "{message}");
        }
    }
}
