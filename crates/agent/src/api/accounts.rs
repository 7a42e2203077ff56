//! Users and groups of the guest, by its own files.

use std::fs;

use super::answer::Refusal;

/// Whom a process runs as.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    /// The user's home folder, where the guest knows it.
    pub(crate) home: Option<String>,
}

impl Identity {
    /// By names or numbers. `None` is the agent's own: root.
    pub(crate) fn of(user: Option<&str>, group: Option<&str>) -> Result<Option<Self>, Refusal> {
        if user.is_none() && group.is_none() {
            return Ok(None);
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        Self::find(user, group, &passwd, &groups).map(Some)
    }

    fn find(
        user: Option<&str>,
        group: Option<&str>,
        passwd: &str,
        groups: &str,
    ) -> Result<Self, Refusal> {
        let user = user.unwrap_or("0");
        let account = passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.first() == Some(&user) || fields.get(2) == Some(&user));
        let (name, uid, own, home) = match account.as_deref() {
            Some([name, _, uid, gid, _, home, ..]) => {
                (Some(*name), uid.parse().ok(), gid.parse().ok(), Some(*home))
            }
            _ => (None, user.parse().ok(), Some(0), None),
        };
        let (Some(uid), Some(own)) = (uid, own) else {
            return Err(Refusal::failed(
                "no-user",
                format!("this guest has no user {user}"),
            ));
        };
        let gid = match group {
            None => own,
            Some(group) => group_id(group, groups).ok_or_else(|| {
                Refusal::failed("no-group", format!("this guest has no group {group}"))
            })?,
        };
        let mut all = vec![gid];
        if let Some(name) = name {
            all.extend(memberships(name, groups).filter(|other| *other != gid));
        }
        Ok(Self {
            uid,
            gid,
            groups: all,
            home: home.map(str::to_owned),
        })
    }
}

fn group_id(group: &str, groups: &str) -> Option<u32> {
    let line = groups
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&group));
    match line.as_deref() {
        Some([_, _, gid, ..]) => gid.parse().ok(),
        _ => group.parse().ok(),
    }
}

fn memberships(name: &str, groups: &str) -> impl Iterator<Item = u32> {
    groups.lines().filter_map(move |line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, gid, members] = fields.as_slice() else {
            return None;
        };
        members.split(',').find(|member| *member == name)?;
        gid.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000:Ann,,,:/home/ann:/bin/sh\n";
    const GROUP: &str =
        "root:x:0:\nann:x:1000:\naudio:x:29:bob,ann\nvideo:x:44:anna\nusers:x:100:\n";

    fn find(
        user: Option<&str>,
        group: Option<&str>,
    ) -> Option<(u32, u32, Vec<u32>, Option<String>)> {
        let identity = Identity::find(user, group, PASSWD, GROUP).ok()?;
        Some((identity.uid, identity.gid, identity.groups, identity.home))
    }

    #[test]
    fn a_user_brings_its_groups_and_its_home() {
        let ann = Some((1000, 1000, vec![1000, 29], Some("/home/ann".to_owned())));
        assert_eq!(find(Some("ann"), None), ann);
        assert_eq!(find(Some("1000"), None), ann);
    }

    #[test]
    fn a_group_may_be_named_alone_or_beside_the_user() {
        assert_eq!(find(None, Some("users")).unwrap().1, 100);
        assert_eq!(find(Some("ann"), Some("audio")).unwrap().2, vec![29]);
        assert_eq!(find(Some("ann"), Some("4711")).unwrap().1, 4711);
    }

    #[test]
    fn numbers_need_no_account_and_names_do() {
        assert_eq!(find(Some("4242"), None), Some((4242, 0, vec![0], None)));
        assert_eq!(find(Some("eve"), None), None);
        assert_eq!(find(Some("ann"), Some("nobody")), None);
    }
}
