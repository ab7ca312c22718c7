//! One pass over one AgentTracing, on one screen.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::controller::Action;
use tokio::time::Instant;

use super::steps::StepTimer;
use super::{
    Context, Error, apply, authorities, canary, events, observe, observer, reference, report, rights, rollout, server,
    tracking,
};
use crate::api::{AgentTracing, AgentTracingStatus};
use crate::core::selection::SelectionContext;
use crate::core::settings::parse;
use crate::core::settings::policy::Policy;
use crate::core::status::quote::shorten;
use crate::core::status::writes;
use crate::core::status::{self, Findings, States};
use crate::core::workloads::evidence::Evidence;
use crate::core::workloads::rollout::{recall, rolling};
use crate::telemetry::metrics::ReconcileStep;

/// What is remembered of an AgentTracing between passes.
#[derive(Default)]
pub(super) struct ReconcileState {
    /// Failed passes in a row.
    pub failures: u32,
    /// What our writes of the status made of which resource versions, until the watch brings the last.
    pub written: Option<(Vec<String>, AgentTracing)>,
    /// What the API server refused.
    pub refusals: apply::Refusals,
    /// Who may write to MLflow.
    pub rights: rights::AccessCache,
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
    not_before: Option<Instant>,
    /// When trace times were refreshed in status.
    pub refreshed: Option<Timestamp>,
    /// The newest trace of all, also where its workload is gone or wired anew.
    pub last_trace: Option<Timestamp>,
}

/// How soon it is looked again at what changes without an event: at first, after a while, and after a long while.
const REQUEUE_PENDING: Duration = Duration::from_secs(5);
const REQUEUE_LATER: Duration = Duration::from_secs(15);
const REQUEUE_AT_LAST: Duration = Duration::from_secs(60);
const RECENT: SignedDuration = SignedDuration::from_mins(3);
const LASTING: SignedDuration = SignedDuration::from_mins(10);
/// How often everything is looked at without any event, and how far the passes of different AgentTracings are spread.
const REST: Duration = Duration::from_secs(600);
const SPREAD: u64 = 300;
/// Reading the workloads of a namespace for so long is followed by a pause of so many times the length.
const LONG_READING: Duration = Duration::from_millis(250);
const PAUSE: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// Trace times in status are at most this old before they are refreshed, and at least before they may be.
const REFRESH: SignedDuration = SignedDuration::from_mins(5);

