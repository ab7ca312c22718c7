//! What is remembered of an AgentTracing between passes. Losing it costs a few reads.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::api::{AgentTracing, AgentTracingStatus};
use crate::controller::{Context, Error, apply, canary, events, rbac, relay, rollout, tracking};
use crate::core::settings::Settings;
use crate::core::workloads::evidence::Evidence;

/// What is remembered of an AgentTracing between passes.
#[derive(Default)]
pub(in crate::controller) struct ReconcileState {
    /// Failed passes in a row.
    pub failures: u32,
    /// What our writes of the status made of which resource versions, until the watch brings the last.
    pub written: Option<(Vec<String>, AgentTracing)>,
    /// What the API server refused.
    pub refusals: apply::Refusals,
    /// What the relay said.
    pub relay: relay::RelayState,
    /// Who may write to MLflow.
    pub rights: rbac::AccessCache,
    /// What MLflow said.
    pub tracking: tracking::TrackingState,
    /// What was said in events.
    pub event_log: events::EventLog,
    /// Whether the init container was admitted.
    pub canary: canary::CanaryState,
    /// How our patches of workloads went.
    pub rollout: rollout::RolloutState,
    /// The generation that was looked at last.
    generation: Option<Option<i64>>,
    /// Since when something is not settled that no event tells of.
    pub unsettled: Option<Timestamp>,
    /// No pass begins before: a large namespace in which something changes all the time is not read all the time.
    pub not_before: Option<Instant>,
    /// When trace times were refreshed in status.
    pub refreshed: Option<Timestamp>,
    /// The newest trace of all, also where its workload is gone or wired anew.
    pub last_trace: Option<Timestamp>,
}

impl ReconcileState {
    /// Has the others of the namespace looked at when this one is another than before: what one claims concerns all.
    pub fn note_generation(&mut self, ctx: &Context, tracing: &AgentTracing, settings: &Settings) {
        if self.generation.replace(tracing.metadata.generation) != Some(tracing.metadata.generation) {
            ctx.wake_others(&settings.namespace, &settings.name);
        }
    }

    /// The AgentTracing as our own last write left it, while the watch still shows what was before. Without this a pass in
    /// between would take the status for unwritten and write it again with other times.
    pub fn newest(&mut self, tracing: &AgentTracing) -> AgentTracing {
        let shown = tracing.metadata.resource_version.as_ref();
        self.written.take_if(|(before, _)| !shown.is_some_and(|shown| before.contains(shown)));
        self.written.as_ref().map_or_else(|| tracing.clone(), |(_, written)| written.clone())
    }

    /// Writes a status, unless it is so already.
    pub async fn write_status(
        &mut self,
        ctx: &Context,
        tracing: &AgentTracing,
        status: &AgentTracingStatus,
    ) -> Result<(), Error> {
        if Some(status) == tracing.status.as_ref() {
            return Ok(());
        }
        let mut before = self.written.take().map_or_else(Vec::new, |(before, _)| before);
        before.extend(tracing.metadata.resource_version.clone());
        let written = apply::status(ctx, tracing, status).await?;
        self.written = Some((before, written));
        Ok(())
    }

    /// The newest trace of all that were ever seen.
    pub fn newest_trace(&mut self, traces: &BTreeMap<String, Evidence>) -> Option<Timestamp> {
        self.last_trace = self.last_trace.max(traces.values().filter_map(Evidence::last_trace).max());
        self.last_trace
    }

    /// Notes when trace times were written: a first one is written at once, newer ones wait.
    pub fn note_refresh(
        &mut self,
        old: &AgentTracingStatus,
        new: &AgentTracingStatus,
        traces: &BTreeMap<String, Evidence>,
        now: Timestamp,
    ) {
        let times = |status: &AgentTracingStatus| -> BTreeMap<String, String> {
            let rows = status.workloads.iter();
            rows.filter_map(|w| Some((format!("{}/{}", w.kind, w.name), w.last_trace_time.clone()?))).collect()
        };
        if !traces.is_empty() && times(old) != times(new) {
            self.refreshed = Some(now);
        }
    }
}
