//! One pass over one AgentTracing: six steps, each with what it read or wrote as its result.

mod schedule;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::controller::Action;
use tokio::time::Instant;

use super::mlflow_credentials::{self, AuthenticatedClient};
use super::mlflow_server::{self, Server};
use super::rbac::{self, Rights};
use super::relay::{self, Neighbours, Relay};
use super::step_timer::StepTimer;
use super::tracking::{self, Answers};
use super::{Context, Error, ca_config_map, canary, events, observe, reference, rollout};
use crate::api::{AgentTracing, AgentTracingStatus, RefusedMergeCa};
use crate::core::selection::SelectionContext;
use crate::core::settings::policy::Policy;
use crate::core::settings::{Settings, parse};
use crate::core::status::condition::ConditionUpdate;
use crate::core::status::quote::shorten;
use crate::core::status::{self, Findings, Settling, States, writes};
use crate::core::wiring::parts::FallbackReason;
use crate::core::workloads::Assessment;
use crate::core::workloads::rollout::{recall, rolling};
use crate::telemetry::error_chain;
use crate::telemetry::metrics::ReconcileStep;
use schedule::REQUEUE_AT_LAST;
pub(super) use state::ReconcileState;

/// Trace times in status are at least this old before they are written anew.
const REFRESH: SignedDuration = SignedDuration::from_mins(5);
/// After a status that says something else of the server: workloads are changed in the pass that finds it stored.
const ONCE_STORED: Duration = Duration::from_secs(1);

pub(super) async fn reconcile(tracing: &AgentTracing, ctx: &Context, timer: &StepTimer<'_>) -> Result<Action, Error> {
    let state = ctx.reconcile_state(tracing.metadata.uid.as_deref().unwrap_or_default());
    let state = &mut *state.lock().await;
    let tracing = &state.newest(tracing);
    let now = Timestamp::now();
    if tracing.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change()); // its children go with it
    }
    let settings = match accepted(tracing, ctx, now) {
        Ok(settings) => settings,
        Err(status) => return rest_with(ctx, timer, tracing, &status, state).await, // IO
    };
    if let Some(pause) = state.pause() {
        return Ok(Action::requeue(pause));
    }
    state.note_generation(ctx, tracing, &settings);
    let pass = Pass { ctx, timer, tracing, settings: &settings, old: tracing.status.clone().unwrap_or_default(), now };

    let found = pass.find_server(state).await?; // IO
    let observed = pass.observe_workloads(&found.labels, state).await?; // IO
    let mut access = pass.grant_access(found.server, &observed, state).await?; // IO
    let answers = pass.ask_mlflow(&mut access, &observed, state).await?; // memory, IO
    let report = pass.write_status(access, &observed, answers, state).await?; // pure, then IO
    let is_underway = pass.roll_out(&report, &observed, state).await?; // IO

    state.failures = 0;
    state.note_reading(observed.reading);
    let settling = if is_underway { Settling::Unsettled } else { report.settling };
    let next = state.next_pass(tracing, settling, report.look_again, now);
    Ok(Action::requeue(if report.is_stored { next } else { ONCE_STORED }))
}

/// What is wanted of this AgentTracing; the status that says why nothing is.
fn accepted(tracing: &AgentTracing, ctx: &Context, now: Timestamp) -> Result<Settings, Box<AgentTracingStatus>> {
    let settings = parse(tracing).map_err(|problems| {
        let problems = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Box::new(status::invalid(tracing, &problems, now))
    })?;
    if settings.suspend {
        return Err(Box::new(status::suspended(tracing, now)));
    }
    match ctx.platform.forbids(&settings) {
        Some(problem) => Err(Box::new(status::invalid(tracing, &problem.to_string(), now))),
        None => Ok(settings),
    }
}

/// What all steps know.
struct Pass<'a> {
    ctx: &'a Context,
    timer: &'a StepTimer<'a>,
    tracing: &'a AgentTracing,
    settings: &'a Settings,
    /// The status that is stored.
    old: AgentTracingStatus,
    now: Timestamp,
}

/// The namespace with its MLflow server.
struct FoundServer {
    labels: BTreeMap<String, String>,
    server: Server,
}

