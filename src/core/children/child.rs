//! An object that the operator owns: what it has to be, whose it is, and what to do about the one that exists.
//!
//! A new child is one function of [`super`] that returns a [`Child`]; reading, comparing, applying, replacing and deleting
//! are the same for all of them.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use kube::core::ApiResource;
use serde::Serialize;
use serde_json::{Value, json};

use super::drift::{has_drifted, is_exact};
use crate::api::{AgentTracing, Reason};
use crate::core::inject::record::short_hash;
use crate::names;

/// One object that the operator owns.
#[derive(Clone, Debug)]
pub struct Child {
    /// Its kind.
    pub resource: ApiResource,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it has to be.
    pub wanted: Wanted,
    /// When an object that exists under this name is ours.
    pub adopt: Adopt,
    /// Pointers to fields that hold exactly what is wanted: a server-side apply leaves what other writers own in them.
    pub exact: &'static [&'static str],
    /// Pointers to fields that the API server never changes: the object is replaced where one of them differs.
    pub immutable: &'static [&'static str],
    /// The reason of the condition where the API server does not take it.
    pub refused: Reason,
}

/// What an object has to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// This, whole: what an earlier apply had and this one has not is removed.
    Object(Value),
    /// Absent: ours is deleted.
    Absent,
    /// Whatever it is: not needed, and kept since it may hold data.
    AsItIs,
}

/// When an object that exists is ours. One that is not is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adopt {
    /// It serves one AgentTracing: ours where that owns it, or where the labels name one of that name, so that a retained
    /// claim is adopted by the next.
    OfTracing(TracingOwner),
    /// AgentTracings share it: ours by the label of its manager alone.
    Shared(Purpose),
}

/// What a shared object is there for, in the messages about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// Who uses it, as a clause that begins with a comma, or nothing.
    pub users: &'static str,
    /// What is missing without it, as a clause that begins with a comma, or nothing.
    pub loss: &'static str,
}

/// Who owns an object, so that it goes with the last of them, also when no operator runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owners {
    /// It outlives every AgentTracing.
    Nobody,
    /// The AgentTracing that it serves.
    Controller(TracingOwner),
    /// Every AgentTracing that uses it.
    Users(BTreeSet<TracingOwner>),
}

/// An AgentTracing as an owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TracingOwner {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// What is to be done about a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: it is as wanted, or it is going and comes back after it is gone.
    Nothing,
    /// Nothing: somebody else's object has its name.
    NotOurs,
    /// A server-side apply.
    Apply,
    /// Delete it, then apply: the API server never changes what differs.
    Replace,
    /// Delete it.
    Delete,
}

impl Child {
    /// An object that is to be as `object` says. Its owners and the hash of itself, by which a field is noticed that we no
    /// longer want, are added here.
    pub fn new<K: Resource<DynamicType = ()> + Serialize>(mut object: K, owners: &Owners, adopt: Adopt) -> Self {
        object.meta_mut().owner_references = owners.references();
        // A type of k8s-openapi always serializes.
        let text = serde_json::to_string(&object).unwrap_or_default();
        let hash = short_hash(std::iter::once(text.as_str()));
        object.meta_mut().annotations.get_or_insert_default().insert(names::ANNOTATION_APPLIED.to_owned(), hash);
        let metadata = object.meta();
        let text = |of: &Option<String>| of.clone().unwrap_or_default();
        let (namespace, name) = (text(&metadata.namespace), text(&metadata.name));
        let wanted = Wanted::Object(serde_json::to_value(&object).unwrap_or_default());
        Self { wanted, ..Self::unwanted::<K>(&namespace, &name, adopt) }
    }

    /// An object that is not to be there.
    pub fn unwanted<K: Resource<DynamicType = ()>>(namespace: &str, name: &str, adopt: Adopt) -> Self {
        Self {
            resource: ApiResource::erase::<K>(&()),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            wanted: Wanted::Absent,
            adopt,
            exact: &[],
            immutable: &[],
            refused: Reason::InvalidSpec,
        }
    }

    /// Its kind.
    pub fn kind(&self) -> &str {
        &self.resource.kind
    }

    /// Kind, namespace and name, which together name no other object.
    pub fn key(&self) -> String {
        format!("{} {}/{}", self.kind(), self.namespace, self.name)
    }

    /// The whole object, where one is wanted.
    pub fn object(&self) -> Option<&Value> {
        match &self.wanted {
            Wanted::Object(object) => Some(object),
            Wanted::Absent | Wanted::AsItIs => None,
        }
    }

