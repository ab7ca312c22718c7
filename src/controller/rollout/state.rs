//! What is remembered of a rollout between passes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::controller::workload_key::WorkloadKey;
use crate::core::selection::kind::Kind;
use crate::core::workloads::rollout::note_overdue;
use crate::core::workloads::{Assessment, InjectionState};

/// What is remembered between passes.
#[derive(Debug, Default)]
pub(in crate::controller) struct RolloutState {
    pub(super) silent_until: Option<Timestamp>,
    /// Workloads whose last touch brought nothing: no repair of theirs was undone.
    pub(super) unanswered: BTreeSet<WorkloadKey>,
    /// Our last touch of each workload: whoever strips a whole object strips the annotation with it.
    pub(super) touches: BTreeMap<WorkloadKey, Box<str>>,
    /// Since when a workload is well, with which touch, where it does not tell that itself.
    pub(super) well: BTreeMap<WorkloadKey, (Option<String>, Timestamp)>,
    /// Workloads that roll since we took their wiring out, and since when.
    pub(super) removed: BTreeMap<(Kind, String), Timestamp>,
    /// Workloads whose change the API server refused, and its words.
    pub(super) refused: BTreeMap<WorkloadKey, String>,
}

impl RolloutState {
    /// Whether a touch went unanswered lately.
    pub(in crate::controller) fn is_webhook_silent(&self, now: Timestamp) -> bool {
        self.silent_until.is_some_and(|until| now < until)
    }

    /// Adds what the API server said to the workloads that it concerns.
    pub(in crate::controller) fn annotate(&mut self, workloads: &mut [Assessment], now: Timestamp) {
        let all: BTreeMap<WorkloadKey, &InjectionState> =
            workloads.iter().map(|j| (WorkloadKey::of_workload(j), &j.injection_state)).collect();
        self.refused
            .retain(|key, _| all.get(key).is_some_and(|injection_state| **injection_state != InjectionState::Current));
        self.well.retain(|key, _| all.contains_key(key));
        self.unanswered
            .retain(|key| all.get(key).is_some_and(|injection_state| **injection_state != InjectionState::Current));
        // What the user took out and put in again starts over.
        let counts = |injection_state: &InjectionState| {
            matches!(injection_state, InjectionState::Current | InjectionState::OutOfDate { .. })
        };
        self.touches.retain(|key, _| all.get(key).is_some_and(|injection_state| counts(injection_state)));
        for workload in workloads {
            let key = WorkloadKey::of_workload(workload);
            let touched = self.touches.get(&key);
            if workload.touch.is_none() {
                workload.touch = touched.map(|touch| touch.to_string());
            }
            // Only of what an earlier process touched nothing better is known than what the workload shows.
            if touched.is_some() {
                workload.unanswered = self.unanswered.contains(&key);
            }
            self.note_well(key, workload, now);
            if let Some(refusal) = self.refused.get(&key) {
                workload.notes.push(format!("PatchRefused: {refusal}").chars().take(256).collect());
            }
        }
    }

    /// Notes since when a workload is well that does not tell.
    fn note_well(&mut self, key: WorkloadKey, workload: &mut Assessment, now: Timestamp) {
        let Assessment { kind, rollout, touch, .. } = &mut *workload;
        if !tells_when_available(*kind) && rollout.replaces_pods() {
            let is_well = rollout.complete && rollout.available >= rollout.wanted;
            let before = self.well.get(&key).filter(|(of, _)| of == touch).map(|(_, since)| *since);
            if is_well {
                let since = before.unwrap_or(now);
                rollout.available_since = Some(since);
                self.well.insert(key, (touch.clone(), since));
            }
            note_overdue(workload, before.is_some(), now.as_second());
        }
    }
}

/// Only a Deployment says since when it is available.
fn tells_when_available(kind: Kind) -> bool {
    kind == Kind::Deployment
}
