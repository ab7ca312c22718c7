//! A live workload judged: whose it is, what it lacks, how far its pods are, and where its traces go.

pub mod cause;
pub mod evidence;
mod injection_state;
mod live;
mod orphan;
pub mod pod_failures;
mod pods;
mod relay_route;
pub mod rhythm;
pub mod rollout;
mod trace_destination;

use jiff::Timestamp;
use json_patch::PatchOperation;

use self::injection_state::{injection_state, restrict_to_kind};
use self::live::LiveWorkload;
use crate::api::{Reason, WorkloadState};
use crate::core::clip::clip;
use crate::core::inject::existing_record;
use crate::core::inject::view::Workload;
use crate::core::relay::report::RelayRoute;
use crate::core::selection::kind::Kind;
use crate::core::selection::{Selection, SelectionContext, select};
use crate::core::settings::Platform;
use crate::core::settings::policy::Policy;
use crate::core::wiring::Missing;
use crate::core::wiring::otlp::Endpoint;
use crate::core::wiring::parts::FallbackReason;
use crate::core::wiring::parts::authorities;
use crate::names;
pub use orphan::{Orphan, orphan, wired, wired_by};
pub use pods::PodGroups;
pub use trace_destination::TraceDestination;

/// A workload and what one AgentTracing has to do with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessment {
    /// Kind.
    pub kind: Kind,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Resource version; guards a patch that was computed from this state.
    pub resource_version: String,
    /// It has a controlling owner that would undo a patch of its template: it is touched, never patched.
    pub owned: bool,
    /// `spec.paused`: it would not roll.
    pub paused: bool,
    /// Whether its template carries a record of ours.
    pub wired: bool,
    /// Whether it was wired once: the record is there, or the label on its metadata that those who strip templates leave.
    pub was_wired: bool,
    /// Whether the label is there that the webhook puts on the metadata of what it wires.
    pub was_labelled: bool,
    /// What the status said of it before: `Contested`, `Halted`.
    pub before: Option<WorkloadState>,
    /// Whether our last touch of it brought nothing, because no webhook answered.
    pub unanswered: bool,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Who wrote it last, beside us.
    pub last_manager: Option<String>,
    /// The init container that merges certificate authorities.
    pub merge_ca: MergeCaState,
    /// What is the case.
    pub injection_state: InjectionState,
    /// How far its pods follow its template.
    pub rollout: RolloutProgress,
    /// Where its traces go.
    pub experiment: TraceDestination,
    /// Where its own environment sends traces by OTLP.
    pub otlp: Option<Box<Endpoint>>,
    /// How it comes to the relay, where it does.
    pub relay: Option<Box<RelayRoute>>,
    /// What the user should know.
    pub notes: Vec<String>,
    /// The touch annotation.
    pub touch: Option<String>,
    /// The record annotation, which its pods carry too.
    pub record: Option<String>,
    /// Label selector of its pods.
    pub pods: String,
    /// The Jobs of it that are at work now, where the operator merges certificate authorities for them.
    pub jobs: Vec<String>,
    /// The service account of its pods.
    pub account: String,
    /// When its pods ended, where it says so: a finished Job, the last success of a CronJob.
    pub ended: Option<Timestamp>,
    /// Of Pods, which are listed by their owner: how that is called, and one of them.
    pub pod: Option<ListedPod>,
}

/// How Pods are listed: those of one owner as one, under its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPod {
    /// The owner's kind, or `Pod` where there is none.
    pub kind: String,
    /// The newest of the Pods.
    pub name: String,
}

/// What is the case with a workload.
#[derive(Clone, Debug, PartialEq)]
pub enum InjectionState {
    /// The template is as wanted.
    Current,
    /// The template should be changed.
    OutOfDate {
        /// Hash of the wanted wiring.
        hash: String,
        /// The change.
        patch: Vec<PatchOperation>,
    },
    /// It will be wired when this is known.
    Blocked(Missing),
    /// A newer operator wired it.
    FutureVersion,
    /// It is not wired.
    Skipped {
        /// Why.
        reason: Reason,
        /// The user wants it so, or it cannot be otherwise: nothing is wrong and it is not counted.
        deliberate: bool,
        /// What takes out an earlier wiring.
        leftover: Vec<PatchOperation>,
    },
    /// It carries the wiring of this AgentTracing, which no longer applies to it. This takes it out.
    ToRemove(Vec<PatchOperation>),
    /// It matches, but an older AgentTracing has it.
    OwnedByOther,
}

/// What became of the operator's own init container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergeCaState {
    /// Its pods have it.
    pub present: bool,
    /// Why the workload does without, if it does.
    pub fallback: Option<FallbackReason>,
    /// Its image, for people to read.
    pub image: String,
    /// Where its image comes from, as [`PodPart::source`](crate::core::wiring::parts::PodPart::source) names it.
    pub source: Option<String>,
    /// Jobs whose pods wait for it. A Job keeps the template that it was made with, so these never do without.
    pub waiting: Vec<String>,
}

