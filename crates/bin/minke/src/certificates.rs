//! Approves and signs certificate requests: of nodes by themselves, of others once somebody approved them. Upstream's
//! `csrapproving` and `csrsigning` controllers; they hold the authority's key, so they stand here and not in `control`.

use anyhow::{Result, bail};
use apiserver::authentication::NODES;
use apiserver::pki::requests::{KUBELET_CLIENT_SIGNER, KUBELET_SERVING_SIGNER, NODE_USER_PREFIX, SigningRequest};
use apiserver::pki::{Pki, ServerNames};
use client::informer::{Change, Informer};
use client::transport::{CallError, ListQuery};
use client::typed::{Client, Kind, target};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct Signer {
    pub(crate) pki: Arc<Pki>,
    /// Speaks as upstream's certificate controller.
    pub(crate) client: Client,
    /// Approves what upstream leaves to a human: a node's own serving certificate.
    pub(crate) administrator: Client,
    /// What the API server is called: no node may serve under such a name.
    pub(crate) reserved: ServerNames,
}

/// What is to be done about a request.
enum Verdict {
    Nothing,
    Approve(&'static str),
    ApproveServing,
    Sign,
    Fail(String),
}

/// Runs for ever.
pub(crate) async fn run(signer: Signer) -> Result<()> {
    let query = ListQuery { target: target::<CertificateSigningRequest>("", ""), ..ListQuery::default() };
    let (informer, _, mut changes) =
        Informer::<CertificateSigningRequest>::new(signer.client.transport().clone(), query);
    let work = async {
        while let Some(change) = changes.recv().await {
            if let Change::Set { new, .. } = change
                && let Err(error) = signer.take(&new).await
            {
                // A conflict means that a newer state is on its way.
                tracing::warn!(%error, name = new.metadata.name, "certificate request not handled");
            }
        }
    };
    tokio::select! {
        () = informer.run() => bail!("the watch of certificate requests ended"),
        () = work => bail!("the certificate signer ended"),
    }
}

impl Signer {
    async fn take(&self, csr: &CertificateSigningRequest) -> Result<(), CallError> {
        let Ok(request) = SigningRequest::parse(&csr.spec.request.0) else {
            return Ok(());
        };
        let usages: Vec<&str> = csr.spec.usages.iter().flatten().map(String::as_str).collect();
        let mut new = csr.clone();
        let status = new.status.get_or_insert_with(CertificateSigningRequestStatus::default);
        match self.judge(csr, &request, &usages).await? {
            Verdict::Nothing => Ok(()),
            Verdict::Approve(message) => {
                status.conditions.get_or_insert_default().push(condition("Approved", "AutoApproved", message));
                update(&self.client, "approval", &new).await
            }
            Verdict::ApproveServing => {
                let message = "Approved: the node asks for its own name and addresses only.";
                status.conditions.get_or_insert_default().push(condition("Approved", "AutoApproved", message));
                update(&self.administrator, "approval", &new).await
            }
            Verdict::Fail(why) => {
                status.conditions.get_or_insert_default().push(condition("Failed", "SignerValidationFailure", &why));
                update(&self.client, "status", &new).await
            }
            Verdict::Sign => {
                let asked = csr.spec.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
                let lifetime = asked.map(Duration::from_secs);
                let pem = self.pki.sign_request(&request, &usages, lifetime, Timestamp::now());
                let pem = pem.map_err(|error| CallError::Unreachable(error.to_string()))?;
                status.certificate = Some(ByteString(pem.into_bytes()));
                update(&self.client, "status", &new).await
            }
        }
    }

    async fn judge(
        &self,
        csr: &CertificateSigningRequest,
        request: &SigningRequest,
        usages: &[&str],
    ) -> Result<Verdict, CallError> {
        let signer = csr.spec.signer_name.as_str();
        let status = csr.status.clone().unwrap_or_default();
        let has = |kind: &str| status.conditions.iter().flatten().any(|one| one.type_ == kind && one.status == "True");
        if status.certificate.is_some() || has("Denied") || has("Failed") {
            return Ok(Verdict::Nothing);
        }
        let fits = request.fits(signer, usages);
        if has("Approved") {
            return Ok(match fits {
                Ok(true) => Verdict::Sign,
                Ok(false) => Verdict::Nothing,
                Err(why) => Verdict::Fail(why),
            });
        }
        if fits != Ok(true) {
            return Ok(Verdict::Nothing);
        }
        let own = csr.spec.username.as_deref() == Some(request.common_name.as_str());
        if signer == KUBELET_SERVING_SIGNER {
            let fine = own && self.serves_only_itself(csr, request).await?;
            return Ok(if fine { Verdict::ApproveServing } else { Verdict::Nothing });
        }
        if signer != KUBELET_CLIENT_SIGNER {
            return Ok(Verdict::Nothing);
        }
        if own && self.may_create(csr, "selfnodeclient").await? {
            return Ok(Verdict::Approve("Auto approving self kubelet client certificate after SubjectAccessReview."));
        }
        if self.may_create(csr, "nodeclient").await? {
            return Ok(Verdict::Approve("Auto approving kubelet client certificate after SubjectAccessReview."));
        }
        Ok(Verdict::Nothing)
    }

    /// A node's certificate names the node, and no address of the API server or of another node.
    async fn serves_only_itself(
        &self,
        csr: &CertificateSigningRequest,
        request: &SigningRequest,
    ) -> Result<bool, CallError> {
        let name = request.common_name.strip_prefix(NODE_USER_PREFIX).unwrap_or_default();
        let is_node = csr.spec.groups.iter().flatten().any(|group| group == NODES);
        if !is_node
            || request.dns_names.iter().any(|dns| dns != name)
            || self.reserved.dns.iter().any(|dns| dns == name)
        {
            return Ok(false);
        }
        let mut taken: Vec<IpAddr> = self.reserved.addresses.clone();
        for node in self.administrator.list::<Node>("").await? {
            if node.metadata.name.as_deref() != Some(name) {
                let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
                taken.extend(addresses.filter_map(|address| address.address.parse::<IpAddr>().ok()));
            }
        }
        Ok(request.addresses.iter().all(|address| !taken.contains(address)))
    }

    async fn may_create(&self, csr: &CertificateSigningRequest, subresource: &str) -> Result<bool, CallError> {
        let text = |text: &str| Some(text.to_owned());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: csr.spec.username.clone(),
                uid: csr.spec.uid.clone(),
                groups: csr.spec.groups.clone(),
                extra: csr.spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: text("certificates.k8s.io"),
                    version: text("*"),
                    resource: text("certificatesigningrequests"),
                    subresource: text(subresource),
                    verb: text("create"),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = self.client.create(&review).await?;
        Ok(answer.status.as_ref().is_some_and(|SubjectAccessReviewStatus { allowed, .. }| *allowed))
    }
}

fn condition(kind: &str, reason: &str, message: &str) -> CertificateSigningRequestCondition {
    let now = Some(Time(Timestamp::now()));
    CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: now.clone(),
        last_transition_time: now,
    }
}

/// Replaces a subresource, if the object is still as it was.
async fn update<K: Kind>(client: &Client, subresource: &'static str, object: &K) -> Result<(), CallError> {
    use api::write::{Target, Verb, Write};
    let name = object.metadata().name.clone().unwrap_or_default();
    let target = Target { subresource, ..target::<K>("", &name) };
    let body = serde_json::to_vec(object).map_err(|error| CallError::Unreachable(error.to_string()))?;
    client.transport().write(Write { verb: Verb::Update, target, body: body.into() }).await.map(drop)
}
