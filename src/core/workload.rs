//! A live workload judged: whose it is, what it lacks, how far its pods are, and where its traces go.

mod live;

use jiff::Timestamp;
use json_patch::PatchOperation;

use self::live::Live;
use super::decide::{Decision, Leave, decide, falls_back};
use super::inject::{Note, existing_record, remainder, uninject};
use super::kind::Kind;
use super::otlp::Endpoint;
use super::record::RecordError;
use super::select::{NotSelected, Selection, Surroundings, select};
use super::view::{Container, Workload};
use super::wiring::{EXPERIMENT_GROUP, Missing, TRACKING_URI};
use crate::api::{CaBundleStrategy, Reason, WorkloadState};
use crate::names;

/// A workload and what one AgentTracing has to do with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
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
    pub standing: Standing,
    /// How far its pods follow its template.
    pub rollout: Rollout,
    /// Where its traces go.
    pub experiment: Target,
    /// Where its own environment sends traces by OTLP.
    pub otlp: Option<Box<Endpoint>>,
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
}

/// What is the case with a workload.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// The template is as wanted.
    Current,
    /// The template should be changed.
    Wanting {
        /// Hash of the wanted wiring.
        hash: String,
        /// The change.
        patch: Vec<PatchOperation>,
    },
    /// It will be wired when this is known.
    Waiting(Missing),
    /// A newer operator wired it.
    Newer,
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
    Stray(Vec<PatchOperation>),
    /// It matches, but an older AgentTracing has it.
    Elsewhere,
}

/// What became of the operator's own init container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergeCaState {
    /// Its pods have it.
    pub present: bool,
    /// The image that could not be pulled or started here, so that the workload does without.
    pub failed: Option<String>,
    /// Jobs whose pods wait for it. A Job keeps the template that it was made with, so these never do without.
    pub waiting: Vec<String>,
}

/// How far a workload's pods follow its template.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rollout {
    /// All pods are of the current template.
    pub complete: bool,
    /// When its pods became available, if they are.
    pub available_since: Option<Timestamp>,
    /// Why it does not go on.
    pub trouble: Option<Trouble>,
    /// Pods that there should be.
    pub wanted: i64,
    /// Pods that are available.
    pub available: i64,
    /// Its pods are replaced by whoever deletes them.
    pub on_delete: bool,
    /// Seconds that a rollout may take.
    pub deadline: i64,
}

impl Rollout {
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
pub struct Trouble {
    /// In one word.
    pub reason: String,
    /// In a few.
    pub message: String,
    /// When it began.
    pub since: Option<Timestamp>,
}

/// Where the traces of a workload go.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The experiment of this name.
    Name(String),
    /// The experiment with this numeric id.
    Id(String),
    /// It cannot be seen: the value comes from elsewhere.
    #[default]
    Unknown,
}

impl Judged {
    /// As `kubectl` takes it and as nothing else in the namespace is called: `statefulset/teller`.
    pub fn resource(&self) -> String {
        resource(self.kind, &self.name)
    }
}

impl Standing {
    /// Without most of the patch, which is made anew before it is used: a namespace may have many workloads.
    pub fn lightened(mut self) -> Self {
        match &mut self {
            Self::Wanting { patch, .. } | Self::Skipped { leftover: patch, .. } | Self::Stray(patch) => {
                patch.truncate(1);
                patch.shrink_to_fit();
            }
            Self::Current | Self::Waiting(_) | Self::Newer | Self::Elsewhere => {}
        }
        self
    }
}

impl Target {
    /// As it stands in status.
    pub fn display(&self) -> Option<String> {
        match self {
            Self::Name(name) => Some(name.clone()),
            Self::Id(id) => Some(format!("id {id}")),
            Self::Unknown => None,
        }
    }
}

/// The service account of a workload that an AgentTracing of mode CR has or would have.
pub fn account_to_bind(kind: Kind, json: &str, around: &Surroundings<'_>) -> Result<Option<String>, serde_json::Error> {
    let workload = Workload::parse(kind, json)?;
    if Live::parse(json)?.is_finished() {
        return Ok(None);
    }
    let Selection::One(policy) = select(&workload, around) else { return Ok(None) };
    let account = workload.service_account();
    let wanted = policy.bound.is_some() && workload.has_token(!around.tokenless.contains(account));
    Ok(wanted.then(|| account.to_owned()))
}

