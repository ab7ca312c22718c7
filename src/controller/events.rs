//! Events: what happened, once per transition, where `kubectl describe` shows it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use kube::runtime::events::{Event, EventType};

use super::workload_key::WorkloadKey;
use super::{Context, is_namespace_terminating};
use crate::api::{
    AgentTracing, AgentTracingStatus, ConditionType, MAX_WORKLOADS, Reason, WorkloadState, WorkloadStatus,
};
use crate::core::selection::kind::Kind;
use crate::core::status::is_true;
use crate::core::workloads::cause::culprit;
use crate::core::workloads::rollout::is_repair;
use crate::core::workloads::{Assessment, InjectionState, Orphan};
use crate::names::event;
use crate::telemetry::error_chain;

/// What was already said about each workload. Filled from status at the first pass, so that a restarted operator
/// repeats nothing.
#[derive(Debug, Default)]
pub(super) struct EventLog {
    workloads: BTreeMap<WorkloadKey, Reported>,
    seeded: bool,
    /// The list in status was full: what is not in it may have been said as well.
    unsure: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reported {
    Wired,
    Skipped(Reason),
}

/// Says what changed between two statuses.
pub(super) async fn transitions(
    ctx: &Context,
    tracing: &AgentTracing,
    assessments: &[Assessment],
    new: &AgentTracingStatus,
    event_log: &mut EventLog,
) {
    let old = tracing.status.as_ref();
    for (condition, reason) in
        [(ConditionType::MLflowReady, event::MLFLOW_READY), (ConditionType::TracesFlowing, event::TRACES_RECEIVED)]
    {
        if is_true(Some(new), condition) && !is_true(old, condition) {
            let message = new.conditions.iter().find(|c| c.type_ == condition.as_str()).map(|c| c.message.clone());
            publish(ctx, tracing, None, EventType::Normal, reason, message.unwrap_or_default()).await;
        }
    }
    let halted = |status: Option<&AgentTracingStatus>| {
        let condition =
            status.iter().flat_map(|s| &s.conditions).find(|c| c.type_ == ConditionType::WorkloadsReady.as_str());
        condition.filter(|c| c.reason == Reason::RolloutHalted.as_str()).map(|c| c.message.clone())
    };
    if let Some(message) = halted(Some(new)).filter(|_| halted(old).is_none()) {
        // Without one the same event would be published twice on the AgentTracing.
        if let Some(culprit) = culprit(assessments, Timestamp::now()) {
            publish(ctx, tracing, Some(culprit), EventType::Warning, event::ROLLOUT_HALTED, message.clone()).await;
        }
        publish(ctx, tracing, None, EventType::Warning, event::ROLLOUT_HALTED, message).await;
    }
    restore(event_log, old);
    let keys: BTreeSet<WorkloadKey> = assessments.iter().map(WorkloadKey::of_workload).collect();
    event_log.workloads.retain(|key, _| keys.contains(key));
    for workload in assessments {
        let key = WorkloadKey::of_workload(workload);
        let before = event_log.workloads.get(&key).copied();
        let word = match &workload.injection_state {
            InjectionState::Current => Reported::Wired,
            InjectionState::Skipped { reason, .. } => Reported::Skipped(*reason),
            _ => continue,
        };
        if before != Some(word) && !(before.is_none() && event_log.unsure) {
            let row = row(Some(new), workload);
            let message = row.and_then(|w| w.message.clone());
            match word {
                Reported::Wired => wired(ctx, tracing, workload, event::INJECTED).await,
                Reported::Skipped(reason) => {
                    let note = format!("{}: {}", reason.as_str(), message.unwrap_or_default());
                    let kind = if reason.is_no_fault() { EventType::Normal } else { EventType::Warning };
                    publish_both(ctx, tracing, workload, kind, event::INJECTION_SKIPPED, note).await;
                }
            }
        }
        event_log.workloads.insert(key, word);
    }
    event_log.unsure = false;
    let has_trace = |status, workload| row(status, workload).is_some_and(|row| row.last_trace_time.is_some());
    for workload in assessments.iter().filter(|j| has_trace(Some(new), j) && !has_trace(old, j)) {
        let note = "A trace with its spans arrived in MLflow.".to_owned();
        publish(ctx, tracing, Some(workload), EventType::Normal, event::TRACES_RECEIVED, note).await;
    }
}

/// Says that the operator itself wired a workload: for the first time, or again.
pub(super) async fn workload_changed(
    ctx: &Context,
    tracing: &AgentTracing,
    workload: &Assessment,
    event_log: &mut EventLog,
) {
    let repairs = is_repair(workload);
    let reason = if repairs { event::REPAIRED } else { event::INJECTED };
    ctx.options.metrics.wired(repairs, workload.rollout.replaces_pods());
    wired(ctx, tracing, workload, reason).await;
    event_log.workloads.insert(WorkloadKey::of_workload(workload), Reported::Wired);
}

/// Says that the operator took its wiring out of a workload.
pub(super) async fn removed(ctx: &Context, tracing: &AgentTracing, workload: &Assessment) {
    ctx.options.metrics.removed(workload.rollout.replaces_pods());
    let note = "The wiring was taken out; the template is what it was.".to_owned();
    publish_both(ctx, tracing, workload, EventType::Normal, event::REMOVED, note).await;
}

fn row<'s>(status: Option<&'s AgentTracingStatus>, workload: &Assessment) -> Option<&'s WorkloadStatus> {
    let mut rows = status.into_iter().flat_map(|status| &status.workloads);
    rows.find(|row| row.kind == workload.listed_kind() && row.name == workload.name)
}

