//! The instance that owns the machine's usual places: it takes them, and gives them back.

use crate::cluster::{MINKE, Trace, image, said, succeed};
use std::path::Path;
use std::process::Command;

const PLACES: [&str; 5] =
    ["/var/lib/minke", "/var/lib/kubelet", "/var/log/pods", "/var/log/containers", "/etc/crictl.yaml"];

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: usual}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: "busybox:1.37", command: [sh, -c, "echo collected; exec sleep 1000"]}]
"#;

fn free() -> bool {
    PLACES.iter().all(|place| !Path::new(place).exists())
}

#[test]
fn the_default_instance_is_where_others_look_for_it() {
    assert!(free(), "this test needs a machine without minke and kubelet: remove {PLACES:?} if they are nobody's");
    let home = tempfile::tempdir().unwrap();
    let minke = |arguments: &[&str]| {
        let mut command = Command::new(MINKE);
        command.args(arguments).env("HOME", home.path());
        for variable in ["SUDO_UID", "SUDO_GID", "MINKE_DATA_DIR"] {
            command.env_remove(variable);
        }
        command
    };
    std::fs::create_dir("/var/lib/kubelet").unwrap();
    std::fs::write("/var/lib/kubelet/theirs", "").unwrap();
    let refused = minke(&["up"]).output().unwrap();
    std::fs::remove_file("/var/lib/kubelet/theirs").unwrap();
    std::fs::remove_dir("/var/lib/kubelet").unwrap();
    assert!(said(&refused).contains("not minke's (theirs); choose --kubelet-root"), "{}", said(&refused));
    assert!(free(), "something was begun");

    succeed(&mut minke(&["up"]));
    let trace = Trace::of(Path::new("/var/lib/minke"));
    succeed(minke(&["image", "import"]).arg(image("busybox")));
    let manifest = home.path().join("pod.yaml");
    std::fs::write(&manifest, POD).unwrap();
    // Through `~/.kube/config`, as anybody's kubectl.
    let kubectl = |arguments: &[&str]| {
        let mut command = Command::new(std::env::var_os("MINKE_TEST_KUBECTL").unwrap());
        succeed(command.args(arguments).env("HOME", home.path()).env_remove("KUBECONFIG"))
    };
    assert_eq!(kubectl(&["config", "current-context"]), "minke\n");
    kubectl(&["apply", "-f", manifest.to_str().unwrap()]);
    kubectl(&["wait", "pod/usual", "--for=condition=Ready", "--timeout=60s"]);
    let uid = kubectl(&["get", "pod", "usual", "-o", "jsonpath={.metadata.uid}"]);
    assert!(Path::new("/var/lib/kubelet/pods").join(&uid).join("etc-hosts").exists());
    let link = std::fs::read_dir("/var/log/containers").unwrap().flatten().map(|entry| entry.path());
    let links: Vec<_> = link.filter(|path| path.to_string_lossy().contains("usual_default_c-")).collect();
    assert_eq!(links.len(), 1, "{links:?}");
    let target = std::fs::read_link(&links[0]).unwrap();
    assert_eq!(target, Path::new(&format!("/var/log/pods/default_usual_{uid}/c/0.log")));
    assert_eq!(kubectl(&["logs", "usual"]), "collected\n");
    kubectl(&["delete", "pod", "usual"]);
    let crictl = std::fs::read_to_string("/etc/crictl.yaml").unwrap();
    assert!(crictl.contains("runtime-endpoint: unix:///var/lib/minke/run/cri.sock\n"), "{crictl}");

    succeed(&mut minke(&["down", "--purge"]));
    assert_eq!(trace.left(), Vec::<String>::new(), "left behind");
    assert!(free(), "a place is left");
    assert!(!home.path().join(".kube/config").exists());
}
