//! Which workloads may be rolled now, and the touch that rolls them.
//!
//! The touch is `<wanted hash>/<n>/<window start>`: n counts the repairs of one cause durably, on the object itself, so
//! that a restarted operator neither starts over nor fights someone who strips our entries again and again. A fourth part,
//! `unavailable`, says that the workload was not well before: whether it comes back says nothing about the wiring then.

use std::fmt;

use jiff::Timestamp;

use crate::api::{AgentTracing, MAX_WORKLOADS, RolloutPolicy, WorkloadState};
use crate::core::inject::record::Record;
use crate::core::selection::kind::Kind;
use crate::core::settings::policy::RolloutStrategy;
use crate::core::workloads::{Assessment, InjectionState, RolloutFailure};

/// Repairs of one cause within [`REPAIR_WINDOW_SECONDS`]; after these the workload is `Contested` and left alone.
const MAX_REPAIRS: u32 = 3;
/// Seconds after which repairs are counted anew.
const REPAIR_WINDOW_SECONDS: i64 = 600;
/// Seconds that a workload has to be available before the next one takes its place: many agents crash in their first moments.
const MIN_AVAILABLE_SECONDS: i64 = 10;
/// The scheduler's reason for a pod that no node takes, and seconds that it halts nobody.
const UNSCHEDULABLE: &str = "Unschedulable";
const SCALE_UP_SECONDS: i64 = 60;
/// Workloads that are touched in one pass, however few pods they have: a pass has to end.
const MAX_TOUCHES: usize = 20;

/// Indexes of the workloads to touch now, of which `free` may become unavailable. While MLflow does not answer no pod is
/// replaced: agents look for it once, when they start, and would never send again.
pub fn due(
    assessments: &[Assessment],
    rollout_strategy: RolloutStrategy,
    mut free: usize,
    mlflow_answers: bool,
    now: i64,
) -> Vec<usize> {
    let halted = halt(assessments, now).is_some();
    let may = |j: &Assessment| {
        // A workload whose init container failed halts the others, so it may change during a halt; without running pods it may
        // change even while MLflow does not answer.
        let stands_in_the_way = j.merge_ca.has_failed();
        (!halted || stands_in_the_way)
            && (mlflow_answers || !j.rollout.replaces_pods() || (stands_in_the_way && !j.rollout.has_to_lose()))
    };
    let mut waiting: Vec<usize> = (0..assessments.len())
        .filter(|i| may(&assessments[*i]) && next_touch(&assessments[*i], rollout_strategy, now).is_ok())
        .collect();
    // Available workloads go first: an unavailable one proves nothing about the wiring and holds its place for long.
    waiting.sort_by_key(|i| (is_unavailable(&assessments[*i]), &assessments[*i].name, assessments[*i].kind));
    waiting.retain(|i| {
        // Without pods, or with pods that only their owner replaces, nothing becomes unavailable.
        let costs = usize::from(assessments[*i].rollout.replaces_pods());
        let may = free >= costs;
        free -= costs.min(free);
        may
    });
    waiting.truncate(MAX_TOUCHES);
    waiting
}

/// How many workloads are unavailable, or not yet well again, because of us.
pub fn rolling(assessments: &[Assessment], now: i64) -> usize {
    assessments.iter().filter(|j| is_rolling(j, now)).count()
}

/// Whether a workload rolls because we touched it, and has not been well for long enough.
pub fn is_rolling(assessment: &Assessment, now: i64) -> bool {
    let Some(touch) = assessment.touch.as_deref().and_then(Touch::parse) else { return false };
    if assessment.injection_state != InjectionState::Current || !assessment.rollout.replaces_pods() {
        return false;
    }
    let settled =
        assessment.rollout.available_since.is_some_and(|since| since.as_second() + MIN_AVAILABLE_SECONDS <= now);
    // After its deadline it holds no place: either its rollout failed, or it rolls for another reason.
    // A start time in the future was not written by the operator, and would hold the place until then.
    let began = touch.start <= now;
    began && !settled && now < touch.start.saturating_add(assessment.rollout.deadline)
}

