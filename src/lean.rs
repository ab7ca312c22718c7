//! Objects as the watches see them: of an object only what a watch needs.
//!
//! Every object has `metadata.managedFields`, and the API server sends it with metadata alone too: of a Deployment with 3,000
//! variables they are 280 KB for each client that wrote it, and several megabytes once decoded as JSON values. Four tenants with
//! such workloads brought the leader to 225 MiB.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Resource;
use kube::core::ObjectMeta;
use kube::runtime::{utils, watcher};
use serde::{Deserialize, Deserializer};

/// A page of a list is one body in memory, and an object has up to 1.5 MB.
const PAGE: u32 = 20;

/// How kinds are watched of which there may be many and large objects.
pub(crate) fn config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

/// How soon a watch that failed is tried again: after 0.8 s at first and up to 30 s later. That of kube is never later than a
/// second where the list itself is refused, since an event comes before it, and any event has it start over: a kind that was not
/// installed was asked for 50 times a minute.
#[derive(Default)]
pub(crate) struct Backoff(watcher::DefaultBackoff);

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next()
    }
}

impl utils::Backoff for Backoff {
    /// It starts over by itself, two minutes after the last failure.
    fn reset(&mut self) {}
}

/// Name, namespace, labels and version of an object of a kind. The API server is asked for metadata only, unless for `WHOLE`
/// objects.
pub(crate) struct Lean<K, const WHOLE: bool = false> {
    metadata: ObjectMeta,
    /// Of a whole ServiceAccount: whether its pods get its token.
    pub automount_token: Option<bool>,
    kind: PhantomData<fn() -> K>,
}

/// A service account with what it says of its pods' token.
pub(crate) type LeanAccount = Lean<ServiceAccount, true>;

impl<K, const WHOLE: bool> From<ObjectMeta> for Lean<K, WHOLE> {
    fn from(metadata: ObjectMeta) -> Self {
        Self { metadata, automount_token: None, kind: PhantomData }
    }
}

impl<'de, K, const WHOLE: bool> Deserialize<'de> for Lean<K, WHOLE> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Object {
            #[serde(default)]
            metadata: Metadata,
            automount_service_account_token: Option<bool>,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            name: Option<String>,
            namespace: Option<String>,
            labels: Option<BTreeMap<String, String>>,
            resource_version: Option<String>,
        }
        let Object { metadata, automount_service_account_token } = Object::deserialize(deserializer)?;
        let Metadata { name, namespace, labels, resource_version } = metadata;
        let metadata = ObjectMeta { name, namespace, labels, resource_version, ..ObjectMeta::default() };
        Ok(Self { metadata, automount_token: automount_service_account_token, kind: PhantomData })
    }
}

impl<K: Resource, const WHOLE: bool> Resource for Lean<K, WHOLE> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn metadata_api() -> bool {
        !WHOLE
    }

    fn kind(of: &K::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &K::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &K::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &K::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl<K, const WHOLE: bool> Clone for Lean<K, WHOLE> {
    fn clone(&self) -> Self {
        Self { metadata: self.metadata.clone(), automount_token: self.automount_token, kind: PhantomData }
    }
}

impl<K, const WHOLE: bool> fmt::Debug for Lean<K, WHOLE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.metadata.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use kube::core::{ObjectList, WatchEvent};
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_list_is_read_without_managed_fields_and_annotations() {
        let list = json!({"apiVersion": "v1", "kind": "ServiceAccountList", "metadata": {"continue": "next"}, "items": [account()]});
        let list: ObjectList<LeanAccount> = serde_json::from_str(&list.to_string()).unwrap();
        assert_eq!(list.metadata.continue_.as_deref(), Some("next"));
        is_teller(&list.items[0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_fails_again_and_again_is_tried_every_half_minute_and_soon_after_a_good_time() {
        let mut backoff = Backoff::default();
        let mut waited = Vec::new();
        for _ in 0..12 {
            utils::Backoff::reset(&mut backoff); // at the event before the list
            let delay = backoff.next().unwrap();
            waited.push(delay);
            tokio::time::advance(delay).await;
        }
        assert!(
            waited[0] < Duration::from_secs(2) && waited[8..].iter().all(|delay| *delay > Duration::from_secs(15)),
            "{waited:?}"
        );
        tokio::time::advance(Duration::from_secs(240)).await;
        assert!(backoff.next().unwrap() < Duration::from_secs(2));
    }

    #[test]
    fn an_event_is_read_alike() {
        let event = json!({"type": "MODIFIED", "object": account()});
        let Ok(WatchEvent::Modified(account)) = serde_json::from_str::<WatchEvent<LeanAccount>>(&event.to_string())
        else {
            panic!("not a change");
        };
        is_teller(&account);
    }

    fn is_teller(account: &LeanAccount) {
        assert_eq!((account.namespace().as_deref(), &*account.name_any()), (Some("bank"), "teller"));
        assert_eq!((account.labels()["team"].as_str(), account.resource_version().as_deref()), ("blue", Some("7")));
        assert_eq!(account.automount_token, Some(false));
        assert!(account.managed_fields().is_empty() && account.annotations().is_empty());
    }

    fn account() -> Value {
        json!({
            "metadata": {
                "name": "teller", "namespace": "bank", "uid": "u", "resourceVersion": "7", "labels": {"team": "blue"},
                "annotations": {"note": "long"},
                "managedFields": [{"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:metadata": {}}}],
            },
            "automountServiceAccountToken": false,
        })
    }
}
