//! The list of workloads: one row each, and what the user should do about it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::merge_ca::{why_jobs_wait, without_merge_ca};
use super::traces::{self, has_ended_silently};
use super::{Evidence, Findings, TracingRef, is_counted, logs};
use crate::api::{AgentTracingStatus, Reason, RolloutPolicy, StateCount, WorkloadState, WorkloadStatus};
use crate::core::selection::kind::Kind;
use crate::core::wiring::Missing;
use crate::core::workloads::rollout::{TouchBlocker, halt, is_stuck, next_touch};
use crate::core::workloads::{Assessment, InjectionState, TraceDestination};
use crate::names;

/// How many workloads are in which state; the list in status has only the worst of them.
pub type States = BTreeMap<WorkloadState, usize>;

/// Most workloads in the list.
pub const MAX_WORKLOADS: usize = 100;

/// The list, the worst first, and the states of all.
pub(super) fn list(
    tracing_ref: &TracingRef<'_>,
    findings: &Findings<'_>,
    old: &AgentTracingStatus,
    now: Timestamp,
) -> (Vec<WorkloadStatus>, States) {
    let mut rows = Vec::new();
    let mut states = States::new();
    for assessment in findings.workloads {
        let Some(row) = row(tracing_ref, assessment, findings, old, now) else { continue };
        if !assessment.is_finished() && assessment.injection_state != InjectionState::OwnedByOther {
            *states.entry(row.state).or_default() += 1;
        }
        rows.push(row);
    }
    rows.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| (&a.name, &a.kind).cmp(&(&b.name, &b.kind))));
    // The list is a map by kind and name, and other groups have kinds of the same name.
    let mut listed = BTreeSet::new();
    rows.retain(|row| listed.insert((row.kind.clone(), row.name.clone())));
    rows.truncate(MAX_WORKLOADS);
    (rows, states)
}

/// As they stand in status.
pub(super) fn counts(states: &States) -> Vec<StateCount> {
    let count = |(state, count): (&WorkloadState, &usize)| StateCount {
        state: *state,
        count: i32::try_from(*count).unwrap_or(i32::MAX),
    };
    states.iter().map(count).collect()
}