/// The namespace with its workloads.
#[derive(Default)]
struct Observed {
    tracings: Vec<AgentTracing>,
    policies: Vec<Policy>,
    tokenless: BTreeSet<String>,
    /// Whether it carries the injection label.
    labelled: bool,
    workloads: Vec<Assessment>,
    /// Service accounts to be bound in mode CR.
    accounts: BTreeSet<String>,
    troubles: observe::Troubles,
    /// How long reading took.
    reading: Duration,
}

impl Observed {
    fn selection<'a>(&'a self, pass: &Pass<'a>) -> SelectionContext<'a> {
        SelectionContext {
            namespace: &pass.settings.namespace,
            injection_enabled: self.labelled,
            platform: &pass.ctx.platform,
            tokenless: &self.tokenless,
            policies: &self.policies,
            renews: false,
        }
    }
}

/// Who may do what, and what the cluster admits.
struct Access {
    server: Server,
    rights: Rights,
    relay: Relay,
    /// What keeps the merged certificate authorities from agents.
    authorities: Option<ConditionUpdate>,
    /// Whether the ConfigMap with them has to follow others that nobody may watch.
    follows_authorities: bool,
    refused_merge_ca: Option<RefusedMergeCa>,
    /// Workloads that are to do without the init container.
    failing: BTreeMap<String, FallbackReason>,
    /// By which MLflow is asked, where it may be.
    client: Option<AuthenticatedClient>,
}

/// What the status says, as far as the rest of the pass needs it.
struct Report {
    /// What the webhook wires from is stored as it is now.
    is_stored: bool,
    settling: Settling,
    may_wire: bool,
    mlflow_answers: bool,
    failing: BTreeMap<String, FallbackReason>,
    look_again: Option<Duration>,
}

