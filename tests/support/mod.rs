//! What several test files need.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};

use agent_tracing::api::AgentTracing;
use agent_tracing::core::policy::Policy;
use agent_tracing::core::settings;
use serde::Deserialize;
use serde_json::Value;

/// All documents of a YAML text.
pub fn documents(text: &str) -> Vec<Value> {
    let all = serde_yaml::Deserializer::from_str(text).map(|d| Value::deserialize(d).unwrap());
    all.filter(|d| !d.is_null()).collect()
}

/// The AgentTracings of a file, as if MLflow had answered at the address of their Service.
pub fn policies_of(file: &Path) -> Vec<Policy> {
    let tracings = documents(&std::fs::read_to_string(file).unwrap());
    tracings
        .into_iter()
        .map(|document| {
            let mut tracing: AgentTracing = serde_json::from_value(document).unwrap();
            tracing.metadata.namespace.get_or_insert("default".into());
            let settings = settings::parse(&tracing).unwrap();
            let uri = settings.tracking_uri();
            let mut policy = settings.policy;
            policy.tracking_uri.get_or_insert(uri);
            policy
        })
        .collect()
}

/// The folders below a folder of the crate, sorted.
pub fn folders(below: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(below);
    let mut out: Vec<_> = std::fs::read_dir(&root).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    out.sort();
    out
}
