//! The merged certificate authorities of a namespace, where an AgentTracing wants them in a ConfigMap.

use jiff::Timestamp;

use super::{Context, Error, apply, observe};
use crate::api::CaBundleStrategy;
use crate::core::ca_bundle::{self, Source};
use crate::core::children::namespace::ca_config_map;
use crate::core::settings::Settings;
use crate::core::settings::policy::Policy;
use crate::core::status::condition::{ChildObstacle, ConditionUpdate};
use crate::core::wiring::parts::ca_sources;

/// Whether agents take their certificate authorities from the ConfigMap: as the spec says, or because `some` workload does without
/// the init container.
pub(super) fn is_wanted(settings: &Settings, some: bool) -> bool {
    match settings.ca.as_ref().map(|choice| choice.strategy) {
        Some(CaBundleStrategy::ConfigMap) => true,
        Some(CaBundleStrategy::InitContainer | CaBundleStrategy::AgentInitContainer) => some,
        None => false,
    }
}

/// Brings ConfigMap `agenttracing-ca` about, where it [`is_wanted`], before a workload mounts it. Says what keeps it from being
/// there.
pub(super) async fn ensure(
    ctx: &Context,
    namespace: &str,
    policies: &[Policy],
    refusals: &mut apply::Refusals,
    now: Timestamp,
) -> Result<Option<ConditionUpdate>, Error> {
    // One map serves all AgentTracings of the namespace, whoever of them needs it: two would write it in turn.
    let choices = policies.iter().filter_map(|policy| policy.settings.ca.as_ref());
    let mut found = Vec::new();
    for (name, key) in ca_sources(choices) {
        if let Some(text) = observe::config_map_key(ctx, namespace, &name, &key).await? {
            found.push((format!("{name}/{key}"), text));
        }
    }
    let roots = ca_bundle::system_roots();
    let all: Vec<_> = [("public", roots.as_bytes())]
        .into_iter()
        .chain(found.iter().map(|(name, text)| (name.as_str(), text.as_bytes())))
        .map(|(name, bytes)| Source { name, bytes })
        .collect();
    let merged = ca_bundle::merge_at_most(&all, now, ca_bundle::MAX_BYTES_IN_CONFIG_MAP); // pure
    let wanted = ca_config_map(namespace, merged.pem); // pure
    let live = observe::child(ctx, &wanted).await?; // IO
    let applied = apply::child(ctx, &wanted, live.as_ref(), refusals).await?; // IO
    if matches!(applied, apply::Applied::Written(_)) {
        for skipped in &merged.skipped {
            tracing::warn!(namespace, skipped = %skipped, "a certificate authority cannot be used");
        }
    }
    Ok(applied.obstacle().map(|ChildObstacle { reason, message }| ConditionUpdate::bad(reason, message)))
}