pub(super) async fn reconcile(tracing: &AgentTracing, ctx: &Context, steps: &StepTimer<'_>) -> Result<Action, Error> {
    let memory = ctx.memory(tracing.metadata.uid.as_deref().unwrap_or_default());
    let memory = &mut *memory.lock().await;
    let tracing = &newest(tracing, memory);
    let now = Timestamp::now();
    if tracing.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change()); // its children go with it
    }
    let settings = match parse(tracing) {
        Ok(settings) if settings.suspend => {
            return write_status(ctx, steps, tracing, status::suspended(tracing, now), memory).await;
        }
        Ok(settings) => match ctx.platform.forbids(&settings) {
            Some(problem) => {
                return write_status(ctx, steps, tracing, status::invalid(tracing, &problem.to_string(), now), memory)
                    .await;
            }
            None => settings,
        },
        Err(problems) => {
            let problems = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            return write_status(ctx, steps, tracing, status::invalid(tracing, &problems, now), memory).await;
        }
    };

    if let Some(at) = memory.not_before.filter(|at| *at > Instant::now()) {
        return Ok(Action::requeue(at - Instant::now()));
    }

    // What one of them claims concerns the others of its namespace.
    if memory.generation.replace(tracing.metadata.generation) != Some(tracing.metadata.generation) {
        ctx.wake_others(&settings.namespace, &settings.name);
    }

    // The server.
    steps.next(ReconcileStep::Server);
    let asked_since = Instant::now();
    let labels = observe::namespace_labels(ctx, &settings.namespace).await?; // IO
    let mut server = server::server(ctx, tracing, &settings, &labels, &mut memory.refusals, now).await?; // IO
    ctx.servers.leave_others(&reference(tracing), asked_since);

    // The workloads.
    steps.next(ReconcileStep::Workloads);
    let began = Instant::now();
    let labelled = observe::is_labelled(&labels);
    let tracings = observe::tracings(ctx, &settings.namespace, tracing); // memory
    let policies: Vec<_> = tracings.iter().map(Policy::of).collect(); // pure
    let tokenless = observe::tokenless(ctx, &settings.namespace, &policies).await?; // IO
    let context = SelectionContext {
        namespace: &settings.namespace,
        injection_enabled: labelled,
        platform: &ctx.platform,
        tokenless: &tokenless,
        policies: &policies,
        renews: false,
    };
    let observe::Workloads { assessments: mut workloads, accounts } =
        observe::workloads(ctx, &settings.name, &context, now).await?; // IO, each judged by core
    let reading = began.elapsed();
    recall(&mut workloads, tracing); // pure
    memory.rollout.annotate(&mut workloads, now);
    let troubles = observe::troubles(ctx, &settings.namespace, &mut workloads, now).await?; // IO

    // What the namespace shares: rights and certificate authorities.
    steps.next(ReconcileStep::Rights);
    let mut rights = rights::rights(
        ctx,
        &settings,
        &tracings,
        &accounts,
        server.workspace.as_ref(),
        &mut memory.rights,
        &mut memory.refusals,
    )
    .await?; // IO
    steps.next(ReconcileStep::Authorities);
    let old = tracing.status.clone().unwrap_or_default();
    let refused = canary::refused_merge_ca(ctx, &settings, labelled, &workloads, &old, &mut memory.canary, now).await?; // IO
    let failing = canary::failing(ctx, &settings.namespace, &workloads, troubles, &mut memory.canary, now).await?; // IO
    let without_merge_ca =
        refused.is_some() || !failing.is_empty() || workloads.iter().any(|j| j.merge_ca.fallback.is_some());
    let follows_authorities = authorities::is_wanted(&settings, without_merge_ca);
    let authorities =
        authorities::apply_ca_config_map(ctx, &settings, &tracings, without_merge_ca, &mut memory.refusals, now)
            .await?; // IO
    let client = observer::client(ctx, &settings, &mut server, &mut rights, now).await?; // IO

    // What MLflow has of them.
    steps.next(ReconcileStep::Traces);
    let subject = tracking::Subject {
        tracing,
        settings: &settings,
        workloads: &workloads,
        old: &old,
        answered: server.answered.as_ref(),
    };
    let answers = tracking::track(ctx, client, subject, &mut memory.tracking, now).await?; // memory, IO
    let tracking::Answers { takes_otlp, experiments, traces, writes, look_again } = answers;

    // What to say.
    steps.next(ReconcileStep::Status);
    let url = server.answered.as_ref().map(|m| m.url.clone()).unwrap_or_default();
    let found = Findings {
        mlflow: writes::mlflow_ready(server.verdict, writes.as_ref(), &settings, &url),
        workspace: server.workspace,
        rights: rights.verdict,
        authorities,
        refused_merge_ca: refused.as_ref(),
        accounts: rights.bound,
        takes_otlp,
        answered: server.answered,
        labelled,
        excluded: ctx.platform.excludes(&settings.namespace),
        workloads: &workloads,
        rollout_strategy: settings.rollout_strategy,
        webhook_silent: memory.rollout.is_webhook_silent(now),
        experiments: &experiments,
        traces: &traces,
        refresh_trace_times: memory.refreshed.is_none_or(|at| now.duration_since(at) >= REFRESH),
    };
    let (status, states) = status::status(tracing, &found, now); // pure
    let mut is_unsettled =
        rolling(&workloads, now.as_second()) > 0 || status::is_unsettled(&status, settings.server.mode());
    // Nobody may watch the ConfigMaps that users name.
    let look_again = [look_again, follows_authorities.then_some(REQUEUE_AT_LAST)].into_iter().flatten().min();
    let facts = |status: &AgentTracingStatus| {
        (status.mlflow.clone(), status.experiments.clone(), status.service_accounts.clone(), status.merge_ca.clone())
    };
    let facts_hold = facts(&status) == facts(&old);
    note_refresh(&old, &status, &traces, now, memory);
    measure(ctx, tracing, &status.conditions, states, newest_trace(&traces, memory));
    events::transitions(ctx, tracing, &workloads, &status, &mut memory.event_log).await; // IO
    if status != old {
        write(ctx, tracing, &status, memory).await?; // IO
    }

    // The webhook wires from the status that is stored: workloads are touched only in a pass that found it unchanged.
    if facts_hold {
        steps.next(ReconcileStep::Rollout);
        let rollout_strategy = settings.rollout_strategy;
        let roll_out = rollout::RollOut {
            tracing,
            rollout_strategy,
            context: &context,
            workloads: &workloads,
            failing: &failing,
            // A wiring that names a file which is not there would break the agents' own calls.
            may_wire: found.authorities.is_none(),
            mlflow_answers: found.mlflow_answers() && ctx.servers.answer_now(&reference(tracing)),
        };
        rollout::roll_out(ctx, &roll_out, &mut memory.rollout, &mut memory.event_log, now).await?; // IO
        let known_to_answer = rollout::RollOut { mlflow_answers: found.mlflow_answers(), ..roll_out };
        is_unsettled |= rollout::is_underway(&known_to_answer, &memory.rollout, now.as_second());
    }
    let next = next_pass(tracing, is_unsettled, look_again, now, memory);
    memory.failures = 0;
    memory.not_before = (reading > LONG_READING).then(|| Instant::now() + (reading * PAUSE).min(LONGEST_PAUSE));
    Ok(Action::requeue(if facts_hold { next } else { Duration::from_secs(1) }))
}

