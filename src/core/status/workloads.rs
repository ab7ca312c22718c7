//! Condition `WorkloadsReady`.

use super::condition::ConditionUpdate;
use super::{Findings, TracingRef, count, is_counted, list, messages};
use crate::api::Reason;
use crate::core::kubectl::Kubectl;
use crate::core::wiring::parts::FallbackReason;
use crate::core::workloads::cause::{Cause, Fleet};
use crate::core::workloads::{Assessment, InjectionState};

#[expect(clippy::too_many_lines, reason = "a table: one branch for each reason, the worst first")]
pub(super) fn workloads_ready(
    tracing_ref: &TracingRef<'_>,
    fleet: &Fleet<'_>,
    causes: &[(&Assessment, Cause<'_>)],
    findings: &Findings<'_>,
) -> ConditionUpdate {
    let named = |test: &dyn Fn(&Assessment, &Cause<'_>) -> bool| -> Vec<&Assessment> {
        let counted = causes.iter().filter(|(assessment, _)| is_counted(assessment));
        counted.filter(|(assessment, cause)| test(assessment, cause)).map(|(assessment, _)| *assessment).collect()
    };
    let wanting = named(&|j, _| j.is_out_of_date());
    let details = tracing_ref.command("get").jsonpath(".status.workloads");
    if let Some(culprit) = fleet.halted_by_stuck().or(fleet.halted_by.filter(|_| !wanting.is_empty())) {
        let message = format!(
            "{} does not come back with the wiring ({}), so the others wait: {}; see what to do: {details}",
            culprit.name,
            why_halted(culprit),
            list(&wanting)
        );
        return ConditionUpdate::bad(Reason::RolloutHalted, message);
    }
    let with_waiting_jobs = named(&|j, _| j.has_waiting_jobs());
    if !with_waiting_jobs.is_empty() {
        return messages::jobs_wait(&list(&with_waiting_jobs), &details);
    }
    let contested = named(&|_, cause| *cause == Cause::Contested);
    if !contested.is_empty() {
        let message =
            format!("Somebody takes the wiring out again and again: {}; see who: {details}", list(&contested));
        return ConditionUpdate::bad(Reason::Contested, message);
    }
    let held =
        named(&|j, cause| matches!(cause, Cause::FutureVersion | Cause::Paused | Cause::Manual) || j.awaits_deletion());
    if !held.is_empty() {
        return ConditionUpdate::bad(
            Reason::Outdated,
            format!("Not as wanted, and not to be changed now: {}; see why: {details}", list(&held)),
        );
    }
    let skipped = named(&|_, cause| matches!(cause, Cause::Skipped(_)));
    if !skipped.is_empty() {
        return ConditionUpdate::bad(
            Reason::Skipped,
            format!("Cannot be wired: {}; see why: {details}", list(&skipped)),
        );
    }
    let waiting = named(&|_, cause| matches!(cause, Cause::Blocked(_)));
    if !waiting.is_empty() {
        let message = format!(
            "Waiting until what their wiring needs is known: {}; see how far it is: {}",
            list(&waiting),
            tracing_ref.command("describe")
        );
        return ConditionUpdate::bad(Reason::WaitingForMLflow, message);
    }
    if !wanting.is_empty() && !findings.mlflow_answers() {
        let message = format!(
            "MLflow does not answer, and agents look for it once, when they start, so this waits until it does: {} ({}); see why: {}",
            count(wanting.len(), "workload"),
            list(&wanting),
            tracing_ref.command("describe")
        );
        return ConditionUpdate::bad(Reason::WaitingForMLflow, message);
    }
    let rolling = named(&|j, _| j.injection_state == InjectionState::Current && !j.rollout.complete);
    if let Some(first) = rolling.first().or(wanting.first()) {
        let message = format!(
            "Rolling out: {}; to come: {}; watch with: {}",
            list(&rolling),
            list(&wanting),
            Kubectl::new("get").namespace(tracing_ref.namespace).arg(&first.resource()).arg("--watch")
        );
        return ConditionUpdate::bad(Reason::RolloutInProgress, message);
    }
    ConditionUpdate::good(Reason::AllCurrent, format!("All workloads that match are wired; see them with: {details}"))
}

/// What keeps the workload that halts the others.
fn why_halted(culprit: &Assessment) -> String {
    match &culprit.rollout.failure {
        Some(failure) => format!("{}: {}", failure.reason, failure.message),
        None if culprit.merge_ca.fallback == Some(FallbackReason::Refused) => {
            format!("{}: its init container is not admitted", Reason::MergeCARefused.as_str())
        }
        None => format!("{}: its init container could not be started", Reason::MergeCAImage.as_str()),
    }
}