    /// Whether the object that exists under its name is ours.
    pub fn is_ours(&self, live: &Value) -> bool {
        let label = |name: &str| live.pointer("/metadata/labels").and_then(|l| l.get(name)).and_then(Value::as_str);
        let is_managed = label(names::LABEL_MANAGED_BY) == Some(names::MANAGED_BY);
        match &self.adopt {
            Adopt::Shared(_) => is_managed,
            Adopt::OfTracing(TracingOwner { name, uid }) => {
                let owners = live.pointer("/metadata/ownerReferences").and_then(Value::as_array);
                let is_owned =
                    owners.into_iter().flatten().any(|o| o.get("uid").and_then(Value::as_str) == Some(uid.as_str()));
                is_owned || (is_managed && label(names::LABEL_INSTANCE) == Some(name.as_str()))
            }
        }
    }

    /// What is to be done about it, as it is now.
    pub fn change(&self, live: Option<&Value>) -> Change {
        let is_going = live.is_some_and(|live| live.pointer("/metadata/deletionTimestamp").is_some());
        match (&self.wanted, live) {
            (Wanted::AsItIs, _) | (Wanted::Absent, None) => Change::Nothing,
            (Wanted::Absent, Some(live)) if is_going || !self.is_ours(live) => Change::Nothing,
            (Wanted::Absent, Some(_)) => Change::Delete,
            (Wanted::Object(_), None) => Change::Apply,
            (Wanted::Object(_), Some(live)) if !self.is_ours(live) => Change::NotOurs,
            (Wanted::Object(_), Some(_)) if is_going => Change::Nothing,
            (Wanted::Object(wanted), Some(live)) if !are_exact(self.immutable, wanted, live) => Change::Replace,
            (Wanted::Object(wanted), Some(live))
                if has_drifted(wanted, live) || !are_exact(self.exact, wanted, live) =>
            {
                Change::Apply
            }
            (Wanted::Object(_), Some(_)) => Change::Nothing,
        }
    }

    /// The merge patch that brings the exact fields about which an apply left otherwise; `None` where all of them are.
    pub fn exact_patch(&self, live: &Value) -> Option<Value> {
        let wanted = self.object().filter(|wanted| !are_exact(self.exact, wanted, live))?;
        let mut patch = json!({});
        for pointer in self.exact {
            // A field that is to be absent stands there as null: that is how a merge patch removes it.
            let field = pointer.split('/').skip(1).fold(&mut patch, |at, field| &mut at[field]);
            *field = wanted.pointer(pointer).cloned().unwrap_or_default();
        }
        Some(patch)
    }
}

fn are_exact(pointers: &[&str], wanted: &Value, live: &Value) -> bool {
    pointers.iter().all(|pointer| is_exact(wanted.pointer(pointer), live.pointer(pointer)))
}

impl Owners {
    fn references(&self) -> Option<Vec<OwnerReference>> {
        match self {
            Self::Nobody => None,
            Self::Controller(owner) => Some(vec![OwnerReference { controller: Some(true), ..owner.reference() }]),
            // No controller: there is only one of those, and the others must keep the object as well.
            Self::Users(users) => Some(users.iter().map(TracingOwner::reference).collect()),
        }
    }
}