/// Whether a workload that rolls takes one of the cluster's places: for ten minutes at most, however long its own deadline is.
pub fn holds_place(assessment: &Assessment, now: i64) -> bool {
    is_rolling(assessment, now)
        && touched_at(assessment).is_some_and(|touched| now < touched.saturating_add(REPAIR_WINDOW_SECONDS))
}

/// The first workload that did not come back after we touched it: no other one is touched until it does, or is to be changed
/// itself. One that did without its init container stops the others too.
pub fn halt(assessments: &[Assessment], now: i64) -> Option<&Assessment> {
    let first =
        |test: &dyn Fn(&Assessment) -> bool| assessments.iter().filter(|j| test(j)).min_by_key(|j| (&j.name, j.kind));
    first(&|j| is_stuck(j, now)).or_else(|| first(&|j| j.merge_ca.has_failed()))
}

/// Whether a workload that we touched does not come back.
pub fn is_stuck(assessment: &Assessment, now: i64) -> bool {
    let Some(touch) = assessment.touch.as_deref().and_then(Touch::parse) else { return false };
    let Some(failure) = &assessment.rollout.failure else { return false };
    // A failure that began long after the touch has another cause.
    let ours = touch.start.saturating_sub(MIN_AVAILABLE_SECONDS)
        ..=touch.start.saturating_add(assessment.rollout.deadline.saturating_mul(2));
    let since = failure.since.map_or(now, |since| since.as_second());
    // An autoscaler brings a node within that time.
    if failure.reason == UNSCHEDULABLE && now < since.saturating_add(SCALE_UP_SECONDS) {
        return false;
    }
    assessment.injection_state == InjectionState::Current
        && assessment.rollout.replaces_pods()
        && touch.was_available
        && ours.contains(&since)
}

/// When a workload was touched last, in seconds since 1970.
pub fn touched_at(assessment: &Assessment) -> Option<i64> {
    assessment.touch.as_deref().and_then(Touch::parse).map(|touch| touch.start)
}

/// Why a workload is not touched now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TouchBlocker {
    /// Its template is not to be changed.
    UpToDate,
    /// It is paused: it would not roll.
    Paused,
    /// Its owner rolls it.
    Manual,
    /// Someone took the wiring out again and again.
    Contested,
}

/// The value of the next touch.
pub fn next_touch(
    assessment: &Assessment,
    rollout_strategy: RolloutStrategy,
    now: i64,
) -> Result<String, TouchBlocker> {
    let InjectionState::OutOfDate { hash, .. } = &assessment.injection_state else {
        return Err(TouchBlocker::UpToDate);
    };
    if assessment.paused {
        return Err(TouchBlocker::Paused);
    }
    if rollout_strategy.policy == RolloutPolicy::Manual {
        return Err(TouchBlocker::Manual);
    }
    let next = Touch {
        hash,
        repairs: u32::from(is_repair(assessment)),
        start: now,
        was_available: !is_unavailable(assessment),
    };
    let last = assessment.touch.as_deref().and_then(Touch::parse);
    let contested = assessment.before == Some(WorkloadState::Contested);
    let recent = |last: &Touch<'_>| (last.start..last.start.saturating_add(REPAIR_WINDOW_SECONDS)).contains(&now);
    match last {
        // A full-object apply also removes the touch annotation; status still says `Contested`.
        None if contested => Err(TouchBlocker::Contested),
        Some(last) if last.hash != hash => Ok(next.to_string()),
        Some(last) if contested || (recent(&last) && last.repairs >= MAX_REPAIRS && !assessment.unanswered) => {
            Err(TouchBlocker::Contested)
        }
        // An unanswered touch is not a failed repair: the count stays. The value has to change, or the API server sees no update.
        Some(last) if assessment.unanswered => Ok(Touch { repairs: last.repairs, ..next }.to_string()),
        Some(last) if recent(&last) => {
            Ok(Touch { repairs: last.repairs.saturating_add(1), start: last.start, ..next }.to_string())
        }
        _ => Ok(next.to_string()),
    }
}

