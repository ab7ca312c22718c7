//! Condition `WorkloadsReady`.

use jiff::Timestamp;

use super::{About, Findings, count, list, rows};
use crate::api::Reason;
use crate::core::decide::Fallback;
use crate::core::health::Verdict;
use crate::core::rollout::{Rest, halt, is_stuck, next_touch};
use crate::core::workload::{Judged, Standing};

pub(super) fn workloads_ready(about: &About<'_>, counted: &[&Judged], found: &Findings<'_>, now: Timestamp) -> Verdict {
    let About { namespace, name, .. } = about;
    let named =
        |test: &dyn Fn(&Judged) -> bool| -> Vec<&Judged> { counted.iter().copied().filter(|j| test(j)).collect() };
    let rests =
        |j: &Judged, why: &[Rest]| next_touch(j, found.pace, now.as_second()).is_err_and(|rest| why.contains(&rest));
    let waiting = named(&|j| matches!(j.standing, Standing::Waiting(_)));
    let wanting = named(&|j| matches!(j.standing, Standing::Wanting { .. }));
    let rolling = named(&|j| j.standing == Standing::Current && !j.rollout.complete);
    let contested = named(&|j| rests(j, &[Rest::Contested]));
    let kept = |j: &Judged| j.standing == Standing::Current && j.rollout.on_delete && !j.rollout.complete;
    let held = named(&|j| j.standing == Standing::Newer || kept(j) || rests(j, &[Rest::Paused, Rest::Manual]));
    let skipped = named(&|j| matches!(j.standing, Standing::Skipped { .. }));
    let details = format!("kubectl get agenttracing -n {namespace} {name} -o jsonpath='{{.status.workloads}}'");
    let halted = halt(found.workloads, now.as_second());
    if let Some(culprit) = halted.filter(|j| is_stuck(j, now.as_second()) || !wanting.is_empty()) {
        let why = match &culprit.rollout.trouble {
            Some(trouble) => format!("{}: {}", trouble.reason, trouble.message),
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
        return Verdict::bad(Reason::RolloutHalted, message);
    }
    let stuck = named(&|j| !j.merge_ca.waiting.is_empty());
    if !stuck.is_empty() {
        return rows::jobs_wait(&list(&stuck), &details);
    }
    if !contested.is_empty() {
        let message =
            format!("Somebody takes the wiring out again and again: {}; see who: {details}", list(&contested));
        return Verdict::bad(Reason::Contested, message);
    }
    if !held.is_empty() {
        return Verdict::bad(
            Reason::Outdated,
            format!("Not as wanted, and not to be changed now: {}; see why: {details}", list(&held)),
        );
    }
    if !skipped.is_empty() {
        return Verdict::bad(Reason::Skipped, format!("Cannot be wired: {}; see why: {details}", list(&skipped)));
    }
    if !waiting.is_empty() {
        let message = format!(
            "Waiting until what their wiring needs is known: {}; see how far it is: kubectl describe agenttracing -n {namespace} {name}",
            list(&waiting)
        );
        return Verdict::bad(Reason::WaitingForMLflow, message);
    }
    if !wanting.is_empty() && !found.mlflow_answers() {
        let message = format!(
            "MLflow does not answer, and agents look for it once, when they start, so this waits until it does: {} ({}); see why: kubectl describe \
             agenttracing -n {namespace} {name}",
            count(wanting.len(), "workload"),
            list(&wanting)
        );
        return Verdict::bad(Reason::WaitingForMLflow, message);
    }
    if let Some(first) = rolling.first().or(wanting.first()) {
        let message = format!(
            "Rolling out: {}; to come: {}; watch with: kubectl get -n {namespace} {} --watch",
            list(&rolling),
            list(&wanting),
            first.resource()
        );
        return Verdict::bad(Reason::RolloutInProgress, message);
    }
    Verdict::good(Reason::AllCurrent, format!("All workloads that match are wired; see them with: {details}"))
}
