//! What MLflow has of the workloads: their experiments and their newest traces.
//!
//! A pass says what it wants to know and takes what is known by then; a [`Tracker`] beside it asks, what is awaited at once and
//! the rest calmly, and wakes the AgentTracing when an answer is news.

mod evidence;
mod experiments;
mod questions;
mod searches;
mod state;
mod tracker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::mlflow_credentials::AuthenticatedClient;
use super::{Context, Error, reference};
use crate::api::{AgentTracing, AgentTracingStatus, MlflowMode, MlflowStatus};
use crate::core::relay::report::RelayReport;
use crate::core::settings::Settings;
use crate::core::status::writes::{self, Writes};
use crate::core::workloads::Assessment;
use crate::core::workloads::evidence::Evidence;
use experiments::KnownExperiments;
use questions::{Client, Question};
use tracker::Tracker;
pub(super) use tracker::Trackers;

/// What is remembered between passes.
#[derive(Debug, Default)]
pub(super) struct TrackingState {
    evidence: evidence::EvidenceState,
    tracker: Option<Arc<Tracker>>,
}

impl Drop for TrackingState {
    /// Work that is under way holds the tracker for longer.
    fn drop(&mut self) {
        if let Some(tracker) = &self.tracker {
            tracker.state().client = None;
        }
    }
}

/// What is asked about.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub tracing: &'a AgentTracing,
    pub settings: &'a Settings,
    pub workloads: &'a [Assessment],
    pub old: &'a AgentTracingStatus,
    /// The MLflow that answers now.
    pub answered: Option<&'a MlflowStatus>,
    /// What the relay knows, where it answers.
    pub report: Option<&'a RelayReport>,
}

/// What is known of it.
pub(super) struct Answers {
    /// Whether OTLP is taken at the tracking URI of a shared server; `None` where nobody could ask.
    pub takes_otlp: Option<bool>,
    pub known: Arc<KnownExperiments>,
    /// By uid of the workload.
    pub traces: BTreeMap<String, Evidence>,
    /// Whether MLflow writes, where there was cause to try.
    pub writes: Option<Writes>,
    /// When something is to be looked at again without an event, if at all.
    pub look_again: Option<Duration>,
}

/// What is known now of the workloads' experiments and traces. What was learnt earlier counts until there is a newer answer.
pub(super) async fn track(
    ctx: &Context,
    mlflow: Option<AuthenticatedClient>,
    subject: Subject<'_>,
    state: &mut TrackingState,
    now: Timestamp,
) -> Result<Answers, Error> {
    let add = || ctx.trackers.add(reference(subject.tracing), writes::of_status(subject.old));
    let tracker = state.tracker.get_or_insert_with(add).clone();
    let client = mlflow.map(|mlflow| Client {
        gate: ctx.servers.gates.of(mlflow.tracking_uri()),
        asks_for_otlp: subject.settings.server.mode() == MlflowMode::Cr,
        version: subject.answered.map(|mlflow| mlflow.version.clone()).unwrap_or_default(),
        restores_deleted: subject.settings.experiment.restore_deleted,
        mlflow,
    });
    // Whatever is noted from here on may come too late for this pass, and is then seen by the next.
    tracker.state().news = false;
    tracker.want_experiments(client, subject);
    tracker.catch_up(&ctx.trackers.tasks).await; // IO, for a moment
    let (known, anew) = tracker.experiments();
    if anew {
        state.evidence.forget_answers(now);
    }
    let wanted = state.evidence.interests(subject, &known, now);
    tracker.want_traces(wanted);
    tracker.catch_up(&ctx.trackers.tasks).await; // IO, for a moment
    let looks = tracker.looks();
    let found = state.evidence.find(ctx, subject, &known, &looks, now).await?; // IO
    let mut tracked = tracker.state();
    tracked.set_trial(found.have_stopped, found.stopped_in);
    Ok(Answers {
        takes_otlp: tracked.takes_otlp(),
        known,
        traces: found.evidence,
        writes: tracked.writes(),
        look_again: found.look_again,
    })
}
