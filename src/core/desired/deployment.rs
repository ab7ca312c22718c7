//! The server's Deployment.

use k8s_openapi::api::apps::v1::Deployment;

use crate::core::settings::{Platform, Settings};

/// The Deployment.
pub fn deployment(_settings: &Settings, _platform: &Platform) -> Deployment {
    Deployment::default()
}
