//! The list of workloads: one row each, and what the user should do about it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::traces::{self, has_ended_silently};
use super::{Evidence, Findings, TracingRef, is_counted, logs};
use crate::api::{AgentTracingStatus, MAX_WORKLOADS, Reason, StateCount, WorkloadState, WorkloadStatus};
use crate::core::workloads::cause::Cause;
use crate::core::workloads::{Assessment, InjectionState, TraceDestination};

/// How many workloads are in which state; the list in status has only the worst of them.
pub type States = BTreeMap<WorkloadState, usize>;

/// The list, the worst first, and the states of all.
pub(super) fn list(
    tracing_ref: &TracingRef<'_>,
    causes: &[(&Assessment, Cause<'_>)],
    findings: &Findings<'_>,
    old: &AgentTracingStatus,
    now: Timestamp,
) -> (Vec<WorkloadStatus>, States) {
    let mut rows = Vec::new();
    let mut states = States::new();
    let sharers = sharers(findings);
    for (assessment, cause) in causes {
        let Some(row) = row(tracing_ref, assessment, cause, findings, &sharers, old, now) else { continue };
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
fn row(
    tracing_ref: &TracingRef<'_>,
    assessment: &Assessment,
    cause: &Cause<'_>,
    findings: &Findings<'_>,
    sharers: &Sharers<'_>,
    old: &AgentTracingStatus,
    now: Timestamp,
) -> Option<WorkloadStatus> {
    let state = cause.state(assessment)?;
    let skipped = state == WorkloadState::Skipped;
    let kind = assessment.listed_kind();
    let previous = old.workloads.iter().find(|w| w.kind == kind && w.name == assessment.name);
    let previous = previous.and_then(|w| w.last_trace_time.clone());
    Some(WorkloadStatus {
        kind: kind.to_owned(),
        name: assessment.name.clone(),
        state,
        reason: cause.reason(assessment),
        message: cause.message(tracing_ref, assessment),
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
        notes: notes(tracing_ref, assessment, findings, sharers, now),
    })
}

fn notes(
    tracing_ref: &TracingRef<'_>,
    assessment: &Assessment,
    findings: &Findings<'_>,
    sharers: &Sharers<'_>,
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
    if let Some(count) = sharers.get(&assessment.experiment).filter(|count| **count > 1 && is_counted(assessment)) {
        notes.push(format!("SharedExperiment: {count} workloads log to it, so traces are not told apart"));
    }
    notes
}

/// How many workloads log to which experiment.
type Sharers<'f> = BTreeMap<&'f TraceDestination, usize>;

/// Those that log to a known experiment. Counted once for all: with 20,000 workloads, to count for each of them kept a thread
/// busy for 20 s.
fn sharers<'f>(findings: &'f Findings<'_>) -> Sharers<'f> {
    let mut sharers = Sharers::new();
    let known = findings.workloads.iter().filter(|workload| is_counted(workload)).map(|workload| &workload.experiment);
    for experiment in known.filter(|experiment| **experiment != TraceDestination::Unknown) {
        *sharers.entry(experiment).or_default() += 1;
    }
    sharers
}

/// Worst first; what the user chose so is not bad at all.
fn rank(row: &WorkloadStatus) -> (bool, WorkloadState) {
    (row.reason.as_deref().and_then(Reason::from_name).is_some_and(Reason::is_no_fault), row.state)
}