/// Tells in status that passes fail, from the third in a row on: one alone mends itself.
pub(super) async fn write_failure(tracing: &AgentTracing, ctx: &Context, error: &Error) {
    let memory = ctx.memory(tracing.metadata.uid.as_deref().unwrap_or_default());
    let memory = &mut *memory.lock().await;
    if memory.failures < 2 || tracing.metadata.deletion_timestamp.is_some() {
        return;
    }
    let tracing = &newest(tracing, memory);
    let what = shorten(&report(error));
    let status = status::failed(tracing, &what, &ctx.platform.operator_namespace, Timestamp::now());
    if Some(&status) != tracing.status.as_ref()
        && let Err(error) = write(ctx, tracing, &status, memory).await
    {
        tracing::warn!(error = report(&error), "failed to tell in status that passes fail");
    }
}

/// Counts a failed pass.
pub(super) fn failed_again(ctx: &Context, uid: &str) -> u32 {
    let memory = ctx.memory(uid);
    let Ok(mut memory) = memory.try_lock() else { return 1 };
    memory.failures = memory.failures.saturating_add(1);
    memory.failures
}

/// The AgentTracing as our own last write left it, while the watch still shows what was before. Without this a pass in
/// between would take the status for unwritten and write it again with other times.
fn newest(tracing: &AgentTracing, memory: &mut ReconcileState) -> AgentTracing {
    let shown = tracing.metadata.resource_version.as_ref();
    memory.written.take_if(|(before, _)| !shown.is_some_and(|shown| before.contains(shown)));
    memory.written.as_ref().map_or_else(|| tracing.clone(), |(_, written)| written.clone())
}

/// Writes a status that ends the pass.
async fn write_status(
    ctx: &Context,
    steps: &StepTimer<'_>,
    tracing: &AgentTracing,
    status: AgentTracingStatus,
    memory: &mut ReconcileState,
) -> Result<Action, Error> {
    steps.next(ReconcileStep::Status);
    // Of the rest nothing new is known, and what was known may no longer be so.
    measure(ctx, tracing, status.conditions.get(..1).unwrap_or_default(), States::new(), None);
    if Some(&status) != tracing.status.as_ref() {
        write(ctx, tracing, &status, memory).await?;
    }
    memory.failures = 0;
    // Nobody asks its server any more, nor looks for its traces.
    ctx.servers.leave_others(&reference(tracing), Instant::now());
    memory.tracking = tracking::TrackingState::default();
    Ok(Action::await_change())
}

async fn write(
    ctx: &Context,
    tracing: &AgentTracing,
    status: &AgentTracingStatus,
    memory: &mut ReconcileState,
) -> Result<(), Error> {
    let mut before = memory.written.take().map_or_else(Vec::new, |(before, _)| before);
    before.extend(tracing.metadata.resource_version.clone());
    let written = apply::status(ctx, tracing, status).await?;
    memory.written = Some((before, written));
    Ok(())
}

/// Says in metrics how an AgentTracing is.
fn measure(
    ctx: &Context,
    tracing: &AgentTracing,
    conditions: &[Condition],
    states: States,
    last_trace: Option<Timestamp>,
) {
    let (namespace, name) = (tracing.metadata.namespace.as_deref(), tracing.metadata.name.as_deref());
    let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
    ctx.options.metrics.tracing(namespace, name, conditions, states, last_trace);
}

fn newest_trace(traces: &BTreeMap<String, Evidence>, memory: &mut ReconcileState) -> Option<Timestamp> {
    memory.last_trace = memory.last_trace.max(traces.values().filter_map(Evidence::last_trace).max());
    memory.last_trace
}

/// When the next pass is, if nothing happens before.
fn next_pass(
    tracing: &AgentTracing,
    is_unsettled: bool,
    look_again: Option<Duration>,
    now: Timestamp,
    memory: &mut ReconcileState,
) -> Duration {
    let rest = || {
        let mut hasher = DefaultHasher::new();
        tracing.metadata.uid.hash(&mut hasher);
        REST + Duration::from_secs(hasher.finish() % SPREAD)
    };
    if !is_unsettled {
        memory.unsettled = None;
        return look_again.unwrap_or_else(rest);
    }
    let since = now.duration_since(*memory.unsettled.get_or_insert(now));
    let interval = match () {
        () if since < RECENT => REQUEUE_PENDING,
        () if since < LASTING => REQUEUE_LATER,
        () => REQUEUE_AT_LAST,
    };
    look_again.map_or(interval, |again| again.min(interval))
}

/// A first trace time is written at once; newer ones wait five minutes.
fn note_refresh(
    old: &AgentTracingStatus,
    new: &AgentTracingStatus,
    traces: &BTreeMap<String, Evidence>,
    now: Timestamp,
    memory: &mut ReconcileState,
) {
    let times = |status: &AgentTracingStatus| -> BTreeMap<String, String> {
        let rows = status.workloads.iter();
        rows.filter_map(|w| Some((format!("{}/{}", w.kind, w.name), w.last_trace_time.clone()?))).collect()
    };
    if !traces.is_empty() && times(old) != times(new) {
        memory.refreshed = Some(now);
    }
}
