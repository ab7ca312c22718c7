//! The record: what we added to a template, kept on the template itself.
//!
//! Removal follows this record and never server-side apply's field ownership, which depends on the verb of whoever wrote
//! last (kubernetes#87672, #129960). An entry is ours as long as its value still has the recorded hash; an edited one is
//! the user's from then on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Version of the wiring that this build writes. A record with a higher one is left alone: an older operator must not
/// undo what a newer one did during a rolling upgrade.
pub const WIRING_VERSION: u32 = 1;

/// The annotation's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Name of the AgentTracing.
    pub tracing: String,
    /// Hash of the wanted wiring as a whole.
    pub hash: String,
    /// Version of the wiring.
    pub version: u32,
    /// Per container the names of the variables that we added, each with a short hash of its value.
    pub containers: BTreeMap<String, RecordedContainer>,
    /// What we added to the pod.
    #[serde(default, skip_serializing_if = "RecordedPod::is_empty")]
    pub pod: RecordedPod,
    /// Parents that did not exist before us: removed with our last entry, if nobody else has filled them meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub created: Vec<String>,
}

/// What we added to one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedContainer {
    /// Environment variables and the short hash of each value.
    pub env: BTreeMap<String, String>,
    /// Mounts by their path, with the short hash of each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mounts: BTreeMap<String, String>,
}

/// What we added to the pod, each with a short hash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RecordedPod {
    /// Volumes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, String>,
    /// Init containers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub init_containers: BTreeMap<String, String>,
    /// Pull Secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub image_pull_secrets: BTreeMap<String, String>,
}

impl RecordedPod {
    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        let Self { volumes, init_containers, image_pull_secrets } = self;
        volumes.is_empty() && init_containers.is_empty() && image_pull_secrets.is_empty()
    }
}

/// Why a record cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It is not what we write.
    #[error("the annotation agenttracing.dev/injected cannot be read: {0}")]
    Unreadable(String),
    /// A newer operator wrote it.
    #[error("the annotation agenttracing.dev/injected was written by a newer operator (wiring version {0})")]
    FutureVersion(u32),
}

impl Record {
    /// Reads the annotation.
    pub fn parse(text: &str) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let unreadable = |e: serde_json::Error| RecordError::Unreadable(e.to_string());
        let Version { version } = serde_json::from_str(text).map_err(unreadable)?;
        if version > WIRING_VERSION {
            return Err(RecordError::FutureVersion(version));
        }
        serde_json::from_str(text).map_err(unreadable)
    }

    /// Notes that we made a parent which did not exist.
    pub fn note_created(&mut self, parent: &str) {
        if !self.created.iter().any(|c| c == parent) {
            self.created.push(parent.to_owned());
        }
    }

    /// Whether we made a parent.
    pub fn created(&self, parent: &str) -> bool {
        self.created.iter().any(|c| c == parent)
    }
}

/// Hash of one value: eight hexadecimal digits. Enough to notice an edit, too short to guess a value from.
pub fn value_hash(value: &str) -> String {
    short_hash(std::iter::once(value))
}

/// Hash over several strings; a separator keeps `["ab"]` and `["a", "b"]` apart.
pub fn short_hash<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    let [a, b, c, d, ..] = <[u8; 32]>::from(hasher.finalize());
    format!("{:08x}", u32::from_be_bytes([a, b, c, d]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_from_a_newer_operator_is_told_apart_from_garbage() {
        let newer = r#"{"version":2,"something":"new"}"#;
        assert_eq!(Record::parse(newer), Err(RecordError::FutureVersion(2)));
        assert!(matches!(Record::parse("{"), Err(RecordError::Unreadable(_))));
        assert!(matches!(Record::parse(r#"{"version":1}"#), Err(RecordError::Unreadable(_))));
    }

    /// It stands on every wired template: another spelling would roll them all.
    #[test]
    fn a_hash_is_the_first_four_bytes_of_a_sha_256() {
        assert_eq!(value_hash("a"), "ffe9aaea");
        assert_eq!(value_hash("108"), "002f380a");
    }

    #[test]
    fn hashes_keep_neighbouring_strings_apart() {
        assert_ne!(short_hash(["ab"].into_iter()), short_hash(["a", "b"].into_iter()));
    }
}