impl Pass<'_> {
    /// Brings the server about as far as it is ours, and asks it who it is.
    async fn find_server(&self, state: &mut ReconcileState) -> Result<FoundServer, Error> {
        self.timer.next(ReconcileStep::Server);
        let Self { ctx, tracing, settings, now, .. } = *self;
        let asked_since = Instant::now();
        let labels = observe::namespace_labels(ctx, &settings.namespace).await?; // IO
        let server = mlflow_server::server(ctx, tracing, settings, &labels, &mut state.refusals, now).await?; // IO
        ctx.servers.leave_others(&reference(tracing), asked_since);
        Ok(FoundServer { labels, server })
    }

    /// Reads the workloads of the namespace, each judged by core, and what keeps those that are not well.
    async fn observe_workloads(
        &self,
        labels: &BTreeMap<String, String>,
        state: &mut ReconcileState,
    ) -> Result<Observed, Error> {
        self.timer.next(ReconcileStep::Workloads);
        let Self { ctx, tracing, settings, now, .. } = *self;
        let began = Instant::now();
        let tracings = observe::tracings(ctx, &settings.namespace, tracing); // memory
        let policies: Vec<_> = tracings.iter().map(Policy::of).collect(); // pure
        let tokenless = observe::tokenless(ctx, &settings.namespace, &policies).await?; // IO
        let labelled = observe::is_labelled(labels);
        let mut observed = Observed { tracings, policies, tokenless, labelled, ..Observed::default() };
        let observe::Workloads { assessments, accounts } =
            observe::workloads(ctx, &settings.name, &observed.selection(self), now).await?; // IO
        (observed.workloads, observed.accounts, observed.reading) = (assessments, accounts, began.elapsed());
        recall(&mut observed.workloads, tracing); // pure
        state.rollout.annotate(&mut observed.workloads, now);
        observed.troubles = observe::troubles(ctx, &settings.namespace, &mut observed.workloads, now).await?; // IO
        Ok(observed)
    }

    /// Brings about what the namespace shares, rights and certificate authorities, and gets the means to ask MLflow.
    async fn grant_access(
        &self,
        mut server: Server,
        observed: &Observed,
        state: &mut ReconcileState,
    ) -> Result<Access, Error> {
        let Self { ctx, settings, ref old, now, .. } = *self;
        let Observed { tracings, policies, labelled, workloads, accounts, troubles, .. } = observed;
        let neighbours = Neighbours { tracings, policies };
        self.timer.next(ReconcileStep::Relay);
        let relay = relay::relay(ctx, settings, neighbours, workloads, old, &mut state.relay, now).await?; // IO
        self.timer.next(ReconcileStep::Rights);
        let wanted = rbac::Wanted { agents: accounts, relays: &relay::accounts(neighbours), tracings };
        let workspace = server.workspace.as_ref();
        let mut rights = rbac::rights(ctx, settings, wanted, workspace, &mut state.rights, &mut state.refusals).await?; // IO
        self.timer.next(ReconcileStep::Authorities);
        let refused_merge_ca =
            canary::refused_merge_ca(ctx, settings, *labelled, workloads, old, &mut state.canary, now).await?; // IO
        let failing = canary::failing(ctx, &settings.namespace, workloads, troubles, &mut state.canary, now).await?; // IO
        let some_without = refused_merge_ca.is_some()
            || !failing.is_empty()
            || workloads.iter().any(|workload| workload.merge_ca.fallback.is_some());
        let follows_authorities = ca_config_map::is_wanted(settings, some_without);
        let authorities = match follows_authorities {
            true => ca_config_map::ensure(ctx, &settings.namespace, policies, &mut state.refusals, now).await?, // IO
            false => None,
        };
        let client = mlflow_credentials::client(ctx, settings, &mut server, &mut rights, now).await?; // IO
        Ok(Access { server, rights, relay, authorities, follows_authorities, refused_merge_ca, failing, client })
    }

    /// Takes what is known of the workloads' experiments and traces, and says what is to be asked.
    async fn ask_mlflow(
        &self,
        access: &mut Access,
        observed: &Observed,
        state: &mut ReconcileState,
    ) -> Result<Answers, Error> {
        self.timer.next(ReconcileStep::Traces);
        let subject = tracking::Subject {
            tracing: self.tracing,
            settings: self.settings,
            workloads: &observed.workloads,
            old: &self.old,
            answered: access.server.answered.as_ref(),
            report: access.relay.report.as_deref(),
        };
        let client = access.client.take();
        let answers = tracking::track(self.ctx, client, subject, &mut state.tracking, self.now).await?; // memory, IO
        state.relay.await_traces(&observed.workloads, &answers.traces);
        Ok(answers)
    }

    /// Says how everything is: in status, in metrics, in events.
    async fn write_status(
        &self,
        access: Access,
        observed: &Observed,
        answers: Answers,
        state: &mut ReconcileState,
    ) -> Result<Report, Error> {
        self.timer.next(ReconcileStep::Status);
        let Self { ctx, tracing, settings, ref old, now, .. } = *self;
        let Answers { takes_otlp, known, traces, writes, look_again } = &answers;
        let Access { server, rights, relay, authorities, follows_authorities, refused_merge_ca, failing, .. } = access;
        let url = server.answered.as_ref().map(|mlflow| mlflow.url.clone()).unwrap_or_default();
        let findings = Findings {
            mlflow: writes::mlflow_ready(server.verdict, writes.as_ref(), settings, &url),
            workspace: server.workspace,
            rights: rights.verdict,
            relay: relay.verdict,
            report: relay.report.as_deref(),
            ready_relay: relay.status,
            relays_all: settings.relays_all(),
            authorities,
            refused_merge_ca: refused_merge_ca.as_ref(),
            accounts: rights.bound,
            takes_otlp: *takes_otlp,
            answered: server.answered,
            labelled: observed.labelled,
            excluded: ctx.platform.excludes(&settings.namespace),
            workloads: &observed.workloads,
            rollout_strategy: settings.rollout_strategy,
            webhook_silent: state.rollout.is_webhook_silent(now),
            experiments: &known.experiments,
            traces,
            refresh_trace_times: state.refreshed.is_none_or(|at| now.duration_since(at) >= REFRESH),
        };
        let (status, states) = status::status(tracing, &findings, now); // pure
        state.note_refresh(old, &status, traces, now);
        measure(ctx, tracing, &status.conditions, states, state.newest_trace(traces));
        events::transitions(ctx, tracing, &observed.workloads, &status, &mut state.event_log).await; // IO
        state.write_status(ctx, tracing, &status).await?; // IO
        let rolls = rolling(&observed.workloads, now.as_second()) > 0;
        Ok(Report {
            is_stored: wires_alike(&status, old),
            settling: if rolls { Settling::Unsettled } else { Settling::of(&status, settings.server.mode()) },
            // A wiring that names a file which is not there would break the agents' own calls.
            may_wire: findings.authorities.is_none(),
            // Agents look for the relay before it as they do for MLflow.
            mlflow_answers: findings.mlflow_answers() && findings.relay_answers(),
            failing,
            // Nobody may watch the ConfigMaps that users name.
            look_again: [*look_again, follows_authorities.then_some(REQUEUE_AT_LAST)].into_iter().flatten().min(),
        })
    }

    /// Brings workloads to their wiring. The webhook wires from the status that is stored, so they are touched only in a pass that
    /// found it so. Says whether something is still to be changed, or not yet well.
    async fn roll_out(&self, report: &Report, observed: &Observed, state: &mut ReconcileState) -> Result<bool, Error> {
        if !report.is_stored {
            return Ok(false);
        }
        self.timer.next(ReconcileStep::Rollout);
        let Self { ctx, tracing, settings, now, .. } = *self;
        let roll_out = rollout::RollOut {
            tracing,
            rollout_strategy: settings.rollout_strategy,
            context: &observed.selection(self),
            workloads: &observed.workloads,
            failing: &report.failing,
            may_wire: report.may_wire,
            mlflow_answers: report.mlflow_answers && ctx.servers.answer_now(&reference(tracing)),
        };
        rollout::roll_out(ctx, &roll_out, &mut state.rollout, &mut state.event_log, now).await?; // IO
        // What waits for the server's answer is under way as well.
        let once_it_answers = rollout::RollOut { mlflow_answers: report.mlflow_answers, ..roll_out };
        Ok(rollout::is_underway(&once_it_answers, &state.rollout, now.as_second()))
    }
}

