//! Which handler answers a call: verb and subresource to function.

use crate::call::{Answer, Call};
use crate::errors::{self, Result};
use crate::negotiate::Negotiated;
use crate::{create, delete, patch, read, subresources, update, watch};

/// The handlers of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// A subresource with a handler of its own.
    Sub(subresources::Handler),
}

impl Verb {
    pub(crate) fn of(call: &Call<'_>) -> Result<Self> {
        let verb = call.info.verb.as_str();
        let offered = |verbs: &[&str]| verbs.contains(&verb);
        match call.subresource {
            Some(subresource) => {
                if !offered(subresource.verbs) {
                    return Err(errors::method_not_allowed());
                }
            }
            None => {
                // A path without a namespace cannot create in one.
                let nowhere = call.resource.namespaced && call.info.namespace.is_empty();
                let wrong = nowhere && !matches!(verb, "list" | "watch");
                let needs_name = matches!(verb, "get" | "update" | "patch" | "delete");
                let refused = !offered(call.resource.verbs)
                    || wrong
                    || (needs_name == call.info.name.is_empty() && verb != "watch")
                    || (call.info.name.is_empty() && matches!(verb, "update" | "patch"))
                    || call.method == http::Method::HEAD;
                if refused {
                    return Err(errors::method_not_allowed());
                }
            }
        }
        if let Some(handler) = subresources::Handler::of(call) {
            return Ok(Self::Sub(handler));
        }
        Ok(match verb {
            "get" => Self::Get,
            "list" => Self::List,
            "watch" => Self::Watch,
            "create" => Self::Create,
            "update" => Self::Update,
            "patch" => Self::Patch,
            "delete" => Self::Delete,
            "deletecollection" => Self::DeleteCollection,
            _ => return Err(errors::method_not_allowed()),
        })
    }

    /// Whether the answer has but one form.
    pub(crate) fn answers_itself(self) -> bool {
        matches!(self, Self::Sub(_))
    }

    /// Whether `Accept` chooses among our encodings; what is proxied is not ours.
    pub(crate) fn negotiates(self) -> bool {
        !matches!(self, Self::Sub(handler) if handler.connects())
    }

    pub(crate) async fn carry_out(self, call: &Call<'_>, form: &Negotiated) -> Result<Answer> {
        match self {
            Self::Get => read::get(call).await,
            Self::List => read::list(call).await,
            Self::Watch => watch::watch(call, form).await,
            Self::Create => create::create(call).await,
            Self::Update => update::update(call).await,
            Self::Patch => patch::patch(call).await,
            Self::Delete => delete::delete(call).await,
            Self::DeleteCollection => delete::delete_collection(call).await,
            Self::Sub(handler) => handler.carry_out(call).await,
        }
    }
}
