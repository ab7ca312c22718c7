//! The server's Service and NetworkPolicy.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::NetworkPolicy;

use crate::core::settings::{Platform, Settings};

/// The Service.
pub fn service(_settings: &Settings) -> Service {
    Service::default()
}

/// The NetworkPolicy, where one is wanted.
pub fn network_policy(_settings: &Settings, _platform: &Platform) -> Option<NetworkPolicy> {
    None
}
