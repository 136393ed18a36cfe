//! Which controller acts on the objects of a resource; a write to one whose controller is missing is answered with a
//! warning.

const NEEDED: &[(&str, &str, &str)] = &[
    ("apps", "deployments", "deployment"),
    ("apps", "replicasets", "replicaset"),
    ("apps", "statefulsets", "statefulset"),
    ("apps", "daemonsets", "daemonset"),
    ("", "replicationcontrollers", "replicationcontroller"),
    ("batch", "jobs", "job"),
    ("batch", "cronjobs", "cronjob"),
    ("autoscaling", "horizontalpodautoscalers", "horizontal-pod-autoscaler"),
    ("", "persistentvolumeclaims", "persistentvolume-binder"),
    ("", "persistentvolumes", "persistentvolume-binder"),
    ("", "services", "endpointslice"),
    ("", "resourcequotas", "resourcequota"),
    ("policy", "poddisruptionbudgets", "disruption"),
    ("networking.k8s.io", "networkpolicies", "network policies"),
    ("networking.k8s.io", "ingresses", "ingress"),
    ("apiextensions.k8s.io", "customresourcedefinitions", "custom resources"),
    ("apiregistration.k8s.io", "apiservices", "API aggregation"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", "admission webhooks"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", "admission webhooks"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", "admission policies"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies", "admission policies"),
    ("certificates.k8s.io", "certificatesigningrequests", "certificate signing"),
    ("resource.k8s.io", "resourceclaims", "resource claims"),
    ("storagemigration.k8s.io", "storageversionmigrations", "storage-version-migrator"),
];

/// The controller that a resource needs, as upstream calls it.
pub(crate) fn needed(group: &str, plural: &str) -> Option<&'static str> {
    NEEDED.iter().find(|(g, p, _)| *g == group && *p == plural).map(|(_, _, controller)| *controller)
}

/// Every controller that some resource needs.
pub fn all() -> Vec<&'static str> {
    let mut names: Vec<_> = NEEDED.iter().map(|(_, _, controller)| *controller).collect();
    names.sort_unstable();
    names.dedup();
    names
}
