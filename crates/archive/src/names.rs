//! Names in archives: which are taken, and what the source of a copy is called there.

use crate::Error;

/// The longest path in an archive, in bytes. A path that a program can use at once has at most 4096.
const MAX_NAME: usize = 16 * 1024;
const MAX_DEPTH: usize = 1024;

/// The parts of a name, without empty ones and dots. A name that is a place elsewhere is refused.
pub(crate) fn components(name: &[u8]) -> Result<Vec<&[u8]>, Error> {
    if name.len() > MAX_NAME {
        let start = name.get(..80).unwrap_or_default();
        return Err(Error::refused(start, "its name is too long"));
    }
    if name.starts_with(b"/") {
        return Err(Error::refused(name, "its name is absolute"));
    }
    if name.contains(&0) {
        return Err(Error::refused(name, "its name holds a NUL byte"));
    }
    let parts: Vec<&[u8]> = name
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    if parts.contains(&&b".."[..]) {
        return Err(Error::refused(name, "its name leads upwards"));
    }
    if parts.len() > MAX_DEPTH {
        return Err(Error::refused(name, "it lies too deep"));
    }
    Ok(parts)
}

/// What the thing at `path` is called in an archive: its last name. `None` where it has none (`/`, `.`, `folder/.`,
/// `..`): then the contents of the folder are copied, without itself.
#[must_use]
pub fn source_name(path: &[u8]) -> Option<&[u8]> {
    let end = path.iter().rposition(|byte| *byte != b'/')?;
    let path = path.get(..=end)?;
    let last = path.rsplit(|byte| *byte == b'/').next()?;
    (!matches!(last, b"" | b"." | b"..")).then_some(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_lose_dots_and_empty_parts() {
        assert_eq!(components(b"./a//b/./c/").unwrap(), [b"a", b"b", b"c"]);
        assert_eq!(components(b"./").unwrap(), Vec::<&[u8]>::new());
        assert_eq!(components(b"...").unwrap(), [b"..."]);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in [
            &b"/etc/passwd"[..],
            b"..",
            b"a/../../b",
            b"../x",
            b"a/..",
            b"a\0b",
            &[b'x'; 20_000],
            &b"x/".repeat(2000),
        ] {
            assert!(components(name).is_err());
        }
    }

    #[test]
    fn a_source_is_called_by_its_last_name() {
        assert_eq!(source_name(b"/a/b"), Some(&b"b"[..]));
        assert_eq!(source_name(b"a//"), Some(&b"a"[..]));
        for path in [&b"/"[..], b"", b".", b"..", b"/a/.", b"a/..", b"//", b"./"] {
            assert_eq!(source_name(path), None, "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn no_name_that_is_taken_leads_upwards(name in any::<Vec<u8>>()) {
            for part in components(&name).unwrap_or_default() {
                prop_assert!(!part.is_empty() && part != b"." && part != b".." && !part.contains(&b'/') && !part.contains(&0));
            }
        }
    }
}
