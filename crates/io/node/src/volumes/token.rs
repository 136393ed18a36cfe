//! Tokens are asked for once and renewed when four fifths of their life are over, or after a day (upstream
//! `pkg/kubelet/token`).

use super::objects::{ObjectError, Objects, TokenKey};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const MAX_AGE: Duration = Duration::from_hours(24);

#[derive(Default)]
pub(super) struct Tokens(Mutex<BTreeMap<TokenKey, Held>>);

struct Held {
    token: String,
    renew_at: Instant,
}

impl Tokens {
    /// The token it has, or a new one. A renewal that fails leaves the old one in use.
    pub(super) async fn get(&self, objects: &dyn Objects, key: TokenKey) -> Result<String, String> {
        let now = Instant::now();
        let old = self.map().get(&key).map(|held| (held.token.clone(), held.renew_at));
        if let Some((token, _)) = old.as_ref().filter(|(_, renew_at)| now < *renew_at) {
            return Ok(token.clone());
        }
        match (objects.token(&key).await, old) {
            (Ok(new), _) => {
                let life = Duration::from_secs(new.lifetime_seconds).mul_f64(0.8).min(MAX_AGE);
                self.map().insert(key, Held { token: new.token.clone(), renew_at: now + life });
                Ok(new.token)
            }
            (Err(error), Some((token, _))) => {
                tracing::warn!(pod = key.pod_name, %error, "a token could not be renewed; the old one stays in use");
                Ok(token)
            }
            (Err(ObjectError::NotFound), None) => {
                Err(format!("failed to fetch token: serviceaccounts \"{}\" not found", key.service_account))
            }
            (Err(ObjectError::Failed(words)), None) => Err(format!("failed to fetch token: {words}")),
        }
    }

    /// How long until a token of the Pod wants renewal.
    pub(super) fn next_renewal(&self, pod_uid: &str) -> Option<Duration> {
        let map = self.map();
        let at = map.iter().filter(|(key, _)| key.pod_uid == pod_uid).map(|(_, held)| held.renew_at).min()?;
        Some(at.saturating_duration_since(Instant::now()))
    }

    pub(super) fn forget(&self, pod_uid: &str) {
        self.map().retain(|key, _| key.pod_uid != pod_uid);
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<TokenKey, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
