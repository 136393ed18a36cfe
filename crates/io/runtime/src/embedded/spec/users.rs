//! Who a process runs as: numbers and names, looked up in the image's `/etc/passwd` and `/etc/group`.

use super::super::{Inner, failed, lock};
use super::c_string;
use crate::types::{RuntimeError, SecurityContext};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::io::Read;
use std::sync::Arc;

/// A file of users longer than this is not believed.
const MAX_BYTES: u64 = 1 << 20;

struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// An image's users and groups.
#[derive(Default)]
pub(in crate::embedded) struct Users {
    users: Vec<User>,
    groups: Vec<Group>,
}

/// Who a process is to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    /// `/` for who is not in `/etc/passwd`.
    pub(super) home: String,
}

/// Read once per image: a new container's root holds nothing else.
pub(super) fn of_image(inner: &Inner, image: &images::Image) -> Result<Arc<Users>, RuntimeError> {
    if let Some(users) = lock(&inner.users).get(&image.id) {
        return Ok(users.clone());
    }
    let layers: Vec<_> = image.layers.iter().rev().map(c_string).collect();
    let root = shim::sys::image_root(&layers).map_err(|e| failed("the image's layers")(e.into()))?;
    let read = |path: &str| -> Result<String, RuntimeError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = match rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve) {
            Ok(file) => std::fs::File::from(file),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
            Err(e) => return Err(failed(path)(e.into())),
        };
        if !file.metadata().is_ok_and(|m| m.is_file()) {
            return Ok(String::new());
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed(path))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let users = Arc::new(Users::parse(&read("etc/passwd")?, &read("etc/group")?));
    lock(&inner.users).insert(image.id.clone(), users.clone());
    Ok(users)
}

impl Users {
    fn parse(passwd: &str, group: &str) -> Users {
        let users = passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.trim().to_owned();
            fields.next()?;
            let (uid, gid) = (fields.next()?.trim().parse().ok()?, fields.next()?.trim().parse().ok()?);
            let home = fields.nth(1).unwrap_or_default().to_owned();
            Some(User { name, uid, gid, home })
        });
        let groups = group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.trim().to_owned();
            fields.next()?;
            let gid = fields.next()?.trim().parse().ok()?;
            let members = fields.next().unwrap_or_default().split(',').map(|m| m.trim().to_owned());
            Some(Group { name, gid, members: members.filter(|m| !m.is_empty()).collect() })
        });
        Users { users: users.collect(), groups: groups.collect() }
    }

    /// As containerd: the container's user, else the image's; its group from `/etc/passwd`, else 0; then the groups.
    pub(super) fn resolve(&self, security: &SecurityContext, image_user: &str) -> Result<Identity, String> {
        let number = |id: i64, what: &str| u32::try_from(id).map_err(|_| format!("{what} {id} is out of range"));
        let wanted = match (security.run_as_user, security.run_as_username.as_str()) {
            (Some(uid), _) => uid.to_string(),
            (None, "") => image_user.to_owned(),
            (None, name) => name.to_owned(),
        };
        let (user, group) = wanted.split_once(':').map_or((wanted.as_str(), None), |(u, g)| (u, Some(g)));
        let (uid, mut gid, entry) = self.user(user)?;
        if let Some(group) = group.filter(|group| !group.is_empty()) {
            gid = self.group(group)?;
        }
        if let Some(group) = security.run_as_group {
            gid = number(group, "group")?;
        }
        let mut groups = vec![gid];
        let mut add = |gid: u32| {
            if !groups.contains(&gid) {
                groups.push(gid);
            }
        };
        if !security.strict_groups
            && let Some(entry) = entry
        {
            self.groups.iter().filter(|g| g.members.contains(&entry.name)).for_each(|g| add(g.gid));
        }
        for gid in &security.supplemental_groups {
            add(number(*gid, "group")?);
        }
        let home = entry.map(|entry| entry.home.clone()).filter(|home| !home.is_empty());
        Ok(Identity { uid, gid, groups, home: home.unwrap_or_else(|| "/".into()) })
    }

    fn user(&self, user: &str) -> Result<(u32, u32, Option<&User>), String> {
        if user.is_empty() {
            let root = self.users.iter().find(|u| u.uid == 0);
            return Ok((0, root.map_or(0, |u| u.gid), root));
        }
        let by_name = self.users.iter().find(|u| u.name == user);
        let found = by_name.or_else(|| user.parse().ok().and_then(|uid: u32| self.users.iter().find(|u| u.uid == uid)));
        match (found, user.parse::<u32>()) {
            (Some(entry), _) => Ok((entry.uid, entry.gid, Some(entry))),
            (None, Ok(uid)) => Ok((uid, 0, None)),
            (None, Err(_)) => Err(format!("unable to find user {user}: no matching entries in passwd file")),
        }
    }

    fn group(&self, group: &str) -> Result<u32, String> {
        let by_name = self.groups.iter().find(|g| g.name == group).map(|g| g.gid);
        by_name
            .or_else(|| group.parse().ok())
            .ok_or_else(|| format!("unable to find group {group}: no matching entries in group file"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn users_are_found_as_containerd_finds_them() {
        let users = Users::parse(
            "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/:\nother:x:1000:100::/:\nbroken\nx:y:z:1\n",
            "root:x:0:\nwheel:x:10:root,www\nwww:x:33:\nstaff:x:50:www, other\n",
        );
        let security =
            |user: Option<i64>, name: &str, group: Option<i64>, more: &[i64], strict: bool| SecurityContext {
                run_as_user: user,
                run_as_username: name.into(),
                run_as_group: group,
                supplemental_groups: more.to_vec(),
                strict_groups: strict,
                ..SecurityContext::default()
            };
        let cases = [
            (security(None, "", None, &[], false), "", (0, 0, vec![0, 10])),
            (security(None, "", None, &[], false), "www", (33, 33, vec![33, 10, 50])),
            (security(None, "", None, &[], false), "www:staff", (33, 50, vec![50, 10])),
            (security(None, "", None, &[], false), "1000", (1000, 100, vec![100, 50])),
            (security(None, "", None, &[], false), "4711:4712", (4711, 4712, vec![4712])),
            (security(Some(33), "", None, &[7], false), "other", (33, 33, vec![33, 10, 50, 7])),
            (security(Some(33), "", Some(5), &[5, 7], true), "", (33, 5, vec![5, 7])),
            (security(Some(99), "", None, &[], false), "", (99, 0, vec![0])),
            (security(None, "other", None, &[], false), "www", (1000, 100, vec![100, 50])),
        ];
        for (security, image, (uid, gid, groups)) in cases {
            let home = if uid == 0 { "/root" } else { "/" }.to_owned();
            let expected = Identity { uid, gid, groups, home };
            assert_eq!(users.resolve(&security, image).unwrap(), expected, "{security:?} {image}");
        }
        let error = users.resolve(&security(None, "", None, &[], false), "nobody").unwrap_err();
        assert_eq!(error, "unable to find user nobody: no matching entries in passwd file");
    }
}
