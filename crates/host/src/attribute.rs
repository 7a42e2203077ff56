//! Extended attributes, which is where access control lists are kept.

use std::path::Path;

use rustix::fs::getxattr;
use rustix::io::Errno;

use crate::HostError;

/// The kernel's limit for the value of an attribute (`XATTR_SIZE_MAX`).
const LONGEST: usize = 65_536;

/// The value of an extended attribute of a file; `None` where the file, or its file system, has
/// none of that name.
///
/// # Errors
///
/// Where the file cannot be looked at.
pub fn extended_attribute(path: &Path, name: &str) -> Result<Option<Vec<u8>>, HostError> {
    let mut value = vec![0; LONGEST];
    match getxattr(path, name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(HostError::of("getxattr")(error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_file_without_the_attribute_has_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let list = extended_attribute(file.path(), "system.posix_acl_access").unwrap();
        assert_eq!(list, None);
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error() {
        let missing = Path::new("/no/such/file");
        let error = extended_attribute(missing, "system.posix_acl_access").unwrap_err();
        assert!(matches!(
            error,
            HostError::Refused {
                call: "getxattr",
                ..
            }
        ));
    }
}
