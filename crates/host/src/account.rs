//! The user database: `/etc/passwd` and `/etc/group`, and whatever else the C library is told to
//! ask (LDAP, systemd). Reading the files would miss the latter.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::HostError;

/// A user as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// Primary group.
    pub gid: u32,
}

/// The user with this number; `None` where the database has none.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn account(uid: u32) -> Result<Option<Account>, HostError> {
    let user = User::from_uid(Uid::from_raw(uid)).map_err(HostError::of("getpwuid_r"))?;
    Ok(user.map(|user| Account {
        name: user.name,
        gid: user.gid.as_raw(),
    }))
}

/// The name of the group with this number; `None` where the database has none.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn group_name(gid: u32) -> Result<Option<String>, HostError> {
    let group = Group::from_gid(Gid::from_raw(gid)).map_err(HostError::of("getgrgid_r"))?;
    Ok(group.map(|group| group.name))
}

/// The groups that a user would have after logging in now, `primary` among them.
///
/// # Errors
///
/// Where the database cannot be read, or the name holds a NUL byte.
pub fn groups_of(name: &str, primary: u32) -> Result<Vec<u32>, HostError> {
    let name = CString::new(name).map_err(|_| HostError::Name)?;
    let groups =
        getgrouplist(&name, Gid::from_raw(primary)).map_err(HostError::of("getgrouplist"))?;
    Ok(groups.into_iter().map(Gid::as_raw).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn root_is_found_by_number_with_its_group() {
        let root = account(0).unwrap().unwrap();
        assert_eq!((root.name.as_str(), root.gid), ("root", 0));
        assert_eq!(group_name(0).unwrap().as_deref(), Some("root"));
        assert!(groups_of("root", 0).unwrap().contains(&0));
    }

    #[test]
    fn numbers_without_an_entry_are_none_not_errors() {
        assert_eq!(account(4_000_000_001).unwrap(), None);
        assert_eq!(group_name(4_000_000_001).unwrap(), None);
    }

    #[test]
    fn a_user_that_is_unknown_has_the_primary_group_alone() {
        assert_eq!(groups_of("no such user", 12_345).unwrap(), [12_345]);
    }

    #[test]
    fn a_name_with_a_nul_byte_is_refused() {
        assert!(matches!(groups_of("a\0b", 1), Err(HostError::Name)));
    }
}