impl MergeCaState {
    /// Whether it went wrong in this workload, so that the others are not to meet the same.
    pub fn has_failed(&self) -> bool {
        matches!(self.fallback, Some(FallbackReason::NotStarted | FallbackReason::Refused))
    }
}

/// How far a workload's pods follow its template.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RolloutProgress {
    /// All pods are of the current template.
    pub complete: bool,
    /// When its pods became available, if they are.
    pub available_since: Option<Timestamp>,
    /// Why it does not go on.
    pub failure: Option<RolloutFailure>,
    /// Pods that there should be.
    pub wanted: i64,
    /// Pods that are available.
    pub available: i64,
    /// Its pods are replaced by whoever deletes them.
    pub on_delete: bool,
    /// Seconds that a rollout may take.
    pub deadline: i64,
}

impl RolloutProgress {
    /// Whether a changed template makes pods unavailable for a while.
    pub fn replaces_pods(&self) -> bool {
        self.wanted > 0 && !self.on_delete
    }

    /// Whether a changed template replaces pods that are available now.
    pub fn has_to_lose(&self) -> bool {
        self.replaces_pods() && self.available > 0
    }
}

/// Why a rollout does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutFailure {
    /// In one word.
    pub reason: String,
    /// In a few.
    pub message: String,
    /// When it began.
    pub since: Option<Timestamp>,
}

impl Assessment {
    /// As `kubectl` takes it: `statefulset/teller`. Of Pods that are listed by their owner, whose kind `kubectl` may not know, one.
    pub fn resource(&self) -> String {
        resource(self.kind, self.pod.as_ref().map_or(&self.name, |pod| &pod.name))
    }

    /// The kind that it is listed as.
    pub fn listed_kind(&self) -> &str {
        self.pod.as_ref().map_or(self.kind.as_str(), |pod| &pod.kind)
    }

    /// A Job that is done: evidence, no longer a workload to count.
    pub fn is_finished(&self) -> bool {
        self.kind == Kind::Job && self.ended.is_some()
    }

    /// What takes our wiring out of it, where it no longer applies. What has a controlling owner loses it by its owner's template.
    pub fn removal(&self) -> Option<&[PatchOperation]> {
        match &self.injection_state {
            InjectionState::ToRemove(patch) => Some(patch),
            InjectionState::Skipped { leftover, .. } if !leftover.is_empty() && !self.owned => Some(leftover),
            _ => None,
        }
    }
}

impl InjectionState {
    /// Without most of the patch, which is made anew before it is used: a namespace may have many workloads.
    pub fn shrink(mut self) -> Self {
        match &mut self {
            Self::OutOfDate { patch, .. } | Self::Skipped { leftover: patch, .. } | Self::ToRemove(patch) => {
                patch.truncate(1);
                patch.shrink_to_fit();
            }
            Self::Current | Self::Blocked(_) | Self::FutureVersion | Self::OwnedByOther => {}
        }
        self
    }
}

/// The service account of a workload that an AgentTracing of mode CR has or would have.
pub fn account_to_bind(
    kind: Kind,
    json: &str,
    context: &SelectionContext<'_>,
) -> Result<Option<String>, serde_json::Error> {
    let workload = Workload::parse(kind, json)?;
    let live = LiveWorkload::parse(json)?;
    if live.is_gone() || (kind == Kind::Job && live.ended(kind).is_some()) {
        return Ok(None);
    }
    let Selection::One(policy) = select(&workload, context) else { return Ok(None) };
    let account = workload.service_account();
    let wanted = policy.facts.bound.is_some() && workload.has_token(!context.tokenless.contains(account));
    Ok(wanted.then(|| account.to_owned()))
}