/// Judges a workload for one AgentTracing; `None` where it is none of its concern.
pub fn judge(
    kind: Kind,
    json: &str,
    tracing: &str,
    around: &Surroundings<'_>,
) -> Result<Option<Judged>, serde_json::Error> {
    let workload = Workload::parse(kind, json)?;
    let live = Live::parse(json)?;
    if live.is_finished() {
        return Ok(None);
    }
    let Some((standing, notes, experiment)) = stand(&workload, tracing, around) else { return Ok(None) };
    let wired = existing_record(&workload).is_ok_and(|record| record.is_some());
    let Some(standing) = possible(kind, standing, wired) else { return Ok(None) };
    let template = workload.template_metadata();
    let record = existing_record(&workload).ok().flatten();
    let policy = around.policies.iter().find(|policy| policy.name == tracing);
    let choice = policy.and_then(|policy| policy.ca.as_ref());
    let merges = choice.is_some_and(|choice| choice.strategy == CaBundleStrategy::InitContainer);
    let was_wired = wired || workload.metadata.label(names::LABEL_WIRED).is_some();
    let touch = workload.metadata.annotation(names::ANNOTATION_TOUCH).map(str::to_owned);
    let last_manager = live.last_manager();
    let rollout = live.rollout(kind);
    let ours = choice.is_some_and(|choice| choice.strategy != CaBundleStrategy::AgentInitContainer);
    let jobs = if ours { live.jobs(kind, workload.name()) } else { Vec::new() };
    Ok(Some(Judged {
        kind,
        name: workload.name().to_owned(),
        uid: live.metadata.uid,
        resource_version: live.metadata.resource_version,
        owned: live.metadata.owner_references.iter().any(|o| o.controller),
        paused: live.spec.paused,
        wired,
        was_wired,
        before: None,
        // An operator that was killed as it touched does not remember; the label stays where only the template was stripped.
        unanswered: touch.is_some() && !was_wired,
        created: live.metadata.creation_timestamp,
        last_manager,
        merge_ca: MergeCaState {
            present: merges && record.is_some_and(|r| r.pod.init_containers.contains_key(names::MERGE_CA)),
            failed: (merges && falls_back(&workload, around.platform)).then(|| around.platform.merge_ca.image.clone()),
            waiting: Vec::new(),
        },
        standing,
        rollout,
        experiment,
        otlp: Endpoint::of(&workload).map(Box::new),
        notes: notes.iter().take(16).map(|n| n.to_string().chars().take(256).collect()).collect(),
        touch,
        record: template.and_then(|m| m.annotation(names::ANNOTATION_RECORD)).map(str::to_owned),
        pods: live.spec.selector.as_query(),
        jobs,
        account: workload.service_account().to_owned(),
    }))
}

/// How far a workload's pods follow its template.
pub fn progress(kind: Kind, json: &str) -> Result<Rollout, serde_json::Error> {
    Ok(Live::parse(json)?.rollout(kind))
}

/// What can be the case with a kind: a Job is never changed after its creation.
fn possible(kind: Kind, standing: Standing, wired: bool) -> Option<Standing> {
    if kind.has_second_chance() {
        return Some(standing);
    }
    match standing {
        Standing::Wanting { .. } if wired => Some(Standing::Current),
        Standing::Wanting { .. } | Standing::Waiting(_) => {
            Some(Standing::Skipped { reason: Reason::CreatedUnwired, deliberate: false, leftover: Vec::new() })
        }
        Standing::Skipped { reason, deliberate, .. } => {
            Some(Standing::Skipped { reason, deliberate, leftover: Vec::new() })
        }
        Standing::Stray(_) => None,
        Standing::Current | Standing::Newer | Standing::Elsewhere => Some(standing),
    }
}

