//! The objects of a standalone MLflow server, whole: what the controller applies is what stands here.

mod deployment;
mod network;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::settings::{Platform, Settings};

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
    let _ = (settings, platform);
    Desired {
        deployment: deployment::deployment(settings, platform),
        service: network::service(settings),
        claim: None,
        network_policy: network::network_policy(settings, platform),
    }
}
