//! From the kubelet's flags to the node's settings: what they say, checked.

use anyhow::{Context, Result, ensure};
use cli::arguments::{Kubelet, duration};
use kubelet::eviction::Settings;
use kubelet::garbage::{ImagePolicy, LogPolicy};
use schema::quantity::Quantity;
use std::str::FromStr;
use std::time::Duration;

/// When logs are rotated.
pub(crate) fn logs(flags: &Kubelet) -> Result<LogPolicy> {
    let usual = LogPolicy::default();
    let max_bytes = match &flags.container_log_max_size {
        Some(text) => bytes(text).with_context(|| format!("--container-log-max-size {text}"))?,
        None => usual.max_bytes,
    };
    let max_files = number("--container-log-max-files", &flags.container_log_max_files)?;
    let max_files = max_files.unwrap_or(usual.max_files);
    ensure!(max_bytes > 0, "--container-log-max-size: must be positive");
    ensure!(max_files > 1, "--container-log-max-files: must be greater than 1");
    Ok(LogPolicy { max_bytes, max_files })
}

/// When images are cleared away.
pub(crate) fn images(flags: &Kubelet) -> Result<ImagePolicy> {
    let usual = ImagePolicy::default();
    let high = number("--image-gc-high-threshold", &flags.image_gc_high_threshold)?.unwrap_or(usual.high_percent);
    let low = number("--image-gc-low-threshold", &flags.image_gc_low_threshold)?.unwrap_or(usual.low_percent);
    ensure!(high <= 100, "--image-gc-high-threshold must be between 0 and 100, inclusive");
    ensure!(low < high, "--image-gc-low-threshold must be less than --image-gc-high-threshold ({high})");
    let minimum_age = period("--minimum-image-ttl-duration", &flags.minimum_image_ttl_duration)?;
    let minimum_age = minimum_age.unwrap_or(usual.minimum_age);
    let asked = flags.image_gc_high_threshold.is_some() || flags.image_gc_low_threshold.is_some();
    let enough_bytes = usual.enough_bytes.filter(|_| !asked);
    Ok(ImagePolicy { high_percent: high, low_percent: low, minimum_age, enough_bytes })
}

/// When Pods are evicted.
pub(crate) fn eviction(flags: &Kubelet) -> Result<Settings> {
    let mut settings = Settings::parse(
        flags.eviction_hard.as_deref(),
        flags.eviction_soft.as_deref(),
        flags.eviction_soft_grace_period.as_deref(),
        flags.eviction_minimum_reclaim.as_deref(),
    )?;
    let transition = period("--eviction-pressure-transition-period", &flags.eviction_pressure_transition_period)?;
    settings.transition_period = transition.unwrap_or(settings.transition_period);
    let grace = number("--eviction-max-pod-grace-period", &flags.eviction_max_pod_grace_period)?;
    settings.max_pod_grace_period_s = grace.unwrap_or(settings.max_pod_grace_period_s);
    Ok(settings)
}

fn period(flag: &str, given: &Option<String>) -> Result<Option<Duration>> {
    let parse = |text: &String| duration(text).map_err(anyhow::Error::msg).with_context(|| format!("{flag} {text}"));
    given.as_ref().map(parse).transpose()
}

fn number<N: FromStr>(flag: &str, given: &Option<String>) -> Result<Option<N>>
where
    N::Err: std::error::Error + Send + Sync + 'static,
{
    given.as_ref().map(|text| text.parse().with_context(|| format!("{flag} {text}"))).transpose()
}

fn bytes(text: &str) -> Result<u64> {
    let quantity = Quantity::parse(text).ok().context("not a quantity")?;
    Ok(u64::try_from(quantity.value()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_said_and_what_is_wrong_with_it() {
        let some = |text: &str| Some(text.to_owned());
        let flags =
            Kubelet { container_log_max_size: some("20Ki"), container_log_max_files: some("2"), ..Kubelet::default() };
        assert_eq!(logs(&flags).unwrap(), LogPolicy { max_bytes: 20 << 10, max_files: 2 });
        let wrong = Kubelet { container_log_max_files: some("1"), ..Kubelet::default() };
        assert_eq!(logs(&wrong).unwrap_err().to_string(), "--container-log-max-files: must be greater than 1");
        let wrong = Kubelet { container_log_max_size: some("much"), ..Kubelet::default() };
        assert_eq!(logs(&wrong).unwrap_err().to_string(), "--container-log-max-size much");
        let flags = Kubelet {
            image_gc_high_threshold: some("10"),
            image_gc_low_threshold: some("5"),
            minimum_image_ttl_duration: some("0s"),
            ..Kubelet::default()
        };
        let policy = images(&flags).unwrap();
        assert_eq!((policy.high_percent, policy.low_percent, policy.minimum_age.as_secs()), (10, 5, 0));
        let wrong = Kubelet { image_gc_low_threshold: some("90"), ..Kubelet::default() };
        assert!(images(&wrong).unwrap_err().to_string().contains("must be less than"));
    }
}
