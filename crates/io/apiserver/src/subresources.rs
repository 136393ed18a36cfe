//! Subresources and create-only resources with handlers of their own.

mod binding;
mod connect;
mod eviction;
mod kubelet;
mod log_socket;
mod logs;
mod reviews;
mod scale;
mod token;
mod tunnel;

use crate::call::{Answer, Call};
use crate::errors::{self, Result};
use crate::update::Strategy;
use api::kinds::core::{namespace, pod};
use api::kinds::rows;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handler {
    /// `pods/binding`, and `bindings` itself.
    Binding,
    Eviction,
    Token,
    Scale,
    Log,
    /// exec, attach, portforward.
    Stream,
    PodProxy,
    ServiceProxy,
    NodeProxy,
    Review,
    ComponentStatus,
}

impl Handler {
    pub(crate) fn of(call: &Call<'_>) -> Option<Self> {
        let Some(subresource) = call.subresource else {
            return match (call.resource.group, call.resource.plural) {
                ("", "bindings") => Some(Self::Binding),
                ("", "componentstatuses") => Some(Self::ComponentStatus),
                ("authentication.k8s.io" | "authorization.k8s.io", _) => Some(Self::Review),
                _ => None,
            };
        };
        match (call.resource.plural, subresource.name) {
            ("pods", "binding") => Some(Self::Binding),
            ("pods", "eviction") => Some(Self::Eviction),
            ("pods", "log") => Some(Self::Log),
            ("pods", "exec" | "attach" | "portforward") => Some(Self::Stream),
            ("pods", "proxy") => Some(Self::PodProxy),
            ("services", "proxy") => Some(Self::ServiceProxy),
            ("nodes", "proxy") => Some(Self::NodeProxy),
            ("serviceaccounts", "token") => Some(Self::Token),
            (_, "scale") => Some(Self::Scale),
            _ => None,
        }
    }

    /// Whether the answer is somebody else's bytes.
    pub(crate) fn connects(self) -> bool {
        matches!(self, Self::Log | Self::Stream | Self::PodProxy | Self::ServiceProxy | Self::NodeProxy)
    }

    pub(crate) async fn carry_out(self, call: &Call<'_>) -> Result<Answer> {
        match self {
            Self::Binding => binding::bind(call).await,
            Self::Eviction => eviction::evict(call).await,
            Self::Token => token::request(call).await,
            Self::Scale => scale::scale(call).await,
            Self::Log => logs::log(call).await,
            Self::Stream => connect::stream(call).await,
            Self::PodProxy => connect::pod_proxy(call).await,
            Self::ServiceProxy => Err(errors::not_supported("proxying to Services")),
            Self::NodeProxy => connect::node_proxy(call).await,
            Self::Review => reviews::review(call).await,
            Self::ComponentStatus => Err(errors::not_supported("component statuses")),
        }
    }
}

const EPHEMERAL_CONTAINERS: Strategy = Strategy {
    prepare: |_, new, old| pod::prepare::ephemeral_containers_update(new, old),
    validate: |_, new, old| pod::subresources::ephemeral_containers_update(new, old),
    main: false,
    counts: true,
};

const RESIZE: Strategy = Strategy {
    prepare: |_, new, old| pod::prepare::resize_update(new, old),
    validate: |_, new, old| pod::subresources::resize_update(new, old),
    main: false,
    counts: true,
};

/// Takes finalizers out of a namespace's spec; the last one lets it go (upstream `registry/core/namespace`
/// `FinalizeREST`).
const FINALIZE: Strategy = Strategy {
    prepare: |_, new, old| namespace::prepare_finalize(new, old),
    validate: |_, new, _| namespace::validate_finalize(new),
    main: false,
    counts: false,
};

const APPROVAL: Strategy = Strategy {
    prepare: |_, new, old| rows::prepare_approval(new, old),
    validate: |_, new, old| rows::approval_changes(new, old, true),
    main: false,
    counts: false,
};

/// How a change through a subresource without a handler of its own goes.
pub(crate) fn strategy(call: &Call<'_>, name: &str) -> Result<Strategy> {
    match (call.resource.plural, name) {
        ("certificatesigningrequests", "approval") => Ok(APPROVAL),
        ("namespaces", "finalize") => Ok(FINALIZE),
        ("pods", "ephemeralcontainers") => Ok(EPHEMERAL_CONTAINERS),
        ("pods", "resize") => Ok(RESIZE),
        (plural, name) => Err(errors::not_supported(&format!("{plural}/{name}"))),
    }
}
