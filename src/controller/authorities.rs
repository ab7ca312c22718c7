//! The merged certificate authorities of a namespace, where an AgentTracing wants them in a ConfigMap.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use super::{Context, Error, apply, observe};
use crate::api::{AgentTracing, CaBundleStrategy, Reason};
use crate::core::ca_bundle::{self, Source};
use crate::core::children::binding::ca_config_map;
use crate::core::settings::Settings;
use crate::core::settings::policy::{CaChoice, Policy};
use crate::core::status::condition::ConditionUpdate;
use crate::core::wiring::parts::ca_sources;
use crate::names;

/// Whether agents take their certificate authorities from the ConfigMap: as the spec says, or because `some` workload does without
/// the init container.
pub(super) fn is_wanted(settings: &Settings, some: bool) -> bool {
    match settings.policy.ca.as_ref().map(|choice| choice.strategy) {
        Some(CaBundleStrategy::ConfigMap) => true,
        Some(CaBundleStrategy::InitContainer | CaBundleStrategy::AgentInitContainer) => some,
        None => false,
    }
}

/// Brings ConfigMap `agenttracing-ca` about, before a workload mounts it: because the spec says so, or because the init
/// container does not start in `some` workload. Says what keeps it from being there.
pub(super) async fn apply_ca_config_map(
    ctx: &Context,
    settings: &Settings,
    tracings: &[AgentTracing],
    some: bool,
    now: Timestamp,
) -> Result<Option<ConditionUpdate>, Error> {
    if !is_wanted(settings, some) {
        return Ok(None);
    }
    let look = format!("kubectl get configmap -n {} {} -o yaml", settings.namespace, names::CA_CONFIG_MAP);
    let live = observe::child::<ConfigMap>(ctx, &settings.namespace, names::CA_CONFIG_MAP).await?; // IO
    if live.as_ref().is_some_and(|live| !apply::is_managed(live)) {
        let message = format!(
            "ConfigMap {} exists and is not the operator's, so it is left alone, and agents have no certificate authorities to take \
             from it; delete or rename it: {look}",
            names::CA_CONFIG_MAP
        );
        return Ok(Some(ConditionUpdate::bad(Reason::NameConflict, message)));
    }
    // One map serves all AgentTracings of the namespace, whoever of them needs it: two would write it in turn.
    let choices: Vec<CaChoice> = tracings.iter().filter_map(|tracing| Policy::of(tracing).ca).collect();
    let mut found = Vec::new();
    for (name, key) in ca_sources(choices.iter()) {
        if let Some(text) = observe::config_map_key(ctx, &settings.namespace, &name, &key).await? {
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
    let wanted = ca_config_map(&settings.namespace, merged.pem); // pure
    let is_so = live.as_ref().is_some_and(|live| {
        let data = live.pointer("/data").and_then(|data| data.get(names::CA_FILE)).and_then(Value::as_str);
        // An earlier operator made AgentTracings its owners, with which it would go.
        let owned =
            live.pointer("/metadata/ownerReferences").and_then(Value::as_array).is_some_and(|all| !all.is_empty());
        !owned && data == wanted.data.as_ref().and_then(|d| d.get(names::CA_FILE)).map(String::as_str)
    });
    if !is_so {
        for skipped in &merged.skipped {
            tracing::warn!(namespace = settings.namespace, skipped = %skipped, "a certificate authority cannot be used");
        }
        // IO
        if let Err(error) = apply::config_map(ctx, &wanted).await {
            let Some(said) = error.refusal() else { return Err(error.into()) };
            let next = match said.contains("quota") {
                true => format!("make room: kubectl describe resourcequota -n {}", settings.namespace),
                false => format!("see what is there: {look}"),
            };
            let message = format!(
                "The API server refuses ConfigMap {}, from which agents take their certificate authorities ({said}); {next}",
                names::CA_CONFIG_MAP
            );
            return Ok(Some(ConditionUpdate::bad(Reason::CreateForbidden, message)));
        }
    }
    Ok(None)
}
