//! Objects as the watches see them: of an object only what a watch needs.
//!
//! Every object has `metadata.managedFields`, and the API server sends it with metadata alone too: of a Deployment with 3,000
//! variables they are 280 KB for each client that wrote it, and several megabytes once decoded as JSON values. Four tenants with
//! such workloads brought the leader to 225 MiB.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Resource;
use kube::core::ObjectMeta;
use kube::runtime::watcher;
use serde::{Deserialize, Deserializer};

/// A page of a list is one body in memory, and an object has up to 1.5 MB.
const PAGE: u32 = 20;
const PAGE_OF_TRACINGS: u32 = 10;

/// How kinds are watched of which there may be many and large objects.
pub(crate) fn config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

/// How AgentTracings are watched: they are kept, and are read as JSON values first.
pub(crate) fn config_of_tracings() -> watcher::Config {
    watcher::Config::default().page_size(PAGE_OF_TRACINGS)
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
