//! Values that only this command line knows.

use std::str::FromStr;

use virtiofsd::passthrough::InodeFileHandlesMode;

use crate::backend::TAG_MAX;
use crate::seccomp::SeccompAction;

/// `--inode-file-handles` as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileHandles {
    Never,
    /// The old name of `prefer`.
    Fallback,
    Prefer,
    Mandatory,
}

impl FromStr for FileHandles {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "never" => Self::Never,
            "fallback" => Self::Fallback,
            "prefer" => Self::Prefer,
            "mandatory" => Self::Mandatory,
            _ => return Err("invalid inode file handles mode"),
        })
    }
}

impl From<FileHandles> for InodeFileHandlesMode {
    fn from(value: FileHandles) -> Self {
        match value {
            FileHandles::Never => Self::Never,
            FileHandles::Fallback | FileHandles::Prefer => Self::Prefer,
            FileHandles::Mandatory => Self::Mandatory,
        }
    }
}

impl FromStr for SeccompAction {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "none" => Self::None,
            "kill" => Self::Kill,
            "log" => Self::Log,
            "trap" => Self::Trap,
            _ => return Err("Matching variant not found"),
        })
    }
}

/// A device's tag.
pub fn tag(text: &str) -> Result<String, String> {
    if (1..=TAG_MAX).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "The tag may not be empty or longer than {TAG_MAX} bytes (encoded as UTF-8)."
    ))
}
