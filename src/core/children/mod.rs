//! The objects of a standalone MLflow server, whole: what the controller applies is what stands here.
//!
//! Server-side apply removes what an earlier apply of the same manager had and this one has not, so a document is always
//! built from scratch and complete. What is empty is left out: an API server drops it, and it would look like drift.

pub mod binding;
mod deployment;
pub mod drift;
mod network;
pub mod quantity;

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, Service, ServiceSpec, VolumeResourceRequirements,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use serde::Serialize;
use serde_json::Value;

use crate::api::{AgentTracing, DeletionPolicy};
use crate::core::inject::record::short_hash;
use crate::core::settings::{Platform, Settings};
use crate::names;

/// The child objects of one AgentTracing in mode Standalone.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The server.
    pub deployment: Deployment,
    /// Its address.
    pub service: Service,
    /// Its volume; `None` where database and artifacts are both elsewhere. A claim that exists is **kept** then: it may
    /// hold the traces of before.
    pub claim: Option<PersistentVolumeClaim>,
    /// Who may connect; `None` where switched off. Ours is deleted then.
    pub network_policy: Option<NetworkPolicy>,
}

/// The child objects that these settings ask for on this platform.
pub fn desired(settings: &Settings, platform: &Platform) -> Desired {
    Desired {
        deployment: with_applied_hash(deployment::deployment(settings, platform)),
        service: with_applied_hash(network::service(settings)),
        claim: needs_volume(settings).then(|| with_applied_hash(claim(settings))),
        network_policy: network::network_policy(settings, platform).map(with_applied_hash),
    }
}

/// Whether a Service of the server's name leads to the server's pods and nowhere else.
pub fn leads_to_server(settings: &Settings, live: &Value) -> bool {
    let wanted = network::service(settings).spec.unwrap_or_default();
    let Some(spec) = live.get("spec").cloned() else { return false };
    let Ok(live) = serde_json::from_value::<ServiceSpec>(spec) else { return false };
    let cluster_ip = live.type_.as_deref().is_none_or(|of| of == "ClusterIP");
    // Without a selector its endpoints are whatever somebody wrote.
    cluster_ip && live.external_name.is_none() && live.selector == wanted.selector
}

fn claim(settings: &Settings) -> PersistentVolumeClaim {
    let standalone = &settings.standalone;
    let mut metadata = metadata(settings);
    // Traces are data: by default the claim belongs to nobody and outlives the AgentTracing.
    if standalone.deletion_policy == DeletionPolicy::Retain {
        metadata.owner_references = None;
    }
    PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(standalone.storage_size.clone()))])),
                limits: None,
            }),
            storage_class_name: standalone.storage_class_name.clone(),
            ..Default::default()
        }),
        status: None,
    }
}

fn needs_volume(settings: &Settings) -> bool {
    settings.standalone.backend_store_secret.is_none() || settings.standalone.artifacts.is_none()
}

fn metadata(settings: &Settings) -> ObjectMeta {
    ObjectMeta {
        name: Some(settings.object_name()),
        namespace: Some(settings.namespace.clone()),
        labels: Some(labels(settings)),
        owner_references: Some(vec![owner(settings)]),
        ..Default::default()
    }
}

fn owner(settings: &Settings) -> OwnerReference {
    reference(&settings.name, &settings.uid)
}

fn reference(name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: AgentTracing::api_version(&()).into_owned(),
        kind: AgentTracing::kind(&()).into_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        // True would need the right to update `agenttracings/finalizers` where OwnerReferencesPermissionEnforcement is
        // on, as it is on OpenShift.
        block_owner_deletion: Some(false),
    }
}

fn labels(settings: &Settings) -> BTreeMap<String, String> {
    let more = [
        (names::LABEL_MANAGED_BY, names::MANAGED_BY),
        (names::LABEL_COMPONENT, names::MLFLOW),
        (names::LABEL_PART_OF, names::PART_OF),
    ];
    let more = more.map(|(key, value)| (key.to_owned(), value.to_owned()));
    selector_labels(settings).into_iter().chain(more).collect()
}

/// What finds the server's pods. A Deployment's selector is immutable, so this may never change between versions.
fn selector_labels(settings: &Settings) -> BTreeMap<String, String> {
    BTreeMap::from([
        (names::LABEL_NAME.to_owned(), names::MLFLOW.to_owned()),
        (names::LABEL_INSTANCE.to_owned(), settings.name.clone()),
    ])
}

/// The object with a short hash of itself, by which a field is noticed that we no longer want.
fn with_applied_hash<K: Resource + Serialize>(mut object: K) -> K {
    // A type of k8s-openapi always serializes.
    let text = serde_json::to_string(&object).unwrap_or_default();
    let hash = short_hash(std::iter::once(text.as_str()));
    let annotations = object.meta_mut().annotations.get_or_insert_default();
    annotations.insert(names::ANNOTATION_APPLIED.to_owned(), hash);
    object
}

/// `None` for an empty list or map.
fn non_empty<T: IntoIterator + Clone>(list: &T) -> Option<T> {
    list.clone().into_iter().next().is_some().then(|| list.clone())
}