/// The row of a workload; `None` where it is not this AgentTracing's.
#[expect(clippy::too_many_lines, reason = "a table: one arm for each state")]
fn row(
    tracing_ref: &TracingRef<'_>,
    assessment: &Assessment,
    findings: &Findings<'_>,
    old: &AgentTracingStatus,
    now: Timestamp,
) -> Option<WorkloadStatus> {
    let namespace = tracing_ref.namespace;
    let resource = assessment.resource();
    let (state, reason, message) = match &assessment.injection_state {
        // Nothing is rolled by the operator then, also not to take something out.
        InjectionState::ToRemove(_)
            if findings.rollout_strategy.policy == RolloutPolicy::Manual && assessment.rollout.has_to_lose() =>
        {
            let message = format!(
                "It is not selected any more and loses its wiring with its next own change, as injection.rollout.policy Manual says; \
                 change it now with: kubectl rollout restart -n {namespace} {resource}"
            );
            (WorkloadState::Outdated, None, Some(message))
        }
        InjectionState::ToRemove(_) => return None,
        InjectionState::OwnedByOther => {
            let message = format!(
                "An older AgentTracing of this namespace has it; see which: kubectl get agenttracing -n {namespace} \
                 --sort-by=.metadata.creationTimestamp"
            );
            (WorkloadState::Skipped, Some(Reason::Conflict.as_str().to_owned()), Some(message))
        }
        InjectionState::Current if is_stuck(assessment, now.as_second()) => {
            let failure = assessment.rollout.failure.as_ref();
            let (reason, what) = failure.map(|t| (t.reason.clone(), t.message.clone())).unwrap_or_default();
            let message = format!(
                "It does not come back with the wiring ({what}), so no other workload is changed; see why: kubectl describe \
                 pods -n {namespace}{}",
                selector(assessment)
            );
            (WorkloadState::Halted, Some(reason), Some(message))
        }
        InjectionState::Current if !assessment.merge_ca.waiting.is_empty() => {
            let reason = Reason::MergeCAImage.as_str().to_owned();
            (WorkloadState::Halted, Some(reason), Some(why_jobs_wait(namespace, assessment)))
        }
        InjectionState::Current if assessment.merge_ca.fallback.is_some() => {
            let state = if assessment.rollout.complete { WorkloadState::Injected } else { WorkloadState::RollingOut };
            let (reason, message) = without_merge_ca(tracing_ref, assessment);
            (state, Some(reason.as_str().to_owned()), Some(message))
        }
        InjectionState::Current if assessment.rollout.on_delete && !assessment.rollout.complete => {
            let message = format!(
                "Its strategy is OnDelete: its pods get the wiring when somebody deletes them: {}",
                deletion(namespace, assessment)
            );
            (WorkloadState::Outdated, None, Some(message))
        }
        InjectionState::Current if assessment.rollout.complete => (WorkloadState::Injected, None, None),
        InjectionState::Current => {
            let why = assessment.rollout.failure.as_ref().map(|t| format!(" ({})", t.message)).unwrap_or_default();
            let message = format!(
                "Its pods are being replaced{why}; watch with: kubectl rollout status -n {namespace} {resource}"
            );
            (WorkloadState::RollingOut, None, Some(message))
        }
        InjectionState::Blocked(missing) => {
            let what = match missing {
                Missing::TrackingUri => "MLflow has answered once".to_owned(),
                Missing::ExperimentId => "its experiment exists in MLflow".to_owned(),
                Missing::Binding => format!("service account {} may write to MLflow", assessment.account),
            };
            let message = format!(
                "It is wired as soon as {what}; watch with: kubectl get agenttracing -n {namespace} {} --watch",
                tracing_ref.name
            );
            (WorkloadState::Pending, Some(Reason::WaitingForMLflow.as_str().to_owned()), Some(message))
        }
        InjectionState::FutureVersion => {
            let message = format!(
                "A newer operator wired it; upgrade this one: kubectl get deployment -A -l {}={}",
                names::LABEL_NAME,
                names::MANAGED_BY
            );
            (WorkloadState::Outdated, None, Some(message))
        }
        InjectionState::OutOfDate { .. } => {
            let state = if assessment.wired { WorkloadState::Outdated } else { WorkloadState::Pending };
            let (state, message) = match next_touch(assessment, findings.rollout_strategy, now.as_second()) {
                Err(TouchBlocker::Paused) => (
                    state,
                    format!("It is paused and waits; resume it with: kubectl rollout resume -n {namespace} {resource}"),
                ),
                Err(TouchBlocker::Manual) => (
                    WorkloadState::Outdated,
                    format!(
                        "It gets its wiring with its next own change, as injection.rollout.policy Manual says; change it now with: {}",
                        match assessment.kind.rolls() {
                            true => format!("kubectl rollout restart -n {namespace} {resource}"),
                            false => format!(
                                "kubectl annotate -n {namespace} {resource} --overwrite {}=now",
                                names::ANNOTATION_TOUCH
                            ),
                        }
                    ),
                ),
                Err(TouchBlocker::Contested) => (
                    WorkloadState::Contested,
                    // Who only takes out owns no field: the API server does not tell of them.
                    format!(
                        "The wiring was taken out three times within ten minutes, so it is left alone until the spec changes; last \
                         written, beside us, by {}: let it keep what it did not write, or opt out: kubectl label -n {namespace} \
                         {resource} {}=false",
                        assessment.last_manager.as_deref().unwrap_or("somebody"),
                        names::LABEL_INJECT
                    ),
                ),
                _ => match halt(findings.workloads, now.as_second()) {
                    Some(culprit) => (
                        state,
                        format!(
                            "It waits, since {} does not come back with the wiring; see why: kubectl describe -n {namespace} {}",
                            culprit.name,
                            culprit.resource()
                        ),
                    ),
                    None if !findings.mlflow_answers() => (
                        state,
                        format!(
                            "It waits until MLflow answers, since agents look for it once, when they start; see why it does not: kubectl \
                             describe agenttracing -n {namespace} {}",
                            tracing_ref.name
                        ),
                    ),
                    None => (
                        state,
                        format!("It waits for its turn; watch with: kubectl get -n {namespace} {resource} --watch"),
                    ),
                },
            };
            (state, None, Some(message))
        }
        InjectionState::Skipped { reason, .. } => (
            WorkloadState::Skipped,
            Some(reason.as_str().to_owned()),
            Some(why_skipped(namespace, assessment, *reason)),
        ),
    };
    let skipped = state == WorkloadState::Skipped;
    let kind = assessment.listed_kind();
    let previous = old.workloads.iter().find(|w| w.kind == kind && w.name == assessment.name);
    let previous = previous.and_then(|w| w.last_trace_time.clone());
    Some(WorkloadStatus {
        kind: kind.to_owned(),
        name: assessment.name.clone(),
        state,
        reason,
        message,
        experiment: assessment.experiment.display().filter(|_| !skipped),
        last_trace_time: match findings.traces.get(&assessment.uid) {
            // Of what is being replaced nothing is known yet, and the old pods' traces say nothing of the new ones.
            Some(Evidence::NotAsked) => previous.filter(|_| state == WorkloadState::Injected),
            Some(found_of) => match found_of.last_trace() {
                Some(time) if previous.is_none() || findings.refresh_trace_times => Some(time.to_string()),
                Some(_) => previous,
                None => None,
            },
            None => None,
        },
        notes: notes(tracing_ref, assessment, findings, now),
    })
}

