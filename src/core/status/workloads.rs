//! Condition `WorkloadsReady`.

use jiff::Timestamp;

use super::condition::ConditionUpdate;
use super::{Findings, TracingRef, count, list, merge_ca};
use crate::api::Reason;
use crate::core::decide::Fallback;
use crate::core::workloads::rollout::{TouchBlocker, halt, is_stuck, next_touch};
use crate::core::workloads::{Assessment, InjectionState};

#[expect(clippy::too_many_lines, reason = "a table: one branch for each reason, the worst first")]
pub(super) fn workloads_ready(
    tracing_ref: &TracingRef<'_>,
    counted: &[&Assessment],
    findings: &Findings<'_>,
    now: Timestamp,
) -> ConditionUpdate {
    let TracingRef { namespace, name, .. } = tracing_ref;
    let named = |test: &dyn Fn(&Assessment) -> bool| -> Vec<&Assessment> {
        counted.iter().copied().filter(|j| test(j)).collect()
    };
    let rests = |j: &Assessment, why: &[TouchBlocker]| {
        next_touch(j, findings.rollout_strategy, now.as_second()).is_err_and(|rest| why.contains(&rest))
    };
    let waiting = named(&|j| matches!(j.injection_state, InjectionState::Blocked(_)));
    let wanting = named(&|j| matches!(j.injection_state, InjectionState::OutOfDate { .. }));
    let rolling = named(&|j| j.injection_state == InjectionState::Current && !j.rollout.complete);
    let contested = named(&|j| rests(j, &[TouchBlocker::Contested]));
    let kept =
        |j: &Assessment| j.injection_state == InjectionState::Current && j.rollout.on_delete && !j.rollout.complete;
    let held = named(&|j| {
        j.injection_state == InjectionState::FutureVersion
            || kept(j)
            || rests(j, &[TouchBlocker::Paused, TouchBlocker::Manual])
    });
    let skipped = named(&|j| matches!(j.injection_state, InjectionState::Skipped { .. }));
    let details = format!("kubectl get agenttracing -n {namespace} {name} -o jsonpath='{{.status.workloads}}'");
    let halted = halt(findings.workloads, now.as_second());
    if let Some(culprit) = halted.filter(|j| is_stuck(j, now.as_second()) || !wanting.is_empty()) {
        let why = match &culprit.rollout.failure {
            Some(failure) => format!("{}: {}", failure.reason, failure.message),
            None if culprit.merge_ca.fallback == Some(Fallback::Refused) => {
                format!("{}: its init container is not admitted", Reason::MergeCARefused.as_str())
            }
            None => format!("{}: its init container could not be started", Reason::MergeCAImage.as_str()),
        };
        let message = format!(
            "{} does not come back with the wiring ({why}), so the others wait: {}; see what to do: {details}",
            culprit.name,
            list(&wanting)
        );
        return ConditionUpdate::bad(Reason::RolloutHalted, message);
    }
    let stuck = named(&|j| !j.merge_ca.waiting.is_empty());
    if !stuck.is_empty() {
        return merge_ca::jobs_wait(&list(&stuck), &details);
    }
    if !contested.is_empty() {
        let message =
            format!("Somebody takes the wiring out again and again: {}; see who: {details}", list(&contested));
        return ConditionUpdate::bad(Reason::Contested, message);
    }
    if !held.is_empty() {
        return ConditionUpdate::bad(
            Reason::Outdated,
            format!("Not as wanted, and not to be changed now: {}; see why: {details}", list(&held)),
        );
    }
    if !skipped.is_empty() {
        return ConditionUpdate::bad(
            Reason::Skipped,
            format!("Cannot be wired: {}; see why: {details}", list(&skipped)),
        );
    }
    if !waiting.is_empty() {
        let message = format!(
            "Waiting until what their wiring needs is known: {}; see how far it is: kubectl describe agenttracing -n {namespace} {name}",
            list(&waiting)
        );
        return ConditionUpdate::bad(Reason::WaitingForMLflow, message);
    }
    if !wanting.is_empty() && !findings.mlflow_answers() {
        let message = format!(
            "MLflow does not answer, and agents look for it once, when they start, so this waits until it does: {} ({}); see why: kubectl describe \
             agenttracing -n {namespace} {name}",
            count(wanting.len(), "workload"),
            list(&wanting)
        );
        return ConditionUpdate::bad(Reason::WaitingForMLflow, message);
    }
    if let Some(first) = rolling.first().or(wanting.first()) {
        let message = format!(
            "Rolling out: {}; to come: {}; watch with: kubectl get -n {namespace} {} --watch",
            list(&rolling),
            list(&wanting),
            first.resource()
        );
        return ConditionUpdate::bad(Reason::RolloutInProgress, message);
    }
    ConditionUpdate::good(Reason::AllCurrent, format!("All workloads that match are wired; see them with: {details}"))
}