fn stand(workload: &Workload<'_>, tracing: &str, around: &Surroundings<'_>) -> Option<(Standing, Vec<Note>, Target)> {
    let plain = |standing| Some((standing, Vec::new(), Target::Unknown));
    let skipped = |reason, deliberate| plain(Standing::Skipped { reason, deliberate, leftover: Vec::new() });
    match decide(workload, around) {
        Decision::Wire { tracing: by, experiment, injection } if by == tracing => {
            let target = target(workload, &injection.notes, experiment);
            let standing = match injection.skipped {
                Some(reason) => Standing::Skipped {
                    reason,
                    deliberate: reason == Reason::OwnTrackingURI,
                    leftover: injection.patch,
                },
                None if injection.patch.is_empty() => Standing::Current,
                None => Standing::Wanting { hash: injection.hash, patch: injection.patch },
            };
            Some((standing, injection.notes, target))
        }
        Decision::Leave(Leave::Waiting { tracing: by, missing }) if by == tracing => {
            Some((Standing::Waiting(missing), Vec::new(), planned(workload, tracing, around)))
        }
        Decision::Leave(Leave::Record { tracing: by, error }) if by == tracing => match error {
            RecordError::Newer(_) => Some((Standing::Newer, Vec::new(), planned(workload, tracing, around))),
            RecordError::Unreadable(_) => skipped(Reason::RecordUnreadable, false),
        },
        Decision::Leave(Leave::Record { tracing: by, .. })
            if by.is_empty() && reports_unselected(workload, tracing, around) =>
        {
            skipped(Reason::RecordUnreadable, false)
        }
        Decision::Leave(Leave::Suspended { .. }) => None,
        Decision::Unwire(leftover) if reports_unselected(workload, tracing, around) => {
            plain(Standing::Skipped { reason: Reason::OptedOut, deliberate: true, leftover })
        }
        Decision::Leave(Leave::NotSelected(why)) => match why {
            NotSelected::OptedOut if reports_unselected(workload, tracing, around) => skipped(Reason::OptedOut, true),
            NotSelected::Windows if reports_unselected(workload, tracing, around) => skipped(Reason::Windows, true),
            NotSelected::NamespaceNotLabelled | NotSelected::NamespaceExcluded | NotSelected::NoMatch
                if wirer(workload).as_deref() == Some(tracing) =>
            {
                plain(Standing::Stray(removal(workload)?))
            }
            _ => None,
        },
        // It belongs to another AgentTracing; say so if this one wants it too.
        _ => {
            let own: Vec<_> = around.policies.iter().filter(|p| p.name == tracing).cloned().collect();
            let alone = Surroundings { policies: &own, ..*around };
            matches!(select(workload, &alone), Selection::One(_)).then_some(())?;
            plain(Standing::Elsewhere)
        }
    }
}

/// The AgentTracing whose wiring a workload carries, or the rest of it.
fn wirer(workload: &Workload<'_>) -> Option<String> {
    let record = existing_record(workload).ok()?;
    record.map(|record| record.tracing).or_else(|| workload.metadata.label(names::LABEL_WIRED).map(str::to_owned))
}

/// What takes everything of ours out, also where somebody stripped the template and left what is beside it.
fn removal(workload: &Workload<'_>) -> Option<Vec<PatchOperation>> {
    let patch = uninject(workload).ok()?;
    let patch = if patch.is_empty() { remainder(&workload.metadata, false) } else { patch };
    (!patch.is_empty()).then_some(patch)
}

/// A workload that carries the wiring of an AgentTracing that is no more.
#[derive(Clone, Debug, PartialEq)]
pub struct Orphan {
    /// Kind.
    pub kind: Kind,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Resource version; guards the patch.
    pub resource_version: String,
    /// The AgentTracing.
    pub tracing: String,
    /// Whether taking it out replaces pods.
    pub rolls: bool,
    /// Whether these are available now.
    pub costs: bool,
    /// What takes it out.
    pub patch: Vec<PatchOperation>,
}

impl Orphan {
    /// As `kubectl` takes it.
    pub fn resource(&self) -> String {
        resource(self.kind, &self.name)
    }
}

fn resource(kind: Kind, name: &str) -> String {
    format!("{}/{name}", kind.as_str().to_ascii_lowercase())
}

/// The namespace of a workload and the AgentTracing whose wiring it carries, if any.
pub fn wired_by(kind: Kind, json: &str) -> Result<Option<(String, String)>, serde_json::Error> {
    let workload = Workload::parse(kind, json)?;
    let namespace = workload.metadata.namespace.as_deref().unwrap_or_default();
    Ok(wirer(&workload).map(|tracing| (namespace.to_owned(), tracing)))
}

