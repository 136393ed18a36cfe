//! Adds a cluster's context to somebody's kubeconfig and takes it out again, as kind does: everything else in the file
//! stays, and so do its owner and mode.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

const LISTS: [&str; 3] = ["clusters", "contexts", "users"];

/// What was merged where, so that it can be taken out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Merged {
    pub path: PathBuf,
    pub context: String,
    /// The current context before ours.
    pub previous: String,
    /// There was no such file.
    pub made: bool,
}

/// `~/.kube/config` of whoever called, and whose it is to be: under sudo the calling user's.
pub fn of_caller() -> Option<(PathBuf, Option<(u32, u32)>)> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    match (number("SUDO_UID"), number("SUDO_GID")) {
        (Some(uid), Some(gid)) => {
            let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
            Some((home_of(&passwd, uid)?.join(".kube/config"), Some((uid, gid))))
        }
        _ => Some((PathBuf::from(std::env::var_os("HOME")?).join(".kube/config"), None)),
    }
}

fn home_of(passwd: &str, uid: u32) -> Option<PathBuf> {
    let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(uid.to_string().as_str()))?;
    line.split(':').nth(5).filter(|home| !home.is_empty()).map(PathBuf::from)
}

/// Whether `path` can be merged into.
///
/// # Errors
/// A file that cannot be read or is no kubeconfig.
pub fn check(path: &Path) -> Result<()> {
    read(path).map(drop)
}

/// Puts the one context of `ours` (the text of a kubeconfig) into `path` and makes it current. A new file and its
/// directory belong to `owner`.
///
/// # Errors
/// As [`check`]; or a file that cannot be written.
pub fn merge(path: &Path, ours: &str, owner: Option<(u32, u32)>) -> Result<Merged> {
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let ours = parse(ours).context("our own kubeconfig is broken")?;
    let context = ours["current-context"].as_str().unwrap_or_default().to_owned();
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::chown(parent, Some(uid), Some(gid))?;
        }
    }
    let _lock = Lock::take(path)?;
    let (before, made) = match read(path)? {
        Some(before) => (before, false),
        None => (json!({"apiVersion": "v1", "kind": "Config"}), true),
    };
    let previous = before["current-context"].as_str().unwrap_or_default().to_owned();
    let after = with(before, &ours);
    write(path, &after, owner)?;
    Ok(Merged { path: path.clone(), context, previous, made })
}

/// Takes out what [`merge`] put in. A file that is gone, or that no longer holds it, is fine.
///
/// # Errors
/// As [`merge`].
pub fn remove(merged: &Merged) -> Result<()> {
    if !merged.path.exists() {
        return Ok(());
    }
    let _lock = Lock::take(&merged.path)?;
    let Some(before) = read(&merged.path)? else { return Ok(()) };
    let after = without(before, &merged.context, &merged.previous);
    if merged.made && LISTS.iter().all(|list| names(&after, list).next().is_none()) {
        return std::fs::remove_file(&merged.path).with_context(|| cannot("remove", &merged.path));
    }
    write(&merged.path, &after, None)
}

fn cannot(what: &str, path: &Path) -> String {
    format!("cannot {what} {}", path.display())
}

fn names<'a>(config: &'a Value, list: &str) -> impl Iterator<Item = &'a str> {
    config[list].as_array().into_iter().flatten().filter_map(|entry| entry["name"].as_str())
}

fn with(mut config: Value, ours: &Value) -> Value {
    for list in LISTS {
        for entry in ours[list].as_array().into_iter().flatten() {
            if !config[list].is_array() {
                config[list] = json!([]);
            }
            if let Some(entries) = config[list].as_array_mut() {
                entries.retain(|old| old["name"] != entry["name"]);
                entries.push(entry.clone());
            }
        }
    }
    config["current-context"] = ours["current-context"].clone();
    config
}

fn without(mut config: Value, name: &str, previous: &str) -> Value {
    for list in LISTS {
        if let Some(entries) = config[list].as_array_mut() {
            entries.retain(|entry| entry["name"] != *name);
        }
    }
    if config["current-context"] == *name {
        let there = names(&config, "contexts").any(|context| context == previous);
        config["current-context"] = json!(if there { previous } else { "" });
    }
    config
}

fn parse(text: &str) -> Result<Value> {
    let options = serde_saphyr::options! {};
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| anyhow::anyhow!("{error}"))?;
    let config = documents.into_iter().next().unwrap_or(Value::Null);
    match config {
        Value::Null => Ok(Value::Object(Map::new())),
        Value::Object(_) if LISTS.iter().all(|list| config[*list].is_null() || config[*list].is_array()) => Ok(config),
        _ => bail!("not a kubeconfig"),
    }
}

