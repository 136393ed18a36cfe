//! Volume sources with plain fields: hostPath, nfs, csi, and the many of old that 1.37 still accepts.

use super::{descending, no_backsteps};
use crate::names;
use crate::tree::Tree;
use schema::field::{ErrorList, Path, invalid, not_supported, required, too_long};
use serde_json::Value;

fn need(found: &mut ErrorList, source: &Value, path: &Path, fields: &[&str]) {
    let empty = |f: &&&str| source.text(f).is_empty() && source.list(f).is_empty();
    found.extend(fields.iter().filter(empty).map(|f| required(&path.child(f), "")));
}

fn need_secret_name(found: &mut ErrorList, source: &Value, path: &Path) {
    if source.field("secretRef").is_some_and(|s| s.text("name").is_empty()) {
        found.push(required(&path.child("secretRef").child("name"), ""));
    }
}

fn partition(found: &mut ErrorList, source: &Value, path: &Path) {
    let partition = source.int("partition");
    if !(0..=255).contains(&partition) {
        found.push(invalid(&path.child("partition"), partition, &names::in_range(1, 255)));
    }
}

pub(super) fn source(kind: &str, source: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    match kind {
        "hostPath" => host_path(&mut found, source, path),
        "gitRepo" => {
            need(&mut found, source, path, &["repository"]);
            found.extend(descending(source.text("directory"), &path.child("directory")));
        }
        "gcePersistentDisk" => {
            need(&mut found, source, path, &["pdName"]);
            partition(&mut found, source, path);
        }
        "awsElasticBlockStore" => {
            need(&mut found, source, path, &["volumeID"]);
            partition(&mut found, source, path);
        }
        "nfs" => {
            need(&mut found, source, path, &["server", "path"]);
            if !names::is_absolute(source.text("path")) {
                found.push(invalid(&path.child("path"), source.text("path"), "must be an absolute path"));
            }
        }
        "iscsi" => iscsi(&mut found, source, path),
        "glusterfs" => need(&mut found, source, path, &["endpoints", "path"]),
        "flocker" => flocker(&mut found, source, path),
        "persistentVolumeClaim" => need(&mut found, source, path, &["claimName"]),
        "rbd" => need(&mut found, source, path, &["monitors", "image"]),
        "cinder" => {
            need(&mut found, source, path, &["volumeID"]);
            need_secret_name(&mut found, source, path);
        }
        "cephfs" => need(&mut found, source, path, &["monitors"]),
        "quobyte" => quobyte(&mut found, source, path),
        "fc" => fibre_channel(&mut found, source, path),
        "flexVolume" => flex(&mut found, source, path),
        "azureFile" => need(&mut found, source, path, &["secretName", "shareName"]),
        "vsphereVolume" => need(&mut found, source, path, &["volumePath"]),
        "photonPersistentDisk" => need(&mut found, source, path, &["pdID"]),
        "portworxVolume" => need(&mut found, source, path, &["volumeID"]),
        "azureDisk" => azure_disk(&mut found, source, path),
        "storageos" => {
            need(&mut found, source, path, &["volumeName"]);
            for field in ["volumeName", "volumeNamespace"] {
                let name = source.text(field);
                if !name.is_empty() {
                    found.extend(names::errors(&path.child(field), name, names::dns_label(name)));
                }
            }
            need_secret_name(&mut found, source, path);
        }
        "scaleIO" => need(&mut found, source, path, &["gateway", "system", "volumeName"]),
        "csi" => csi(&mut found, source, path),
        _ => {}
    }
    found
}

fn host_path(found: &mut ErrorList, source: &Value, path: &Path) {
    if source.text("path").is_empty() {
        return found.push(required(&path.child("path"), ""));
    }
    found.extend(no_backsteps(source.text("path"), &path.child("path")));
    let types = ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    if !types.contains(&source.text("type")) {
        found.push(not_supported(&path.child("type"), source.text("type"), &types));
    }
}

/// Names of iSCSI initiators and targets, by their three schemes.
fn iscsi_name(name: &str) -> Option<&'static str> {
    let alnum = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let tail = |text: &str| text.chars().skip(1).collect::<String>();
    let valid = match name.get(..3) {
        Some("iqn") => is_iqn(name),
        Some("eui") => alnum(&tail(&name[3..]), 16),
        Some("naa") => alnum(&tail(&name[3..]), 32),
        _ => return Some("must be valid format starting with iqn, eui, or naa"),
    };
    if valid { None } else { Some("must be valid format") }
}

/// `iqn.YYYY-MM.reversed.domain:unique`
fn is_iqn(name: &str) -> bool {
    let Some((head, unique)) = name.split_once(':') else { return false };
    let Some(rest) = head.strip_prefix("iqn.") else { return false };
    let Some((date, domain)) = rest.split_once('.') else { return false };
    let date_ok =
        matches!(date.as_bytes(), [a, b, c, d, b'-', e, f] if [a, b, c, d, e, f].iter().all(|x| x.is_ascii_digit()));
    date_ok
        && !domain.is_empty()
        && domain.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
        && !unique.is_empty()
        && !unique.contains([',', ';', '*', '&', '$', '|', '^'])
        && !unique.contains(char::is_whitespace)
}