/// Says that the wiring of an AgentTracing that is gone was taken out of a workload.
pub(super) async fn orphaned(ctx: &Context, orphan: &Orphan) {
    let Orphan { kind, namespace, name, uid, tracing, rolls, .. } = orphan;
    ctx.options.metrics.removed(*rolls);
    let note = format!("AgentTracing {tracing} is gone: its wiring was taken out, and the template is what it was.");
    send(ctx, reference(*kind, namespace, name, uid), None, EventType::Normal, event::REMOVED, &note).await;
}

fn restore(event_log: &mut EventLog, old: Option<&AgentTracingStatus>) {
    if std::mem::replace(&mut event_log.seeded, true) {
        return;
    }
    let rows = old.map(|s| s.workloads.as_slice()).unwrap_or_default();
    event_log.unsure = rows.len() >= MAX_WORKLOADS;
    for row in rows {
        let word = match (row.state, &row.reason) {
            (
                WorkloadState::Injected | WorkloadState::RollingOut | WorkloadState::Outdated | WorkloadState::Halted,
                _,
            ) => Reported::Wired,
            (WorkloadState::Skipped, Some(reason)) => match Reason::from_name(reason) {
                Some(reason) => Reported::Skipped(reason),
                None => continue,
            },
            _ => continue,
        };
        let resource = format!("{}/{}", row.kind.to_ascii_lowercase(), row.name);
        event_log.workloads.entry(WorkloadKey::of(&resource)).or_insert(word);
    }
}

async fn wired(ctx: &Context, tracing: &AgentTracing, workload: &Assessment, reason: &str) {
    let name = tracing.metadata.name.as_deref().unwrap_or_default();
    let experiment = workload.experiment.display().map(|e| format!(", experiment {e}")).unwrap_or_default();
    let note = format!("The pod template carries the wiring of AgentTracing {name}{experiment}.");
    publish_both(ctx, tracing, workload, EventType::Normal, reason, note).await;
}

/// On the workload, and on the AgentTracing with the workload named.
async fn publish_both(
    ctx: &Context,
    tracing: &AgentTracing,
    workload: &Assessment,
    type_: EventType,
    reason: &str,
    note: String,
) {
    let named = format!("{} {}: {note}", workload.listed_kind(), workload.name);
    publish(ctx, tracing, Some(workload), type_, reason, note).await;
    publish(ctx, tracing, None, type_, reason, named).await;
}

/// On the workload, with the AgentTracing as the related object, or on the AgentTracing itself. An event that cannot be
/// published is no reason to do anything else differently.
async fn publish(
    ctx: &Context,
    tracing: &AgentTracing,
    workload: Option<&Assessment>,
    type_: EventType,
    reason: &str,
    note: String,
) {
    let tracing = tracing.object_ref(&());
    let (regarding, secondary) = match workload {
        None => (tracing, None),
        Some(workload) => {
            let namespace = tracing.namespace.clone().unwrap_or_default();
            let pod = workload.pod.as_ref().map(|pod| pod.name.as_str());
            let reference = reference(workload.kind, &namespace, pod.unwrap_or(&workload.name), &workload.uid);
            (reference, Some(tracing))
        }
    };
    send(ctx, regarding, secondary, type_, reason, &note).await;
}

fn reference(kind: Kind, namespace: &str, name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(kind.api_version()),
        kind: Some(kind.as_str().to_owned()),
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

async fn send(
    ctx: &Context,
    regarding: ObjectReference,
    secondary: Option<ObjectReference>,
    type_: EventType,
    reason: &str,
    note: &str,
) {
    let note = note.chars().take(1000).collect();
    let event = Event { type_, reason: reason.to_owned(), note: Some(note), action: reason.to_owned(), secondary };
    if let Err(error) = ctx.recorder().publish(&event, &regarding).await {
        let (name, error) = (regarding.name, error_chain(&error));
        match is_namespace_terminating(&error) {
            true => tracing::debug!(reason, name, error, "no event in a namespace that is going"),
            false => tracing::warn!(reason, name, error, "failed to publish an event"),
        }
    }
}
