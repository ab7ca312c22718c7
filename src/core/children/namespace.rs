//! What the AgentTracings of a namespace share: the RoleBinding by which agents, and the observer on their behalf, may write
//! to the shared MLflow of mode CR, the rights of relays, and the ConfigMap with certificate authorities.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::child::{Adopt, Child, Owners, Purpose, TracingOwner};
use crate::api::Reason;
use crate::names;

/// The RoleBinding of a namespace. It belongs to every AgentTracing that uses it and goes with the last of them, also when
/// no operator runs.
pub fn role_binding(
    namespace: &str,
    users: BTreeSet<TracingOwner>,
    accounts: &BTreeSet<String>,
    operator_namespace: &str,
    role: &str,
) -> Child {
    let agents = accounts.iter().map(|account| subject(namespace, account));
    let binding = RoleBinding {
        metadata: metadata(names::ROLE_BINDING, namespace),
        role_ref: role_ref("ClusterRole", role),
        subjects: Some([subject(operator_namespace, names::OBSERVER)].into_iter().chain(agents).collect()),
    };
    Child {
        // Whoever may write to MLflow here is decided by the workloads alone.
        exact: &["/subjects", OWNERS],
        immutable: &["/roleRef"],
        refused: Reason::BindForbidden,
        ..Child::new(binding, &Owners::Users(users), Adopt::Shared(Purpose { users: "", loss: "" }))
    }
}

/// The Role of the relays of a namespace, absent where there is none: each watches its own AgentTracing.
pub fn relay_role(namespace: &str, users: BTreeSet<TracingOwner>) -> Child {
    if users.is_empty() {
        return Child::unwanted::<Role>(namespace, names::RELAY_ROLE, Adopt::Shared(OF_RELAYS));
    }
    let role = Role {
        metadata: metadata(names::RELAY_ROLE, namespace),
        rules: Some(vec![PolicyRule {
            api_groups: Some(vec![names::GROUP.to_owned()]),
            resources: Some(vec!["agenttracings".to_owned()]),
            verbs: ["get", "list", "watch"].map(str::to_owned).to_vec(),
            ..PolicyRule::default()
        }]),
    };
    Child {
        exact: &["/rules", OWNERS],
        refused: Reason::CreateForbidden,
        ..Child::new(role, &Owners::Users(users), Adopt::Shared(OF_RELAYS))
    }
}

/// The RoleBinding of that Role to the accounts of the relays.
pub fn relay_role_binding(namespace: &str, users: BTreeSet<TracingOwner>) -> Child {
    if users.is_empty() {
        return Child::unwanted::<RoleBinding>(namespace, names::RELAY_ROLE, Adopt::Shared(OF_RELAYS));
    }
    let accounts = users.iter().map(|user| subject(namespace, &names::relay_object(&user.name))).collect();
    let binding = RoleBinding {
        metadata: metadata(names::RELAY_ROLE, namespace),
        role_ref: role_ref("Role", names::RELAY_ROLE),
        subjects: Some(accounts),
    };
    Child {
        exact: &["/subjects", OWNERS],
        immutable: &["/roleRef"],
        refused: Reason::CreateForbidden,
        ..Child::new(binding, &Owners::Users(users), Adopt::Shared(OF_RELAYS))
    }
}

const OF_RELAYS: Purpose = Purpose {
    users: ", by which the relays of the namespace read where MLflow is",
    loss: ", and no relay of the namespace learns where MLflow is",
};

fn subject(namespace: &str, name: &str) -> Subject {
    Subject {
        kind: "ServiceAccount".to_owned(),
        name: name.to_owned(),
        namespace: Some(namespace.to_owned()),
        api_group: None,
    }
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: Some("rbac.authorization.k8s.io".to_owned()), kind: kind.to_owned(), name: name.to_owned() }
}

/// The ConfigMap with the merged certificate authorities of a namespace. It belongs to nobody: whoever deletes an AgentTracing
/// must not take the file from agents that run.
pub fn ca_config_map(namespace: &str, pem: String) -> Child {
    let map = ConfigMap {
        metadata: metadata(names::CA_CONFIG_MAP, namespace),
        data: Some(BTreeMap::from([(names::CA_FILE.to_owned(), pem)])),
        ..ConfigMap::default()
    };
    let purpose = Purpose {
        users: ", from which agents take their certificate authorities",
        loss: ", and agents have no certificate authorities to take from it",
    };
    // An earlier operator made AgentTracings its owners, with which it would go.
    let exact = &[OWNERS];
    Child { exact, refused: Reason::CreateForbidden, ..Child::new(map, &Owners::Nobody, Adopt::Shared(purpose)) }
}

fn metadata(name: &str, namespace: &str) -> ObjectMeta {
    let labels = [(names::LABEL_MANAGED_BY, names::MANAGED_BY), (names::LABEL_PART_OF, names::PART_OF)];
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        ..ObjectMeta::default()
    }
}

const OWNERS: &str = "/metadata/ownerReferences";