fn iscsi(found: &mut ErrorList, source: &Value, path: &Path) {
    need(found, source, path, &["targetPortal", "iqn"]);
    let name = source.text("iqn");
    if let Some(text) = iscsi_name(name).filter(|_| !name.is_empty()) {
        found.push(invalid(&path.child("iqn"), name, text));
    }
    let lun = source.int("lun");
    if !(0..=255).contains(&lun) {
        found.push(invalid(&path.child("lun"), lun, &names::in_range(0, 255)));
    }
    if (source.flag("chapAuthDiscovery") || source.flag("chapAuthSession")) && !source.has("secretRef") {
        found.push(required(&path.child("secretRef"), ""));
    }
    if let Some(name) = source.text_opt("initiatorName")
        && let Some(text) = iscsi_name(name)
    {
        found.push(invalid(&path.child("initiatorname"), name, text));
    }
}

fn flocker(found: &mut ErrorList, source: &Value, path: &Path) {
    let (name, uuid) = (source.text("datasetName"), source.text("datasetUUID"));
    if name.is_empty() && uuid.is_empty() {
        found.push(required(path, "one of datasetName and datasetUUID is required"));
    }
    if !name.is_empty() && !uuid.is_empty() {
        found.push(invalid(path, "resource", "datasetName and datasetUUID can not be specified simultaneously"));
    }
    if name.contains('/') {
        found.push(invalid(&path.child("datasetName"), name, "must not contain '/'"));
    }
}

fn quobyte(found: &mut ErrorList, source: &Value, path: &Path) {
    let text = "must be a host:port pair or multiple pairs separated by commas";
    let registry = source.text("registry");
    let pair = |pair: &&str| {
        let (host, _) = pair.rsplit_once(':').unwrap_or(("[", ""));
        host.starts_with('[') == host.ends_with(']') && (host.starts_with('[') || !host.contains(':'))
    };
    if registry.is_empty() {
        found.push(required(&path.child("registry"), text));
    } else if source.text("tenant").len() >= 65 {
        let text = "must be a UUID and may not exceed a length of 64 characters";
        found.push(required(&path.child("tenant"), text));
    } else {
        let bad = registry.split(',').filter(|p| !pair(p));
        found.extend(bad.map(|_| invalid(&path.child("registry"), registry, text)));
    }
    need(found, source, path, &["volume"]);
}

fn fibre_channel(found: &mut ErrorList, source: &Value, path: &Path) {
    let (wwns, wwids) = (source.list("targetWWNs"), source.list("wwids"));
    let at = path.child("targetWWNs");
    if wwns.is_empty() && wwids.is_empty() {
        found.push(required(&at, "must specify either targetWWNs or wwids, but not both"));
    }
    if !wwns.is_empty() && !wwids.is_empty() {
        found.push(invalid(&at, wwns.to_vec(), "targetWWNs and wwids can not be specified simultaneously"));
    }
    if !wwns.is_empty() {
        match source.int_opt("lun") {
            None => found.push(required(&path.child("lun"), "lun is required if targetWWNs is specified")),
            Some(lun) if !(0..=255).contains(&lun) => {
                found.push(invalid(&path.child("lun"), lun, &names::in_range(0, 255)));
            }
            Some(_) => {}
        }
    }
}

fn flex(found: &mut ErrorList, source: &Value, path: &Path) {
    need(found, source, path, &["driver"]);
    for (key, _) in source.pairs("options") {
        let namespace = format!(".{}", key.split('/').next().unwrap_or_default().to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            let text = "kubernetes.io and k8s.io namespaces are reserved";
            found.push(invalid(&path.child("options").key(key), key, text));
        }
    }
}

fn azure_disk(found: &mut ErrorList, source: &Value, path: &Path) {
    need(found, source, path, &["diskName", "diskURI"]);
    let allowed = [("cachingMode", ["None", "ReadOnly", "ReadWrite"]), ("kind", ["Dedicated", "Managed", "Shared"])];
    for (field, allowed) in allowed {
        if let Some(value) = source.text_opt(field).filter(|v| !allowed.contains(v)) {
            found.push(not_supported(&path.child(field), value, &allowed));
        }
    }
    let uri = source.text("diskURI");
    let at = path.child("diskURI");
    match source.text_opt("kind") {
        Some("Managed") if !uri.starts_with("/subscriptions/") => {
            let form =
                "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
            found.push(not_supported(&at, uri, &[form]));
        }
        Some(kind) if kind != "Managed" && !uri.starts_with("https://") => {
            let form = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
            found.push(not_supported(&at, uri, &[form]));
        }
        _ => {}
    }
}

fn csi(found: &mut ErrorList, source: &Value, path: &Path) {
    let driver = source.text("driver");
    let at = path.child("driver");
    if driver.is_empty() {
        found.push(required(&at, ""));
    } else {
        if driver.len() > 63 {
            found.push(too_long(&at, 63));
        }
        found.extend(names::errors(&at, driver, names::dns_subdomain(&driver.to_lowercase())));
    }
    if let Some(secret) = source.field("nodePublishSecretRef") {
        match secret.text("name") {
            "" => found.push(required(&path.child("nodePublishSecretRef").child("name"), "")),
            name => found.extend(names::errors(&path.child("name"), name, names::dns_subdomain(name))),
        }
    }
}
