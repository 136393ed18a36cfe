//! Sandboxes and containers by id, by the beginning of one, and by what a filter says; refusals in containerd's words.

use super::Server;
use super::grpc::{Code, Refusal};
use crate::types::{ContainerStatus, RuntimeError, SandboxStatus};
use std::collections::BTreeMap;

impl From<RuntimeError> for Refusal {
    fn from(error: RuntimeError) -> Self {
        let code = match &error {
            RuntimeError::NotFound { .. } => Code::NotFound,
            RuntimeError::InvalidImageName(_) => Code::InvalidArgument,
            RuntimeError::Unsupported(_) => Code::Unimplemented,
            RuntimeError::Start(_) | RuntimeError::Pull(_) | RuntimeError::Unreachable(_) | RuntimeError::Failed(_) => {
                Code::Unknown
            }
        };
        Self::new(code, error.to_string())
    }
}

/// The one whose id begins so.
fn unique<T>(items: Vec<T>, what: &str, id: &str, of: impl Fn(&T) -> &str) -> Result<T, Refusal> {
    let refusal = |code, why| Refusal::new(code, format!("an error occurred when try to find {what} {id:?}: {why}"));
    if id.is_empty() {
        return Err(refusal(Code::InvalidArgument, "prefix can't be empty"));
    }
    let mut found = items.into_iter().filter(|item| of(item).starts_with(id));
    match (found.next(), found.next()) {
        (None, _) => Err(refusal(Code::NotFound, "not found")),
        (Some(item), None) => Ok(item),
        (Some(_), Some(_)) => Err(refusal(Code::InvalidArgument, "ambiguous prefix")),
    }
}

impl Server {
    pub(super) async fn sandboxes(&self) -> Result<Vec<SandboxStatus>, Refusal> {
        Ok(self.runtime.list_sandboxes().await?)
    }

    pub(super) async fn find_sandbox(&self, id: &str) -> Result<SandboxStatus, Refusal> {
        unique(self.sandboxes().await?, "sandbox", id, |sandbox| &sandbox.id)
    }

    pub(super) async fn find_container(&self, id: &str) -> Result<ContainerStatus, Refusal> {
        let containers = self.sandboxes().await?.into_iter().flat_map(|sandbox| sandbox.containers);
        unique(containers.collect(), "container", id, |container: &ContainerStatus| &container.id)
    }
}

/// `None` for what is not there: CRI's stops and removals are idempotent.
pub(super) fn optional<T>(found: Result<T, Refusal>) -> Result<Option<T>, Refusal> {
    match found {
        Err(refusal) if refusal.code == Code::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// Whether the labels hold all that are asked for.
pub(super) fn selects(wanted: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_may_be_shortened_while_they_are_unique() {
        let find = |id: &str| unique(vec!["abc", "abd", "b"], "item", id, |item| item).map_err(|refusal| refusal.code);
        assert_eq!(find("abc"), Ok("abc"));
        assert_eq!(find("b"), Ok("b"));
        assert_eq!(find("ab"), Err(Code::InvalidArgument), "several: nothing is stopped or removed by it");
        assert_eq!(find("c"), Err(Code::NotFound));
        assert_eq!(find(""), Err(Code::InvalidArgument));
    }
}