/// A wired workload that nobody looks after: its AgentTracing is gone, and no other one takes it.
pub fn orphan(kind: Kind, json: &str, around: &Surroundings<'_>) -> Result<Option<Orphan>, serde_json::Error> {
    let gone = |orphan: &Orphan| around.policies.iter().all(|policy| policy.name != orphan.tracing);
    let Some(orphan) = wired(kind, json)?.filter(gone) else { return Ok(None) };
    let workload = Workload::parse(kind, json)?;
    let selected = matches!(select(&workload, around), Selection::One(_));
    Ok((!selected).then_some(orphan))
}

/// A wired workload, whoever looks after it.
pub fn wired(kind: Kind, json: &str) -> Result<Option<Orphan>, serde_json::Error> {
    let workload = Workload::parse(kind, json)?;
    let Some(tracing) = wirer(&workload) else { return Ok(None) };
    let Some(patch) = removal(&workload) else { return Ok(None) };
    let live = Live::parse(json)?;
    let rollout = live.rollout(kind);
    Ok(Some(Orphan {
        kind,
        namespace: workload.metadata.namespace.as_deref().unwrap_or_default().to_owned(),
        name: workload.name().to_owned(),
        uid: live.metadata.uid,
        resource_version: live.metadata.resource_version,
        tracing,
        rolls: rollout.replaces_pods(),
        costs: rollout.has_to_lose(),
        patch,
    }))
}

/// The experiment of a workload that cannot be wired yet: as if every fact were known, so that no experiment is made which
/// the user's own choice leaves empty.
fn planned(workload: &Workload<'_>, tracing: &str, around: &Surroundings<'_>) -> Target {
    let mut policies: Vec<_> = around.policies.iter().filter(|p| p.name == tracing).cloned().collect();
    for policy in &mut policies {
        policy.tracking_uri.get_or_insert_default();
        policy.experiment.pin = false;
        policy.bound = None;
    }
    match decide(workload, &Surroundings { policies: &policies, ..*around }) {
        Decision::Wire { experiment, injection, .. } => target(workload, &injection.notes, experiment),
        _ => Target::Unknown,
    }
}

/// What no AgentTracing selects is reported by the oldest that would select it otherwise.
fn reports_unselected(workload: &Workload<'_>, tracing: &str, around: &Surroundings<'_>) -> bool {
    let willing = around.policies.iter().filter(|p| p.selects(workload));
    let oldest = willing.min_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    oldest.is_some_and(|p| p.name == tracing)
}

/// The experiment that the first wired container logs to. `MLFLOW_TRACING_DESTINATION` wins over a name, a name over an id.
fn target(workload: &Workload<'_>, notes: &[Note], experiment: String) -> Target {
    let kept = |container: &Container<'_>| {
        notes.iter().find_map(|note| match note {
            Note::KeptByUser { container: name, variables } if **name == *container.name => Some(variables),
            _ => None,
        })
    };
    let record = existing_record(workload).ok().flatten();
    let wired = |container: &&Container<'_>| match &record {
        Some(record) => record.containers.contains_key(&*container.name),
        None => !kept(container).is_some_and(|variables| variables.iter().any(|v| v == TRACKING_URI)),
    };
    let Some(container) = workload.pod.containers.iter().find(wired) else {
        return Target::Name(experiment);
    };
    let own = |variable: &str| {
        kept(container).filter(|variables| variables.iter().any(|v| v == variable))?;
        container.env.iter().flatten().rev().find(|e| &*e.name == variable)
    };
    let [name, id, destination] = EXPERIMENT_GROUP;
    let literal = |entry: &super::view::EnvEntry<'_>| {
        let value = entry.value.as_deref().unwrap_or_default();
        let plain = entry.value_from.is_none() && !value.is_empty() && !value.contains("$(");
        plain.then(|| value.to_owned())
    };
    let numeric = |value: String| match value.bytes().all(|b| b.is_ascii_digit()) {
        true => Target::Id(value),
        false => Target::Unknown,
    };
    if let Some(entry) = own(destination) {
        literal(entry).map_or(Target::Unknown, numeric)
    } else if let Some(entry) = own(name) {
        literal(entry).map_or(Target::Unknown, Target::Name)
    } else if let Some(entry) = own(id) {
        literal(entry).map_or(Target::Unknown, numeric)
    } else {
        Target::Name(experiment)
    }
}

#[cfg(test)]
pub(crate) mod tests;
