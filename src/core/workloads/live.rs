//! How far a workload's pods are, from what its controller says of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{RolloutFailure, RolloutProgress};
use crate::core::selection::kind::Kind;
use crate::names;

/// Seconds that a workload has to become available where it does not say.
const DEFAULT_PROGRESS_DEADLINE: i64 = 600;

/// What is looked at of a workload beside its template.
#[derive(Deserialize)]
pub(super) struct LiveWorkload {
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
    pub creation_timestamp: Option<Timestamp>,
    #[serde(default)]
    deletion_timestamp: Option<Timestamp>,
    #[serde(default)]
    pub owner_references: Vec<LiveOwner>,
    #[serde(default)]
    managed_fields: Vec<LiveManager>,
}

#[derive(Deserialize)]
pub(super) struct LiveOwner {
    #[serde(default)]
    pub controller: bool,
    #[serde(default)]
    uid: String,
}

#[derive(Deserialize)]
struct LiveManager {
    #[serde(default)]
    manager: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    time: Option<Timestamp>,
    /// Whether the touch is among its fields.
    #[serde(default, rename = "fieldsV1", deserialize_with = "names_touch")]
    touched: bool,
}

fn names_touch<'de, D: Deserializer<'de>>(fields: D) -> Result<bool, D::Error> {
    Ok(Box::<RawValue>::deserialize(fields)?.get().contains(names::ANNOTATION_TOUCH))
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
    update_strategy: Strategy,
    #[serde(default)]
    pub selector: LiveSelector,
}

/// How a StatefulSet or DaemonSet replaces its pods.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Strategy {
    #[serde(rename = "type")]
    kind: String,
    rolling_update: Option<RollingUpdate>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RollingUpdate {
    /// Pods of a StatefulSet below this ordinal keep the old template.
    partition: Option<i64>,
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
    current_revision: String,
    update_revision: String,
    desired_number_scheduled: i64,
    updated_number_scheduled: i64,
    number_available: i64,
    active: Active,
    last_successful_time: Option<Timestamp>,
    phase: String,
    conditions: Vec<LiveCondition>,
}

/// A CronJob lists its Jobs that are at work, a Job counts its pods.
#[derive(Deserialize)]
#[serde(untagged)]
enum Active {
    Jobs(Vec<ActiveJob>),
    Pods(i64),
}

impl Default for Active {
    fn default() -> Self {
        Self::Pods(0)
    }
}

#[derive(Deserialize)]
struct ActiveJob {
    #[serde(default)]
    name: String,
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

impl LiveWorkload {
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// When a Job was done, or the Job of a CronJob that succeeded last.
    pub fn ended(&self, kind: Kind) -> Option<Timestamp> {
        let done = |c: &&LiveCondition| ["Complete", "Failed"].contains(&c.kind.as_str()) && c.status == "True";
        match kind {
            Kind::Job => self.status.conditions.iter().find(done).map(|c| c.last_transition_time.unwrap_or_default()),
            Kind::CronJob => self.status.last_successful_time,
            Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet | Kind::Pod => None,
        }
    }

    /// A Pod that has ended or is about to: nothing can be said of it any more.
    pub fn is_gone(&self) -> bool {
        ["Succeeded", "Failed"].contains(&self.status.phase.as_str())
            || (!self.status.phase.is_empty() && self.metadata.deletion_timestamp.is_some())
    }

    /// The uid under which a workload is remembered: Pods come and go, their owner stays.
    pub fn uid(&self, kind: Kind) -> String {
        let owner = self.metadata.owner_references.iter().find(|owner| owner.controller && kind == Kind::Pod);
        owner.map_or(&self.metadata.uid, |owner| &owner.uid).clone()
    }

    /// The Jobs that are at work now and carry its template, or did: a Job is one itself.
    pub fn jobs(&self, kind: Kind, name: &str) -> Vec<String> {
        match (&self.status.active, kind) {
            (Active::Jobs(jobs), Kind::CronJob) => jobs.iter().map(|job| job.name.clone()).collect(),
            (Active::Pods(1..), Kind::Job) => vec![name.to_owned()],
            _ => Vec::new(),
        }
    }

