//! The webhook configuration belongs to the operator's namespace, so that who deletes the namespace, brutally, deletes it too:
//! no API server goes on calling for a webhook that is no more.

use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{PartialObjectMeta, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::names;
use crate::telemetry::error_chain;

/// What only the leader does, for ever: the configuration's owner is `namespace`, whoever writes the configuration anew.
pub async fn keep(client: &Client, namespace: &str) -> Infallible {
    let configurations = Api::<PartialObjectMeta<MutatingWebhookConfiguration>>::all(client.clone());
    let only = watcher::Config::default().fields(&format!("metadata.name={}", names::WEBHOOK_CONFIGURATION));
    let mut seen = pin!(watcher(configurations.clone(), only).default_backoff().applied_objects());
    loop {
        let configuration = match seen.next().await {
            Some(Ok(configuration)) => configuration,
            Some(Err(error)) => {
                tracing::warn!(error = error_chain(&error), "watch of the webhook configuration failed; trying again");
                continue;
            }
            None => pending().await,
        };
        let owned = async {
            let home = Api::<Namespace>::all(client.clone()).get_metadata(namespace).await?;
            let Some(patch) = ownership(&configuration.metadata, namespace, home.metadata.uid.as_deref()) else {
                return Ok(());
            };
            let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            configurations.patch(names::WEBHOOK_CONFIGURATION, &params, &Patch::Merge(patch)).await?;
            tracing::info!(namespace, "the webhook configuration goes with the operator's namespace");
            Ok::<_, kube::Error>(())
        };
        match timeout(CALL_TIMEOUT, owned).await {
            Ok(Ok(())) => {}
            // Somebody else wrote, and the watch says what.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => {}
            Ok(Err(error)) => {
                tracing::warn!(error = error_chain(&error), "failed to set the owner of the webhook configuration")
            }
            Err(_) => tracing::warn!("failed to set the owner of the webhook configuration: no answer"),
        }
        // If another controller reverts the write, do not write more often than this.
        sleep(RETRY_INTERVAL).await;
    }
}

/// Sets the one owner of kind Namespace, and leaves others as they are.
fn ownership(configuration: &ObjectMeta, namespace: &str, uid: Option<&str>) -> Option<Value> {
    let wanted = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Namespace".to_owned(),
        name: namespace.to_owned(),
        uid: uid?.to_owned(),
        ..OwnerReference::default()
    };
    let owners = configuration.owner_references.clone().unwrap_or_default();
    let mut owned: Vec<_> = owners.iter().filter(|owner| owner.kind != wanted.kind).cloned().collect();
    owned.push(wanted);
    // The version: a list is replaced as a whole.
    let metadata = json!({"resourceVersion": configuration.resource_version, "ownerReferences": owned});
    (owners != owned).then(|| json!({ "metadata": metadata }))
}

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_of_that_name_that_is_there_now_becomes_the_only_namespace_that_owns_it() {
        let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "release", "uid": "1"});
        let before = json!({"apiVersion": "v1", "kind": "Namespace", "name": "tools", "uid": "of-an-earlier-one"});
        let now = json!({"apiVersion": "v1", "kind": "Namespace", "name": "tools", "uid": "7"});
        let meta = |owners: Value| -> ObjectMeta {
            serde_json::from_value(json!({"resourceVersion": "12", "ownerReferences": owners})).unwrap()
        };
        for owners in [json!(null), json!([]), json!([other]), json!([before]), json!([before, other])] {
            let kept: Vec<_> = owners.as_array().into_iter().flatten().filter(|owner| **owner == other).collect();
            let owned: Vec<_> = kept.into_iter().chain([&now]).collect();
            let expected = json!({"metadata": {"resourceVersion": "12", "ownerReferences": owned}});
            assert_eq!(ownership(&meta(owners), "tools", Some("7")), Some(expected));
        }
        assert_eq!(ownership(&meta(json!([other, now])), "tools", Some("7")), None);
        assert_eq!(ownership(&meta(json!([])), "tools", None), None);
    }
}
