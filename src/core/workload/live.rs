//! How far a workload's pods are, from what its controller says of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use super::{Rollout, Trouble};
use crate::names;

/// Seconds that a workload has to become available where it does not say.
const DEADLINE: i64 = 600;

/// What is looked at of a workload beside its template.
#[derive(Deserialize)]
pub(super) struct Live {
    pub metadata: LiveMetadata,
    pub spec: LiveSpec,
    #[serde(default)]
    pub status: LiveStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LiveMetadata {
    #[serde(default)]
    pub uid: String,
    #[serde(default)]
    pub resource_version: String,
    #[serde(default)]
    generation: i64,
    #[serde(default)]
    pub owner_references: Vec<LiveOwner>,
    #[serde(default)]
    managed_fields: Vec<LiveManager>,
}

#[derive(Deserialize)]
pub(super) struct LiveOwner {
    #[serde(default)]
    pub controller: bool,
}

#[derive(Deserialize)]
struct LiveManager {
    #[serde(default)]
    manager: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    time: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LiveSpec {
    #[serde(default)]
    pub paused: bool,
    #[serde(default)]
    replicas: Option<i64>,
    #[serde(default)]
    progress_deadline_seconds: Option<i64>,
    #[serde(default)]
    pub selector: LiveSelector,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LiveSelector {
    match_labels: BTreeMap<String, String>,
}

impl LiveSelector {
    /// Expressions are left out: the record annotation tells a workload's pods from others' anyway.
    pub fn as_query(&self) -> String {
        self.match_labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LiveStatus {
    observed_generation: i64,
    replicas: i64,
    updated_replicas: i64,
    available_replicas: i64,
    conditions: Vec<LiveCondition>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LiveCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
    last_update_time: Option<Timestamp>,
    last_transition_time: Option<Timestamp>,
}

impl Live {
    /// Judged by what the deployment controller says, so that a pod that restarts later is no rollout.
    pub fn rollout(&self) -> Rollout {
        let status = &self.status;
        let condition = |kind: &str| status.conditions.iter().find(|c| c.kind == kind);
        let progressing = condition("Progressing");
        let seen = status.observed_generation >= self.metadata.generation;
        let done = match progressing {
            Some(progressing) => progressing.reason == "NewReplicaSetAvailable",
            // Not reported without a progress deadline.
            None => status.available_replicas >= status.updated_replicas,
        };
        let complete = seen && done && status.replicas == status.updated_replicas;
        let available = condition("Available").filter(|c| c.status == "True").and_then(|c| c.last_transition_time);
        let rolled = progressing.and_then(|c| c.last_update_time);
        let failing =
            [condition("ReplicaFailure").filter(|c| c.status == "True"), progressing.filter(|c| c.status == "False")];
        let trouble = |c: &LiveCondition| Trouble {
            reason: c.reason.chars().take(64).collect(),
            message: c.message.chars().take(300).collect(),
            since: c.last_transition_time,
        };
        Rollout {
            complete,
            available_since: available
                .filter(|_| complete && status.available_replicas > 0)
                .map(|a| rolled.map_or(a, |r| r.max(a))),
            trouble: failing.into_iter().flatten().find(|_| seen).map(trouble),
            wanted: self.spec.replicas.unwrap_or(1),
            available: status.available_replicas,
            deadline: self.spec.progress_deadline_seconds.unwrap_or(DEADLINE).clamp(1, 24 * 3600),
        }
    }

    /// Who wrote the object last, beside us and the controllers that write its status.
    pub fn last_manager(&self) -> Option<String> {
        let theirs = |m: &&LiveManager| m.subresource.is_empty() && m.manager != names::FIELD_MANAGER;
        let last = self.metadata.managed_fields.iter().filter(theirs).max_by_key(|m| m.time)?;
        Some(last.manager.chars().take(128).collect())
    }
}
