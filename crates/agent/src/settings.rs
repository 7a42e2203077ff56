//! The host's settings for the agent, which travel on the kernel's command line.

use std::fs;

use crate::console::note;
use crate::shares::{Root, Share};

const SOURCE: &str = "/proc/cmdline";
const HOST_NAME: &str = "microvm.hostname";
const PORT: &str = "microvm.port";
const MOUNT: &str = "microvm.mount";
const ROOT: &str = "microvm.root";

/// What the host may set.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `microvm.hostname=`, "microvm" by default.
    pub(crate) hostname: String,
    /// `microvm.port=`, the vsock port of the command channel on the host; 1024 by default.
    pub(crate) port: u32,
    /// `microvm.root=`, a share that becomes the root folder; none by default.
    pub(crate) root: Option<Root>,
    /// `microvm.mount=`, once for each share to mount, in this order.
    pub(crate) shares: Vec<Share>,
    /// Whether one of the two above makes no sense: the guest must not run without it.
    pub(crate) share_is_wrong: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hostname: "microvm".to_owned(),
            port: 1024,
            root: None,
            shares: Vec::new(),
            share_is_wrong: false,
        }
    }
}

impl Settings {
    /// Reads this guest's settings. What is unreadable or makes no sense is noted, and the default holds; for a share
    /// there is none.
    pub(crate) fn read() -> Self {
        match fs::read(SOURCE) {
            Ok(line) => Self::parse(&String::from_utf8_lossy(&line)),
            Err(error) => {
                note(format_args!("cannot read {SOURCE}: {error}"));
                Self::default()
            }
        }
    }

    /// The last of several settings of one name counts, as it does for the kernel's own parameters.
    fn parse(command_line: &str) -> Self {
        let mut settings = Self::default();
        for (name, value) in command_line
            .split_ascii_whitespace()
            .filter_map(|word| word.split_once('='))
        {
            match name {
                HOST_NAME if value.is_empty() || value.len() > 64 => {
                    note(format_args!(
                        "{HOST_NAME} needs 1 to 64 bytes, got {}",
                        value.len()
                    ));
                }
                HOST_NAME => value.clone_into(&mut settings.hostname),
                PORT => match value.parse() {
                    Ok(port) => settings.port = port,
                    Err(_) => note(format_args!("{PORT} is no port number: {value}")),
                },
                MOUNT => match Share::parse(value) {
                    Some(share) => settings.shares.push(share),
                    None => settings.refuse_share(MOUNT, value),
                },
                ROOT => match Root::parse(value) {
                    Some(root) => settings.root = Some(root),
                    None => settings.refuse_share(ROOT, value),
                },
                _ => {}
            }
        }
        settings
    }

    fn refuse_share(&mut self, name: &str, value: &str) {
        note(format_args!(
            "cannot mount {name}={value}: it makes no sense"
        ));
        self.share_is_wrong = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_defaults() {
        let settings = Settings::parse("console=ttyS0 quiet panic=-1\n");
        assert_eq!(
            settings,
            Settings {
                hostname: "microvm".into(),
                port: 1024,
                ..Settings::default()
            }
        );
    }

    #[test]
    fn the_last_setting_of_a_name_counts() {
        let settings = Settings::parse(
            "microvm.port=7 a microvm.hostname=one microvm.hostname=two microvm.port=8",
        );
        assert_eq!(
            settings,
            Settings {
                hostname: "two".into(),
                port: 8,
                ..Settings::default()
            }
        );
    }

    #[test]
    fn shares_keep_their_order() {
        let settings =
            Settings::parse("microvm.mount=a,ro,/a microvm.root=r,rw microvm.mount=b,rw,/a/b");
        let shares = ["a,ro,/a", "b,rw,/a/b"].map(|value| Share::parse(value).unwrap());
        assert_eq!(settings.shares, shares);
        assert_eq!(settings.root, Root::parse("r,rw"));
    }

    #[test]
    fn settings_that_make_no_sense_are_left_out() {
        let long = "x".repeat(65);
        for line in [
            "microvm.port=-1",
            "microvm.port=4294967296",
            "microvm.hostname=",
            &format!("microvm.hostname={long}"),
        ] {
            assert_eq!(Settings::parse(line), Settings::default(), "{line}");
        }
    }

    #[test]
    fn a_share_that_makes_no_sense_is_not_left_out() {
        for line in ["microvm.mount=a", "microvm.root=a,b"] {
            assert!(Settings::parse(line).share_is_wrong, "{line}");
        }
        assert!(!Settings::parse("microvm.mount=a,ro,/a").share_is_wrong);
    }
}