/// Whether the webhook wires the same from both: it knows the server, the experiments and the rights from the status.
fn wires_alike(one: &AgentTracingStatus, other: &AgentTracingStatus) -> bool {
    one.mlflow == other.mlflow
        && one.relay == other.relay
        && one.experiments == other.experiments
        && one.service_accounts == other.service_accounts
        && one.merge_ca == other.merge_ca
}

/// Ends a pass with a status that stays until something changes.
async fn rest_with(
    ctx: &Context,
    timer: &StepTimer<'_>,
    tracing: &AgentTracing,
    status: &AgentTracingStatus,
    state: &mut ReconcileState,
) -> Result<Action, Error> {
    timer.next(ReconcileStep::Status);
    // Of the rest nothing new is known, and what was known may no longer be so.
    measure(ctx, tracing, status.conditions.get(..1).unwrap_or_default(), States::new(), None);
    state.write_status(ctx, tracing, status).await?;
    state.failures = 0;
    // Nobody asks its server any more, nor looks for its traces.
    ctx.servers.leave_others(&reference(tracing), Instant::now());
    (state.tracking, state.relay) = Default::default();
    Ok(Action::await_change())
}

/// Tells in status that passes fail, from the third in a row on: one alone mends itself.
pub(super) async fn write_failure(tracing: &AgentTracing, ctx: &Context, error: &Error) {
    let state = ctx.reconcile_state(tracing.metadata.uid.as_deref().unwrap_or_default());
    let state = &mut *state.lock().await;
    if state.failures < 2 || tracing.metadata.deletion_timestamp.is_some() {
        return;
    }
    let tracing = &state.newest(tracing);
    let what = shorten(&error_chain(error));
    let status = status::failed(tracing, &what, &ctx.platform.operator_namespace, Timestamp::now());
    if let Err(error) = state.write_status(ctx, tracing, &status).await {
        tracing::warn!(error = error_chain(&error), "failed to tell in status that passes fail");
    }
}

/// Counts a failed pass.
pub(super) fn failed_again(ctx: &Context, uid: &str) -> u32 {
    let state = ctx.reconcile_state(uid);
    let Ok(mut state) = state.try_lock() else { return 1 };
    state.failures = state.failures.saturating_add(1);
    state.failures
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