/// The option that names a workload's pods; one that is too long to type names none.
fn selector(assessment: &Assessment) -> String {
    match assessment.pods.len() {
        1..=512 => format!(" -l {}", assessment.pods),
        _ => String::new(),
    }
}

/// Never a command that deletes more than the workload's own pods.
fn deletion(namespace: &str, assessment: &Assessment) -> String {
    match selector(assessment).as_str() {
        "" => format!("kubectl get -n {namespace} {} -o jsonpath='{{.spec.selector}}'", assessment.resource()),
        selector => format!("kubectl delete pods -n {namespace}{selector}"),
    }
}

fn notes(
    tracing_ref: &TracingRef<'_>,
    assessment: &Assessment,
    findings: &Findings<'_>,
    now: Timestamp,
) -> Vec<String> {
    let mut notes = Vec::new();
    if has_ended_silently(assessment, findings, now) {
        notes.push(format!(
            "NoTraces: its pods ended and left none; read the log: {}",
            logs(tracing_ref.namespace, assessment)
        ));
    }
    notes.extend(traces::note(findings, assessment));
    notes.extend(assessment.notes.iter().cloned());
    let sharers = || findings.workloads.iter().filter(|j| is_counted(j) && j.experiment == assessment.experiment);
    if is_counted(assessment) && assessment.experiment != TraceDestination::Unknown && sharers().nth(1).is_some() {
        notes
            .push(format!("SharedExperiment: {} workloads log to it, so traces are not told apart", sharers().count()));
    }
    notes
}

fn why_skipped(namespace: &str, assessment: &Assessment, reason: Reason) -> String {
    let resource = assessment.resource();
    let template = assessment.kind.template().join(".");
    match reason {
        Reason::OptedOut => format!(
            "It is labelled {0}=false; to wire it: kubectl label -n {namespace} {resource} {0}-",
            names::LABEL_INJECT
        ),
        Reason::OwnTrackingURI => format!(
            "Its containers set MLFLOW_TRACKING_URI themselves, which is kept; to wire it: kubectl set env -n {namespace} \
             {resource} MLFLOW_TRACKING_URI-"
        ),
        Reason::NoContainers => format!(
            "None of its containers is chosen; see injection.containers and the annotation {}: kubectl get -n {namespace} \
             {resource} -o jsonpath='{{.{template}.spec.containers[*].name}}'",
            names::ANNOTATION_CONTAINERS
        ),
        Reason::NoServiceAccountToken if assessment.kind == Kind::Pod => format!(
            "Its pods get no service account token, without which MLflow refuses them; set automountServiceAccountToken to true in what \
             makes them, seen here: kubectl get -n {namespace} {resource} -o yaml"
        ),
        Reason::AnnotationsTooLong => format!(
            "Its template's annotations leave no room for the record of what is injected (262,144 bytes in all); move the longest \
             into a ConfigMap: kubectl get -n {namespace} {resource} -o jsonpath='{{.{template}.metadata.annotations}}'"
        ),
        Reason::NoServiceAccountToken => {
            let setting = serde_json::json!({"spec": {"automountServiceAccountToken": true}});
            let patch = assessment
                .kind
                .template()
                .iter()
                .rev()
                .fold(setting, |inner, field| serde_json::json!({ *field: inner }));
            format!(
                "Its pods get no service account token, without which MLflow refuses them; let them have it: kubectl patch -n \
                 {namespace} {resource} --type merge -p '{patch}'"
            )
        }
        Reason::Windows => {
            format!("Windows pods are not wired; see its node selector: kubectl get -n {namespace} {resource} -o yaml")
        }
        Reason::CreatedUnwired if assessment.kind == Kind::Pod => format!(
            "Pods of it were created before they could be wired, and a Pod is never changed; delete them, so that what made them makes \
             them again: kubectl delete -n {namespace} {resource}"
        ),
        Reason::CreatedUnwired => format!(
            "It was created before it could be wired, and a Job is never changed; create it again: kubectl get -n {namespace} \
             {resource} -o yaml"
        ),
        _ => format!(
            "The record of what was injected cannot be read; remove our variables and the record by hand: kubectl edit -n \
             {namespace} {resource} (annotation {})",
            names::ANNOTATION_RECORD
        ),
    }
}

/// Worst first; what the user chose so is not bad at all.
fn rank(row: &WorkloadStatus) -> (bool, WorkloadState) {
    let chosen = [Reason::OptedOut, Reason::OwnTrackingURI, Reason::Windows, Reason::Conflict].map(|r| r.as_str());
    (row.reason.as_deref().is_some_and(|r| chosen.contains(&r)), row.state)
}
