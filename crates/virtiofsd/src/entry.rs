//! `vhost-user.json`: the program's entry for management software, which looks for such files in
//! `/usr/share/qemu/vhost-user`.

use std::fmt::Write;
use std::path::Path;

use crate::error::Error;

/// The file as a distribution installs it.
const INSTALLED: &str = include_str!("../vhost-user.json");
/// Where the program is then.
const PLACE: &str = "/usr/libexec/microvm-virtiofsd";

/// The file for the program where it is.
pub fn text() -> Result<String, Error> {
    let program = std::env::current_exe().map_err(Error::ProgramPath)?;
    of(&program)
}

fn of(program: &Path) -> Result<String, Error> {
    // JSON has no way to write it.
    let path = program.to_str().ok_or_else(|| {
        let reason = format!("{} is not UTF-8", program.display());
        Error::ProgramPath(std::io::Error::other(reason))
    })?;
    let mut escaped = String::new();
    for character in path.chars() {
        match character {
            '"' | '\\' => escaped.extend(['\\', character]),
            // Writing to a string does not fail.
            '\0'..='\u{1f}' => drop(write!(escaped, "\\u{:04x}", u32::from(character))),
            _ => escaped.push(character),
        }
    }
    Ok(INSTALLED.replace(PLACE, &escaped))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn the_file_names_the_program_wherever_it_is() {
        assert_eq!(INSTALLED.matches(PLACE).count(), 1);
        assert_eq!(of(Path::new(PLACE)).unwrap(), INSTALLED);
        let text = of(Path::new("/opt/a \"b\"/c\\d/\n/ü")).unwrap();
        assert!(
            text.contains(r#""binary": "/opt/a \"b\"/c\\d/\u000a/ü""#),
            "{text}"
        );
    }

    #[test]
    fn a_path_that_json_cannot_hold_is_refused() {
        let error = of(Path::new(OsStr::from_bytes(b"/opt/\xff"))).unwrap_err();
        assert!(error.to_string().ends_with("is not UTF-8"), "{error}");
    }
}
