//! The RoleBinding by which agents, and the observer on their behalf, may write to the shared MLflow of mode CR.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::{reference, with_applied_hash};
use crate::names;

/// One AgentTracing that uses what a namespace shares.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TracingOwner {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// The RoleBinding of a namespace. It belongs to every AgentTracing that uses it and goes with the last of them, also when
/// no operator runs.
pub fn role_binding(
    namespace: &str,
    users: &BTreeSet<TracingOwner>,
    accounts: &BTreeSet<String>,
    operator_namespace: &str,
    role: &str,
) -> RoleBinding {
    let subject = |namespace: &str, name: &str| Subject {
        kind: "ServiceAccount".to_owned(),
        name: name.to_owned(),
        namespace: Some(namespace.to_owned()),
        api_group: None,
    };
    let agents = accounts.iter().map(|account| subject(namespace, account));
    with_applied_hash(RoleBinding {
        metadata: metadata(names::ROLE_BINDING, namespace, users),
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".to_owned()),
            kind: "ClusterRole".to_owned(),
            name: role.to_owned(),
        },
        subjects: Some([subject(operator_namespace, names::OBSERVER)].into_iter().chain(agents).collect()),
    })
}

/// The ConfigMap with the merged certificate authorities of a namespace. It belongs to nobody: whoever deletes an AgentTracing
/// must not take the file from agents that run.
pub fn ca_config_map(namespace: &str, pem: String) -> ConfigMap {
    with_applied_hash(ConfigMap {
        metadata: ObjectMeta { owner_references: None, ..metadata(names::CA_CONFIG_MAP, namespace, &BTreeSet::new()) },
        data: Some(BTreeMap::from([(names::CA_FILE.to_owned(), pem)])),
        ..ConfigMap::default()
    })
}

fn metadata(name: &str, namespace: &str, users: &BTreeSet<TracingOwner>) -> ObjectMeta {
    let labels = [(names::LABEL_MANAGED_BY, names::MANAGED_BY), (names::LABEL_PART_OF, names::PART_OF)];
    // No controller: there is only one of those, and the others must keep the object as well.
    let owners = users.iter().map(|user| OwnerReference { controller: None, ..reference(&user.name, &user.uid) });
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        owner_references: Some(owners.collect()),
        ..ObjectMeta::default()
    }
}
