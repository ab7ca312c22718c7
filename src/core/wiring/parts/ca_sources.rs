//! The ConfigMaps of a namespace with certificate authorities.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::api::ConfigMapKey;
use crate::core::settings::policy::CaChoice;

/// Every one may be absent: a pod must start without any of them.
pub(super) fn projected_sources(config_maps: &[ConfigMapKey]) -> Vec<Value> {
    ca_sources_of(config_maps)
        .into_iter()
        .map(|(name, key, path)| {
            json!({"configMap": {"name": name, "items": [{"key": key, "path": path}], "optional": true}})
        })
        .collect()
}

/// ConfigMap, key and the file that it becomes: those that are known, then the user's.
pub(in crate::core) fn ca_sources_of(config_maps: &[ConfigMapKey]) -> Vec<(String, String, String)> {
    let known = CA_CONFIG_MAPS.map(|(name, key)| (name, key, format!("{name}-{key}")));
    // Names of ConfigMaps and keys have no slash, and the numbers keep equal ones apart.
    let users = config_maps
        .iter()
        .enumerate()
        .map(|(n, source)| (source.name.as_str(), source.key.as_str(), format!("{n}-{}-{}", source.name, source.key)));
    known.into_iter().chain(users).map(|(name, key, path)| (name.to_owned(), key.to_owned(), path)).collect()
}

/// The ConfigMaps and keys that the operator merges for a namespace, each once.
pub fn ca_sources<'c>(choices: impl Iterator<Item = &'c CaChoice>) -> Vec<(String, String)> {
    let known = CA_CONFIG_MAPS.map(|(name, key)| (name.to_owned(), key.to_owned()));
    let users = choices.flat_map(|choice| &choice.config_maps).map(|source| (source.name.clone(), source.key.clone()));
    let mut seen = BTreeSet::new();
    known.into_iter().chain(users).filter(|source| seen.insert(source.clone())).collect()
}

/// ConfigMaps and their keys with certificate authorities that OpenShift and OpenShift AI put into every namespace.
const CA_CONFIG_MAPS: [(&str, &str); 3] = [
    ("openshift-service-ca.crt", "service-ca.crt"),
    ("odh-trusted-ca-bundle", "ca-bundle.crt"),
    ("odh-trusted-ca-bundle", "odh-ca-bundle.crt"),
];