/// Whether a touch asks for the wiring that the touch before asked for.
pub fn is_repeated(assessment: &Assessment, next: &str) -> bool {
    let hash = |touch: &str| touch.split('/').next().unwrap_or_default().to_owned();
    assessment.touch.as_deref().is_some_and(|last| hash(last) == hash(next))
}

/// Whether the wiring that a workload should get is one that it had, and not another one: somebody changed it or took it out.
pub fn is_repair(assessment: &Assessment) -> bool {
    let InjectionState::OutOfDate { hash, .. } = &assessment.injection_state else { return false };
    let record = assessment.record.as_deref().and_then(|record| Record::parse(record).ok());
    let touched = || assessment.touch.as_deref().and_then(Touch::parse).map(|touch| touch.hash.to_owned());
    let had = record.map(|record| record.hash).or_else(touched);
    // Without both only the label tells that it was wired.
    assessment.was_wired && had.is_none_or(|had| had == *hash)
}

/// Notes what the status said of the workloads before. `Contested` stays after the window in which repairs are counted, until
/// the spec changes.
pub fn recall(assessments: &mut [Assessment], tracing: &AgentTracing) {
    let Some(old) = &tracing.status else { return };
    let same_spec = old.observed_generation == tracing.metadata.generation;
    for workload in assessments {
        let row = old.workloads.iter().find(|row| row.kind == workload.listed_kind() && row.name == workload.name);
        // The list in status is bounded. For a workload beyond it only the touch says that its repairs are used up.
        let unlisted = || {
            (old.workloads.len() >= MAX_WORKLOADS && has_used_its_repairs(workload)).then_some(WorkloadState::Contested)
        };
        let state = row.map(|row| row.state).or_else(unlisted);
        workload.before = state.filter(|state| same_spec || *state != WorkloadState::Contested);
    }
}

/// Whether it was repaired as often as it may be, whenever that was.
fn has_used_its_repairs(assessment: &Assessment) -> bool {
    assessment.touch.as_deref().and_then(Touch::parse).is_some_and(|touch| touch.repairs >= MAX_REPAIRS)
}

/// Notes what keeps those that say nothing themselves: only a Deployment tells when its deadline is exceeded. `settled` says
/// whether a workload has been well since its touch.
pub fn note_overdue(assessment: &mut Assessment, settled: bool, now: i64) {
    let Some(touch) = assessment.touch.as_deref().and_then(Touch::parse) else { return };
    let deadline = assessment.rollout.deadline;
    let due = touch.start.saturating_add(deadline);
    let overdue = assessment.before == Some(WorkloadState::Halted)
        || (!settled && (due..due.saturating_add(deadline)).contains(&now));
    let tells = assessment.kind == Kind::Deployment || assessment.rollout.failure.is_some();
    if overdue && !tells && assessment.kind.rolls() && is_unavailable(assessment) {
        let message = format!("its pods are not available after {deadline} seconds");
        let since = Timestamp::from_second(due).ok();
        assessment.rollout.failure =
            Some(RolloutFailure { reason: "ProgressDeadlineExceeded".to_owned(), message, since });
    }
}

fn is_unavailable(assessment: &Assessment) -> bool {
    assessment.rollout.available < assessment.rollout.wanted
}

/// A touch annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Touch<'t> {
    hash: &'t str,
    repairs: u32,
    start: i64,
    was_available: bool,
}

impl<'t> Touch<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        let mut parts = text.split('/');
        let (hash, repairs, start) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let was_available = match parts.next() {
            None => true,
            Some(UNAVAILABLE) => false,
            Some(_) => return None,
        };
        parts.next().is_none().then_some(Self { hash, repairs, start, was_available })
    }
}

impl fmt::Display for Touch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hash, repairs, start, was_available } = self;
        write!(f, "{hash}/{repairs}/{start}")?;
        if *was_available { Ok(()) } else { write!(f, "/{UNAVAILABLE}") }
    }
}

const UNAVAILABLE: &str = "unavailable";

#[cfg(test)]
mod tests;
