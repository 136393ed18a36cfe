//! Which rules belong to which kind.

pub mod admissionregistration;
pub mod apiextensions;
pub mod apiregistration;
pub mod autoscaling;
pub mod certificates;
mod columns;
pub mod coordination;
pub mod core;
pub mod discovery;
pub mod flowcontrol;
pub mod networking;
pub mod node;
pub mod policy;
pub mod rbac;
pub mod resource;
pub mod rows;
pub mod scheduling;
mod shared;
pub mod storage;
pub mod workloads;

use crate::rules::Rules;

/// The rules of a built-in kind; kinds without a file of their own are [`Rules::PLAIN`].
pub fn rules(group: &str, kind: &str) -> &'static Rules {
    match (group, kind) {
        ("", "ConfigMap") => &core::config_map::RULES,
        ("", "Endpoints") => &core::endpoints::RULES,
        ("", "Event") => &core::event::CORE,
        ("", "LimitRange") => &core::limit_range::RULES,
        ("", "Namespace") => &core::namespace::RULES,
        ("", "Node") => &core::node::RULES,
        ("", "Pod") => &core::pod::RULES,
        ("", "Secret") => &core::secret::RULES,
        ("", "Service") => &core::service::RULES,
        ("", "ServiceAccount") => &core::service_account::RULES,
        ("coordination.k8s.io", "Lease") => &coordination::lease::RULES,
        ("discovery.k8s.io", "EndpointSlice") => &discovery::endpoint_slice::RULES,
        ("events.k8s.io", "Event") => &core::event::EVENTS,
        ("rbac.authorization.k8s.io", "ClusterRole") => &rbac::role::CLUSTER_ROLE,
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => &rbac::binding::CLUSTER_ROLE_BINDING,
        ("rbac.authorization.k8s.io", "Role") => &rbac::role::ROLE,
        ("rbac.authorization.k8s.io", "RoleBinding") => &rbac::binding::ROLE_BINDING,
        ("scheduling.k8s.io", "PriorityClass") => &scheduling::priority_class::RULES,
        ("", "PersistentVolume") => &rows::PERSISTENT_VOLUME,
        ("", "PersistentVolumeClaim") => &rows::PERSISTENT_VOLUME_CLAIM,
        ("", "PodTemplate") => &workloads::POD_TEMPLATE,
        ("", "ReplicationController") => &workloads::REPLICATION_CONTROLLER,
        ("", "ResourceQuota") => &core::resource_quota::RULES,
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy") => &admissionregistration::policy::MUTATING,
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding") => {
            &admissionregistration::policy::MUTATING_BINDING
        }
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration") => &admissionregistration::webhooks::MUTATING,
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => &admissionregistration::policy::VALIDATING,
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding") => {
            &admissionregistration::policy::VALIDATING_BINDING
        }
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration") => {
            &admissionregistration::webhooks::VALIDATING
        }
        ("apiregistration.k8s.io", "APIService") => &apiregistration::API_SERVICE,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => &apiextensions::DEFINITION,
        ("apps", "ControllerRevision") => &rows::CONTROLLER_REVISION,
        ("apps", "DaemonSet") => &workloads::DAEMON_SET,
        ("apps", "Deployment") => &workloads::DEPLOYMENT,
        ("apps", "ReplicaSet") => &workloads::REPLICA_SET,
        ("apps", "StatefulSet") => &workloads::STATEFUL_SET,
        ("autoscaling", "HorizontalPodAutoscaler") => &autoscaling::HORIZONTAL_POD_AUTOSCALER,
        ("batch", "CronJob") => &workloads::CRON_JOB,
        ("batch", "Job") => &workloads::JOB,
        ("certificates.k8s.io", "CertificateSigningRequest") => &rows::CERTIFICATE_SIGNING_REQUEST,
        ("certificates.k8s.io", "ClusterTrustBundle") => &certificates::cluster_trust_bundle::RULES,
        ("certificates.k8s.io", "PodCertificateRequest") => &rows::POD_CERTIFICATE_REQUEST,
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => &flowcontrol::FLOW_SCHEMA,
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => &flowcontrol::PRIORITY_LEVEL,
        ("networking.k8s.io", "IPAddress") => &rows::IP_ADDRESS,
        ("networking.k8s.io", "Ingress") => &networking::ingress::RULES,
        ("networking.k8s.io", "IngressClass") => &networking::ingress_class::RULES,
        ("networking.k8s.io", "NetworkPolicy") => &networking::network_policy::RULES,
        ("networking.k8s.io", "ServiceCIDR") => &rows::SERVICE_CIDR,
        ("node.k8s.io", "RuntimeClass") => &node::RUNTIME_CLASS,
        ("policy", "PodDisruptionBudget") => &policy::POD_DISRUPTION_BUDGET,
        ("resource.k8s.io", "DeviceClass") => &rows::DEVICE_CLASS,
        ("resource.k8s.io", "DeviceTaintRule") => &resource::taint::RULE,
        ("resource.k8s.io", "ResourceClaim") => &resource::claim::CLAIM,
        ("resource.k8s.io", "ResourceClaimTemplate") => &resource::claim::TEMPLATE,
        ("resource.k8s.io", "ResourceSlice") => &resource::taint::SLICE,
        ("storage.k8s.io", "CSIDriver") => &rows::CSI_DRIVER,
        ("storage.k8s.io", "CSINode") => &rows::CSI_NODE,
        ("storage.k8s.io", "CSIStorageCapacity") => &rows::CSI_STORAGE_CAPACITY,
        ("storage.k8s.io", "StorageClass") => &storage::STORAGE_CLASS,
        ("storage.k8s.io", "VolumeAttachment") => &rows::VOLUME_ATTACHMENT,
        ("storage.k8s.io", "VolumeAttributesClass") => &rows::VOLUME_ATTRIBUTES_CLASS,
        ("storagemigration.k8s.io", "StorageVersionMigration") => &rows::STORAGE_VERSION_MIGRATION,
        _ => &Rules::PLAIN,
    }
}

#[cfg(test)]
mod tests;
