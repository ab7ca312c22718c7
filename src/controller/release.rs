//! Deletes ConfigMap `agenttracing-ca` where nobody takes certificate authorities from it any more. It belongs to no
//! AgentTracing: one that is deleted, made anew or changed must not take a file from agents that run.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, Preconditions};
use kube::{Client, ResourceExt};

use super::{Context, apply, observe};
use crate::api::CaBundleStrategy;
use crate::core::ca_bundle::uses_config_map;
use crate::core::selection::kind::Kind;
use crate::core::settings;
use crate::names;
use crate::telemetry::error_chain;

/// How often it is looked for.
const INTERVAL: Duration = Duration::from_secs(600);
/// How long a new one is left alone: the workload for which it was made may not mount it yet.
const NEW: SignedDuration = SignedDuration::from_mins(10);

/// Looks for it now and then, for ever.
pub(super) async fn run(ctx: &Context) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let wanted = |namespace: &str| {
            let strategy = |tracing| settings::read(tracing).0.ca.map(|choice| choice.strategy);
            let all = ctx.store.state();
            let here = all.iter().filter(|tracing| tracing.namespace().as_deref() == Some(namespace));
            // One that cannot be read may want it.
            here.into_iter().any(|tracing| {
                tracing.0.as_ref().map_or(true, |tracing| strategy(tracing) == Some(CaBundleStrategy::ConfigMap))
            })
        };
        let is_old = |map: &kube::api::PartialObjectMeta<ConfigMap>| {
            map.creation_timestamp().is_some_and(|made| Timestamp::now().duration_since(made.0) >= NEW)
        };
        if let Err(error) =
            unused(&ctx.client, |map| is_old(map) && !wanted(&map.namespace().unwrap_or_default())).await
        {
            tracing::warn!(error = error_chain(&error), "failed to look for unused ConfigMaps; trying again");
        }
    }
}

/// Deletes those among these that nothing uses; the namespaces in which one stays since something does.
pub async fn unused(
    client: &Client,
    may_go: impl Fn(&kube::api::PartialObjectMeta<ConfigMap>) -> bool,
) -> Result<Vec<String>, super::Error> {
    let what = || format!("the ConfigMaps {}", names::CA_CONFIG_MAP);
    let read = |source| observe::Error::Read { what: what(), source };
    let named = ListParams::default().fields(&format!("metadata.name={}", names::CA_CONFIG_MAP));
    let found = Api::<ConfigMap>::all(client.clone()).list_metadata(&named).await.map_err(read)?.items;
    let is_ours = |labels: &std::collections::BTreeMap<String, String>| {
        labels.get(names::LABEL_MANAGED_BY).is_some_and(|manager| manager == names::MANAGED_BY)
    };
    let mut used = Vec::new();
    for map in found.into_iter().filter(|map| is_ours(map.labels()) && may_go(map)) {
        let namespace = map.namespace().unwrap_or_default();
        if is_used(client, &namespace).await? {
            used.push(namespace);
            continue;
        }
        let preconditions = Preconditions { uid: map.uid(), resource_version: map.resource_version() };
        let params = DeleteParams::default().preconditions(preconditions);
        match Api::<ConfigMap>::namespaced(client.clone(), &namespace).delete(names::CA_CONFIG_MAP, &params).await {
            Ok(_) => tracing::info!(namespace, name = names::CA_CONFIG_MAP, "deleted: nothing uses it"),
            // Somebody wrote it meanwhile.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            Err(source) => return Err(apply::Error::Write { what: what(), source }.into()),
        }
    }
    Ok(used)
}

async fn is_used(client: &Client, namespace: &str) -> Result<bool, observe::Error> {
    let mut used = false;
    for kind in Kind::ALL {
        let each = |item: &str| {
            used = used || uses_config_map(kind, item)?;
            Ok(())
        };
        observe::List::of(kind, Some(namespace)).for_each(client, each).await?;
        if used {
            break;
        }
    }
    Ok(used)
}