/// `None` without a file.
fn read(path: &Path) -> Result<Option<Value>> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let wrong = || {
                format!(
                    "{} is no kubeconfig and was left alone; mend it, or name another by --kubeconfig",
                    path.display()
                )
            };
            parse(&text).map(Some).with_context(wrong)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| cannot("read", path)),
    }
}

/// Replaces the whole file at once.
fn write(path: &Path, config: &Value, owner: Option<(u32, u32)>) -> Result<()> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let text = serde_saphyr::to_string_with_options(config, options)?;
    let (owner, mode) = match std::fs::metadata(path) {
        Ok(old) => (Some((old.uid(), old.gid())), old.mode() & 0o777),
        Err(_) => (owner, 0o600),
    };
    let beside = path.with_extension("minke-new");
    let fill = || {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        if let Some((uid, gid)) = owner {
            fchown(&file, Some(uid), Some(gid))?;
        }
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    fill().with_context(|| cannot("write", path))
}

/// What kubectl itself holds while it changes a kubeconfig (client-go `clientcmd.WriteToFile`).
struct Lock(PathBuf);

impl Lock {
    fn take(path: &Path) -> Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock = PathBuf::from(name);
        match File::options().write(true).create_new(true).mode(0o600).open(&lock) {
            Ok(_) => Ok(Self(lock)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!("somebody else changes {} now; if not, remove {}", path.display(), lock.display())
            }
            Err(error) => Err(error).with_context(|| cannot("write", &lock)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const OURS: &str = "{apiVersion: v1, kind: Config, current-context: minke, clusters: [{name: minke, cluster: {server: x}}], contexts: [{name: minke, context: {cluster: minke, user: minke}}], users: [{name: minke, user: {}}]}";
    const THEIRS: &str = "apiVersion: v1\nkind: Config\npreferences: {colors: true}\ncurrent-context: work\nclusters:\n- name: work\n  cluster: {server: 'https://work'}\ncontexts:\n- name: work\n  context: {cluster: work, user: me, namespace: '123'}\nusers:\n- name: me\n  user: {token: 'yes'}\n";

    fn in_scratch(content: Option<&str>) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".kube/config");
        if let Some(content) = content {
            std::fs::create_dir(path.parent().unwrap()).unwrap();
            std::fs::write(&path, content).unwrap();
        }
        (directory, path)
    }

    #[test]
    fn what_was_there_is_there_again() {
        let (_directory, path) = in_scratch(Some(THEIRS));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let merged = merge(&path, OURS, None).unwrap();
        let now = read(&path).unwrap().unwrap();
        assert_eq!(now["current-context"], "minke");
        assert_eq!(names(&now, "contexts").collect::<Vec<_>>(), ["work", "minke"]);
        // A second time changes nothing.
        merge(&path, OURS, None).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), now);
        remove(&merged).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), parse(THEIRS).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a lock or a draft is left");
    }

    #[test]
    fn a_context_chosen_meanwhile_stays() {
        let (_directory, path) = in_scratch(Some(THEIRS));
        let merged = merge(&path, OURS, None).unwrap();
        let mut config = read(&path).unwrap().unwrap();
        config["current-context"] = json!("work");
        write(&path, &config, None).unwrap();
        remove(&merged).unwrap();
        assert_eq!(read(&path).unwrap().unwrap()["current-context"], "work");
    }

    #[test]
    fn a_file_of_our_making_goes() {
        let (_directory, path) = in_scratch(None);
        let merged = merge(&path, OURS, None).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        remove(&merged).unwrap();
        assert!(!path.exists());
        remove(&merged).unwrap();
    }

    #[test]
    fn a_broken_file_is_left_alone() {
        for broken in ["{{{", "- a list", "clusters: no list"] {
            let (_directory, path) = in_scratch(Some(broken));
            let error = merge(&path, OURS, None).unwrap_err().to_string();
            assert!(error.contains("is no kubeconfig and was left alone"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), broken);
        }
    }

    #[test]
    fn the_home_of_the_calling_user() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\njane:x:1000:1000::/home/jane:/bin/sh\n";
        assert_eq!(home_of(passwd, 1000), Some(PathBuf::from("/home/jane")));
        assert_eq!(home_of(passwd, 1), None);
    }
}