    /// How far the pods are.
    pub fn rollout(&self, kind: Kind) -> RolloutProgress {
        let rollout = match kind {
            Kind::Deployment => self.deployment(),
            Kind::StatefulSet => self.stateful_set(),
            Kind::DaemonSet => self.daemon_set(),
            // Their pods come and go by themselves, each with the template of its day.
            Kind::CronJob | Kind::Job => RolloutProgress { complete: true, ..RolloutProgress::default() },
            Kind::Pod => {
                RolloutProgress { complete: true, available_since: self.ready_since(), ..RolloutProgress::default() }
            }
        };
        let deadline = self.spec.progress_deadline_seconds.unwrap_or(DEFAULT_PROGRESS_DEADLINE).clamp(1, 24 * 3600);
        RolloutProgress { deadline, on_delete: self.is_on_delete(), ..rollout }
    }

    fn is_on_delete(&self) -> bool {
        self.spec.update_strategy.kind == "OnDelete"
    }

    fn ready_since(&self) -> Option<Timestamp> {
        let ready = self.status.conditions.iter().find(|c| c.kind == "Ready" && c.status == "True");
        ready.and_then(|c| c.last_transition_time)
    }

    fn is_seen(&self) -> bool {
        self.status.observed_generation >= self.metadata.generation
    }

    fn stateful_set(&self) -> RolloutProgress {
        let LiveStatus { updated_replicas, available_replicas, current_revision, update_revision, .. } = &self.status;
        let wanted = self.spec.replicas.unwrap_or(1);
        let partition = self.spec.update_strategy.rolling_update.as_ref().and_then(|r| r.partition).unwrap_or(0);
        // With a partition the revisions stay apart for as long as its owner wants, with OnDelete for ever.
        let apart = partition > 0 || self.is_on_delete();
        let updated = current_revision == update_revision || (apart && *updated_replicas >= wanted - partition);
        RolloutProgress {
            complete: self.is_seen() && updated,
            wanted,
            available: *available_replicas,
            ..RolloutProgress::default()
        }
    }

    fn daemon_set(&self) -> RolloutProgress {
        let LiveStatus { desired_number_scheduled: wanted, updated_number_scheduled, number_available, .. } =
            self.status;
        let complete = self.is_seen() && updated_number_scheduled >= wanted;
        RolloutProgress { complete, wanted, available: number_available, ..RolloutProgress::default() }
    }

    /// Judged by what the deployment controller says, so that a pod that restarts later is no rollout.
    fn deployment(&self) -> RolloutProgress {
        let status = &self.status;
        let condition = |kind: &str| status.conditions.iter().find(|c| c.kind == kind);
        let progressing = condition("Progressing");
        let seen = self.is_seen();
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
        let failure = |c: &LiveCondition| RolloutFailure {
            reason: c.reason.chars().take(64).collect(),
            message: c.message.chars().take(300).collect(),
            since: c.last_transition_time,
        };
        RolloutProgress {
            complete,
            available_since: available
                .filter(|_| complete && status.available_replicas > 0)
                .map(|a| rolled.map_or(a, |r| r.max(a))),
            failure: failing.into_iter().flatten().find(|_| seen).map(failure),
            wanted: self.spec.replicas.unwrap_or(1),
            available: status.available_replicas,
            ..RolloutProgress::default()
        }
    }

    /// Whether somebody else wrote the touch that stands on the object: it would count as a change of ours that goes on for as
    /// long as its writer likes.
    pub fn has_foreign_touch(&self) -> bool {
        let mut writers = self.metadata.managed_fields.iter().filter(|manager| manager.touched).peekable();
        writers.peek().is_some() && writers.all(|writer| writer.manager != names::FIELD_MANAGER)
    }

    /// Who wrote the object last, beside us and the controllers that write its status.
    pub fn last_manager(&self) -> Option<String> {
        let theirs = |m: &&LiveManager| m.subresource.is_empty() && m.manager != names::FIELD_MANAGER;
        let last = self.metadata.managed_fields.iter().filter(theirs).max_by_key(|m| m.time)?;
        Some(last.manager.chars().take(128).collect())
    }
}