/// Assesses a workload for one AgentTracing; `None` where it is none of its concern.
pub fn assess(
    kind: Kind,
    json: &str,
    tracing: &str,
    context: &SelectionContext<'_>,
) -> Result<Option<Assessment>, serde_json::Error> {
    let workload = Workload::parse(kind, json)?;
    let live = LiveWorkload::parse(json)?;
    let pod = listed_pod(&workload);
    if live.is_gone() || (kind == Kind::Pod && pod.is_none()) {
        return Ok(None);
    }
    let Some((injection_state, notes, experiment)) = injection_state(&workload, tracing, context) else {
        return Ok(None);
    };
    let wired = existing_record(&workload).is_ok_and(|record| record.is_some());
    let Some(injection_state) = restrict_to_kind(kind, injection_state, wired) else { return Ok(None) };
    let ended = live.ended(kind);
    // A Job that ended without our wiring is no evidence.
    if kind == Kind::Job && ended.is_some() && injection_state != InjectionState::Current {
        return Ok(None);
    }
    let template = workload.template_metadata();
    let policy = context.policies.iter().find(|policy| policy.settings.name == tracing);
    let was_labelled = workload.metadata.label(names::LABEL_WIRED).is_some();
    let was_wired = wired || was_labelled;
    let touch = workload.metadata.annotation(names::ANNOTATION_TOUCH).filter(|_| !live.has_foreign_touch());
    let touch = touch.map(str::to_owned);
    let last_manager = live.last_manager();
    let rollout = live.rollout(kind);
    let jobs = if policy.is_some_and(|policy| policy.settings.ca.is_some()) {
        live.jobs(kind, workload.name())
    } else {
        Vec::new()
    };
    let mut notes: Vec<_> = notes.iter().take(16).map(|n| clip(&n.to_string(), 256)).collect();
    notes.extend(unbound_account(&workload, policy, &injection_state));
    let (name, pod) = pod.map_or_else(|| (workload.name().to_owned(), None), |(name, pod)| (name, Some(pod)));
    Ok(Some(Assessment {
        kind,
        name,
        uid: live.uid(kind),
        resource_version: live.metadata.resource_version,
        owned: live.metadata.owner_references.iter().any(|o| o.controller),
        paused: live.spec.paused,
        wired,
        was_wired,
        was_labelled,
        before: None,
        // After a restart only the object tells: a touch without record and label was never answered by the webhook.
        unanswered: touch.is_some() && !was_wired,
        created: live.metadata.creation_timestamp,
        last_manager,
        merge_ca: merge_ca_state(&workload, policy, context.platform),
        injection_state,
        rollout,
        experiment,
        otlp: Endpoint::of(&workload).map(Box::new),
        relay: policy.and_then(|policy| relay_route::route(&workload, &policy.settings)).map(Box::new),
        notes,
        touch,
        record: template.and_then(|m| m.annotation(names::ANNOTATION_RECORD)).map(str::to_owned),
        pods: live.spec.selector.as_query(),
        jobs,
        account: workload.service_account().to_owned(),
        ended,
        pod,
    }))
}

/// What became of the init container that merges certificate authorities, where the AgentTracing wants one.
fn merge_ca_state(workload: &Workload<'_>, policy: Option<&Policy>, platform: &Platform) -> MergeCaState {
    let Some((policy, choice)) = policy.and_then(|policy| Some((policy, policy.settings.ca.as_ref()?))) else {
        return MergeCaState::default();
    };
    let record = existing_record(workload).ok().flatten();
    let part = authorities::part(choice);
    let source = part.source(workload, platform);
    let image = part.init_containers.first().map(|container| container.image.describe(workload, platform));
    MergeCaState {
        present: source.is_some() && record.is_some_and(|r| r.pod.init_containers.contains_key(names::MERGE_CA)),
        fallback: part.why_not(workload, policy, platform),
        image: image.unwrap_or_else(|| platform.merge_ca.image.clone()),
        source,
        waiting: Vec::new(),
    }
}

/// How a Pod is listed, by the name of its owner; `None` where the owner is listed itself.
fn listed_pod(workload: &Workload<'_>) -> Option<(String, ListedPod)> {
    let (kind, name) = (workload.kind == Kind::Pod).then(|| workload.pod_group()).flatten()?;
    Some((name, ListedPod { kind, name: workload.name().to_owned() }))
}

/// A Pod waits for no binding: its account is bound as soon as it is seen.
fn unbound_account(
    workload: &Workload<'_>,
    policy: Option<&Policy>,
    injection_state: &InjectionState,
) -> Option<String> {
    let bound = policy?.facts.bound.as_ref()?;
    let account = workload.service_account();
    let lacks = workload.kind == Kind::Pod && *injection_state == InjectionState::Current && !bound.contains(account);
    lacks.then(|| {
        let why = "is bound only since its pod is there; MLflow may refuse it for five minutes more";
        clip(&format!("BoundLate: service account {account} {why}"), 256)
    })
}

/// Finished Jobs that are kept as evidence, and for how many seconds.
const MAX_FINISHED_JOBS: usize = 20;
const FINISHED_JOB_SECONDS: i64 = 24 * 3600;

/// Of finished Jobs those that stay as evidence: the newest, for a day.
pub fn retain_recent(jobs: &mut Vec<Assessment>, now: Timestamp) {
    jobs.retain(|job| job.ended.is_some_and(|ended| now.as_second() - ended.as_second() < FINISHED_JOB_SECONDS));
    jobs.sort_by(|a, b| b.ended.cmp(&a.ended).then_with(|| a.name.cmp(&b.name)));
    jobs.truncate(MAX_FINISHED_JOBS);
}

/// How far a workload's pods follow its template.
pub fn progress(kind: Kind, json: &str) -> Result<RolloutProgress, serde_json::Error> {
    Ok(LiveWorkload::parse(json)?.rollout(kind))
}

fn resource(kind: Kind, name: &str) -> String {
    format!("{}/{name}", kind.as_str().to_ascii_lowercase())
}

#[cfg(test)]
pub(crate) mod tests;