impl TracingOwner {
    fn reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: AgentTracing::api_version(&()).into_owned(),
            kind: AgentTracing::kind(&()).into_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            controller: None,
            // True would need the right to update `agenttracings/finalizers` where OwnerReferencesPermissionEnforcement is
            // on, as it is on OpenShift.
            block_owner_deletion: Some(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::super::namespace::{ca_config_map, role_binding};
    use super::*;

    fn owner(name: &str) -> TracingOwner {
        TracingOwner { name: name.to_owned(), uid: format!("uid-of-{name}") }
    }

    fn metadata(name: &str) -> ObjectMeta {
        ObjectMeta { name: Some(name.to_owned()), namespace: Some("bank".to_owned()), ..ObjectMeta::default() }
    }

    fn deployment(name: &str) -> Child {
        let deployment = Deployment { metadata: metadata(name), ..Deployment::default() };
        Child::new(deployment, &Owners::Controller(owner("tracing")), Adopt::OfTracing(owner("tracing")))
    }

    /// As it is stored.
    fn stored(child: &Child) -> Value {
        let mut live = child.object().cloned().unwrap();
        json_patch::merge(&mut live, &json!({"metadata": {"uid": "u", "resourceVersion": "7"}}));
        live
    }

    fn with(mut live: Value, change: Value) -> Value {
        json_patch::merge(&mut live, &change);
        live
    }

    /// Review 3.2(3), 4(b): a Deployment, ConfigMap or RoleBinding of another name is brought about by the same rules.
    #[test]
    fn whatever_is_wanted_is_applied_where_it_is_absent_or_ours_and_different() {
        let users = BTreeSet::from(["a", "b"].map(owner));
        for child in [
            deployment("tracing-relay"),
            ca_config_map("bank", "pem".to_owned()),
            role_binding("bank", users, &BTreeSet::new(), "system", "role"),
        ] {
            let mut live = stored(&child);
            live["metadata"]["labels"]["app.kubernetes.io/managed-by"] = json!(names::MANAGED_BY);
            assert_eq!(child.change(None), Change::Apply, "{}", child.key());
            assert_eq!(child.change(Some(&live)), Change::Nothing);
            let hash = json!({"metadata": {"annotations": {(names::ANNOTATION_APPLIED): "00000000"}}});
            let drifted = with(live.clone(), hash);
            assert_eq!(child.change(Some(&drifted)), Change::Apply, "a field that is no longer wanted");
            let going = with(drifted, json!({"metadata": {"deletionTimestamp": "2026-11-21T10:00:00Z"}}));
            assert_eq!(child.change(Some(&going)), Change::Nothing, "it comes back after it is gone");
            let theirs = with(live, json!({"metadata": {"ownerReferences": null, "labels": null}}));
            assert_eq!(child.change(Some(&theirs)), Change::NotOurs);

            let unwanted = Child { wanted: Wanted::Absent, ..child.clone() };
            assert_eq!(unwanted.change(None), Change::Nothing);
            assert_eq!(unwanted.change(Some(&stored(&child))) == Change::Delete, child.is_ours(&stored(&child)));
            assert_eq!(unwanted.change(Some(&theirs)), Change::Nothing);
            assert_eq!(unwanted.change(Some(&going)), Change::Nothing);
            let kept = Child { wanted: Wanted::AsItIs, ..child };
            assert_eq!([kept.change(None), kept.change(Some(&going))], [Change::Nothing, Change::Nothing]);
        }
    }

    #[test]
    fn what_serves_one_agenttracing_is_ours_by_owner_or_by_the_labels_of_its_name() {
        let child = deployment("tracing-relay");
        let labels = |instance: &str| json!({"app.kubernetes.io/managed-by": names::MANAGED_BY, "app.kubernetes.io/instance": instance});
        for (live, ours) in [
            (json!({"metadata": {"ownerReferences": [{"uid": "uid-of-tracing"}]}}), true),
            (json!({"metadata": {"ownerReferences": [{"uid": "uid-of-other"}]}}), false),
            (json!({"metadata": {"labels": labels("tracing")}}), true),
            (json!({"metadata": {"labels": labels("other")}}), false),
            (json!({"metadata": {"labels": {"app.kubernetes.io/instance": "tracing"}}}), false),
        ] {
            assert_eq!(child.is_ours(&live), ours, "{live}");
        }
    }

    #[test]
    fn owners_are_the_controller_all_users_or_nobody() {
        let map = |owners: &Owners| {
            let map = ConfigMap { metadata: metadata("m"), ..ConfigMap::default() };
            let child = Child::new(map, owners, Adopt::OfTracing(owner("a")));
            child.object().unwrap()["metadata"].get("ownerReferences").cloned()
        };
        let reference = |name: &str, controller: Option<bool>| {
            let mut reference = json!({
                "apiVersion": "agenttracing.dev/v1alpha1", "kind": "AgentTracing", "name": name, "uid": format!("uid-of-{name}"),
                "blockOwnerDeletion": false,
            });
            if let Some(controller) = controller {
                reference["controller"] = json!(controller);
            }
            reference
        };
        assert_eq!(map(&Owners::Nobody), None);
        assert_eq!(map(&Owners::Controller(owner("a"))), Some(json!([reference("a", Some(true))])));
        let users = Owners::Users(BTreeSet::from(["b", "a"].map(owner)));
        assert_eq!(map(&users), Some(json!([reference("a", None), reference("b", None)])));
    }

    #[test]
    fn exact_fields_are_those_that_are_wanted_and_no_more() {
        let accounts = BTreeSet::from(["teller".to_owned()]);
        let binding = role_binding("bank", BTreeSet::from([owner("a")]), &accounts, "system", "role");
        let live = stored(&binding);
        assert_eq!(binding.exact_patch(&live), None);
        let mut more = live.clone();
        more["subjects"].as_array_mut().unwrap().push(json!({"kind": "User", "name": "mallory"}));
        assert_eq!(binding.change(Some(&more)), Change::Apply);
        let patch = binding.exact_patch(&more).unwrap();
        assert_eq!(patch["subjects"], live["subjects"]);
        assert_eq!(patch["metadata"], json!({"ownerReferences": live["metadata"]["ownerReferences"]}));
        assert_eq!(patch.as_object().unwrap().len(), 2, "nothing else is sent");

        let map = ca_config_map("bank", "pem".to_owned());
        let owned = with(stored(&map), json!({"metadata": {"ownerReferences": [{"name": "a", "uid": "uid-of-a"}]}}));
        assert_eq!(map.change(Some(&owned)), Change::Apply, "it would go with its owner");
        assert_eq!(map.exact_patch(&owned), Some(json!({"metadata": {"ownerReferences": null}})));
    }

    #[test]
    fn what_cannot_be_changed_is_replaced() {
        let binding = |role: &str| role_binding("bank", BTreeSet::from([owner("a")]), &BTreeSet::new(), "system", role);
        assert_eq!(binding("new").change(Some(&stored(&binding("old")))), Change::Replace);
    }
}
