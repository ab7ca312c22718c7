//! The objects that the operator owns, whole: what the controller applies is what stands here. [`child`] says how.
//!
//! Server-side apply removes what an earlier apply of the same manager had and this one has not, so a document is always
//! built from scratch and complete. What is empty is left out: an API server drops it, and it would look like drift.

pub mod child;
pub mod claim;
mod deployment;
pub mod drift;
pub mod namespace;
mod network;
pub mod obstacle;
pub mod quantity;
mod relay;
mod relay_pods;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ServiceSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use self::child::{Adopt, Child, Owners, TracingOwner};
use crate::core::settings::{Platform, Settings, StandaloneSettings};
use crate::names;
pub use relay::{DesiredRelay, desired_relay, unwanted_relay};

/// The child objects of one AgentTracing in mode Standalone.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The server.
    pub deployment: Child,
    /// Its address.
    pub service: Child,
    /// Its volume.
    pub claim: Child,
    /// Who may connect.
    pub network_policy: Child,
}

/// The child objects of a standalone server of these settings on this platform.
pub fn desired(settings: &Settings, standalone: &StandaloneSettings, platform: &Platform) -> Desired {
    let owners = Owners::Controller(owner(settings));
    Desired {
        deployment: Child::new(deployment::deployment(settings, standalone, platform), &owners, of_tracing(settings)),
        service: Child::new(network::service(settings, standalone), &owners, of_tracing(settings)),
        claim: claim::claim(settings, standalone),
        network_policy: network::network_policy(settings, standalone, platform, &owners),
    }
}

/// Whether a Service of the server's name leads to the server's pods and nowhere else.
pub fn leads_to_server(settings: &Settings, live: &Value) -> bool {
    let Some(spec) = live.get("spec").cloned() else { return false };
    let Ok(live) = serde_json::from_value::<ServiceSpec>(spec) else { return false };
    let cluster_ip = live.type_.as_deref().is_none_or(|of| of == "ClusterIP");
    // Without a selector its endpoints are whatever somebody wrote.
    cluster_ip && live.external_name.is_none() && live.selector == Some(selector_labels(settings))
}

fn needs_volume(standalone: &StandaloneSettings) -> bool {
    standalone.backend_store_secret.is_none() || standalone.artifacts.is_none()
}

fn metadata(settings: &Settings) -> ObjectMeta {
    ObjectMeta {
        name: Some(settings.object_name()),
        namespace: Some(settings.namespace.clone()),
        labels: Some(labels(settings)),
        ..Default::default()
    }
}

fn owner(settings: &Settings) -> TracingOwner {
    TracingOwner { name: settings.name.clone(), uid: settings.uid.clone() }
}

fn of_tracing(settings: &Settings) -> Adopt {
    Adopt::OfTracing(owner(settings))
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

/// `None` for an empty list or map.
fn non_empty<T: IntoIterator + Clone>(list: &T) -> Option<T> {
    list.clone().into_iter().next().is_some().then(|| list.clone())
}
