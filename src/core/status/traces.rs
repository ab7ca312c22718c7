//! Whether traces arrive, and what that means for the whole.
//!
//! What is found in an experiment is said of the experiment: several workloads, and people, may log to the same one.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::health::port_of;

use super::condition::ConditionUpdate;
use super::{Findings, TracingRef, count, list, logs, messages};
use crate::api::{ConditionType, MlflowStatus, Reason, WorkloadStatus};
use crate::core::clip::clip;
use crate::core::kubectl::Kubectl;
use crate::core::workloads::evidence::Evidence;
use crate::core::workloads::rollout::touched_at;
use crate::core::workloads::{Assessment, InjectionState, TraceDestination};
use crate::names;

/// Seconds that a workload is available before missing traces are reported.
pub const SILENCE_SECONDS: i64 = 600;
/// The same after the pods of a Job have ended: what they sent at their end has arrived by then.
pub const SILENCE_SECONDS_AFTER_END: i64 = 120;
/// Most experiments that are named.
const MAX_NAMES: usize = 5;
/// Most notes of silent workloads that are repeated.
const MAX_SEEN: usize = 3;

/// Condition `TracesFlowing`.
pub(super) fn traces_flowing(
    tracing_ref: &TracingRef<'_>,
    counted: &[&Assessment],
    findings: &Findings<'_>,
    mlflow: Option<&MlflowStatus>,
    now: Timestamp,
) -> ConditionUpdate {
    let current: Vec<_> = counted.iter().copied().filter(|j| j.injection_state == InjectionState::Current).collect();
    held(tracing_ref, findings)
        .or_else(|| broken(tracing_ref, &current, findings, mlflow))
        .or_else(|| silent(tracing_ref, &current, findings, now))
        .or_else(|| ended_silently(tracing_ref, findings, now))
        .or_else(|| received(tracing_ref, &current, findings, mlflow))
        .unwrap_or_else(|| not_yet(tracing_ref, &current, mlflow))
}

fn evidence(findings: &Findings<'_>, assessment: &Assessment) -> Evidence {
    findings.traces.get(&assessment.uid).copied().unwrap_or(Evidence::NotAsked)
}

fn long_up(assessment: &Assessment, now: Timestamp) -> bool {
    assessment.rollout.available_since.is_some_and(|since| now.as_second() - since.as_second() >= SILENCE_SECONDS)
}

/// What is wrong with the traces of a workload, on its own row: conditions speak of all.
pub(super) fn note(findings: &Findings<'_>, assessment: &Assessment) -> Option<String> {
    match evidence(findings, assessment) {
        Evidence::WithoutSpans => {
            let reason = Reason::TracesWithoutSpans.as_str();
            Some(format!("{reason}: MLflow refuses the upload of spans to its experiment"))
        }
        Evidence::Stopped(last) => {
            let reason = Reason::TracesStopped.as_str();
            Some(format!("{reason}{LAST_BEGAN}{last}"))
        }
        Evidence::Held { cause, .. } => {
            Some(format!("{}: its traces wait in the relay ({})", Reason::TracesHeld.as_str(), cause.as_str()))
        }
        Evidence::NotAsked | Evidence::Nothing | Evidence::NoExperiment | Evidence::Received(_) => None,
    }
}

/// When the last trace of a workload began, where its row says that they have stopped: a new leader goes on from there.
pub fn stopped_at(row: &WorkloadStatus) -> Option<Timestamp> {
    let time =
        |note: &String| note.strip_prefix(Reason::TracesStopped.as_str())?.strip_prefix(LAST_BEGAN)?.parse().ok();
    row.notes.iter().find_map(time)
}

const LAST_BEGAN: &str = ": the last one of its experiment began at ";

/// What waits in the relay.
fn held(tracing_ref: &TracingRef<'_>, findings: &Findings<'_>) -> Option<ConditionUpdate> {
    let held = findings.report?.held.as_ref()?;
    Some(ConditionUpdate::bad(Reason::TracesHeld, messages::traces_held(tracing_ref, held)))
}

/// What somebody has to mend.
fn broken(
    tracing_ref: &TracingRef<'_>,
    current: &[&Assessment],
    findings: &Findings<'_>,
    mlflow: Option<&MlflowStatus>,
) -> Option<ConditionUpdate> {
    let namespace = tracing_ref.namespace;
    let with = |test: &dyn Fn(Evidence) -> bool| -> Vec<&Assessment> {
        current.iter().copied().filter(|j| test(evidence(findings, j))).collect()
    };
    let spanless = with(&|e| e == Evidence::WithoutSpans);
    if let Some(first) = spanless.first() {
        let message = format!(
            "Traces arrive without their spans in {}: MLflow refuses their upload; read the agent's log: {}",
            experiments(&spanless),
            logs(namespace, first)
        );
        return Some(ConditionUpdate::bad(Reason::TracesWithoutSpans, message));
    }
    let stopped = with(&|e| matches!(e, Evidence::Stopped(_)));
    let last = |j: &&&Assessment| evidence(findings, j).last_trace();
    if let Some(first) = stopped.iter().min_by_key(last) {
        let message = format!(
            "Traces came regularly and have stopped in {}, the last one at {}: if MLflow writes (condition MLflowReady says so) and the \
             agent is at work, it has lost MLflow; read its log: {}",
            experiments(&stopped),
            last(&first).unwrap_or_default(),
            logs(namespace, first)
        );
        return Some(ConditionUpdate::bad(Reason::TracesStopped, message));
    }
    let lost = with(&|e| e == Evidence::Nothing);
    let url = mlflow.filter(|_| findings.takes_otlp == Some(false)).map(|mlflow| mlflow.url.as_str())?;
    let otlp = lost.iter().find_map(|j| Some((j, j.otlp.as_ref()?, j.otlp.as_ref()?.correct(url)?)));
    let (first, endpoint, mended) = otlp?;
    let (container, resource) = (&endpoint.container, first.resource());
    // MLflow's SDK in the same container would follow that variable too.
    let assignments = [mended.as_str(), "MLFLOW_ENABLE_OTLP_EXPORTER=false"];
    let remedy = match first.kind.template_is_mutable() {
        true => format!(
            "correct the variable that says so: {}",
            Kubectl::new("set env").namespace(namespace).arg(&resource).arg("-c").arg(container).args(assignments)
        ),
        // Of a Pod and a Job that exist no variable can be changed.
        false => format!(
            "set {} in what makes it: {}",
            assignments.join(" "),
            Kubectl::new("get").namespace(namespace).arg(&resource).yaml()
        ),
    };
    let message = format!(
        "Container {container} of {} sends its traces by OTLP to a path that this MLflow does not have; {remedy}",
        first.name
    );
    Some(ConditionUpdate::bad(Reason::OTLPPathMissing, message))
}

/// Silence that somebody may want.
fn silent(
    tracing_ref: &TracingRef<'_>,
    current: &[&Assessment],
    findings: &Findings<'_>,
    now: Timestamp,
) -> Option<ConditionUpdate> {
    let TracingRef { namespace, pins, .. } = tracing_ref;
    let deleted: Vec<_> = current.iter().copied().filter(|j| evidence(findings, j) == Evidence::NoExperiment).collect();
    if !deleted.is_empty() {
        let message = format!(
            "No trace can arrive in {}, which was deleted in MLflow; see condition ExperimentsReady: {}",
            experiments(&deleted),
            tracing_ref.command("describe")
        );
        return Some(ConditionUpdate::bad(Reason::NoTracesFrom, message));
    }
    let silent: Vec<_> =
        current.iter().copied().filter(|j| evidence(findings, j) == Evidence::Nothing && long_up(j, now)).collect();
    let first = silent.first()?;
    let message = format!(
        "No trace from {} in more than 10 minutes: {}is it in use, and does its code switch MLflow tracing on (for example \
         mlflow.langchain.autolog())? {}Read its log: {}",
        list(&silent),
        seen(&silent),
        if *pins { "" } else { "With package mlflow-tracing in place of mlflow it needs experiment.pin: true. " },
        logs(namespace, first)
    );
    Some(ConditionUpdate::bad(Reason::NoTracesFrom, message))
}

/// Jobs and CronJobs whose pods ended and left no trace: nobody waits for these ten minutes.
fn ended_silently(tracing_ref: &TracingRef<'_>, findings: &Findings<'_>, now: Timestamp) -> Option<ConditionUpdate> {
    let silent: Vec<_> = findings.workloads.iter().filter(|j| has_ended_silently(j, findings, now)).collect();
    let first = silent.first()?;
    let message = format!(
        "The pods of {} ended, and no trace of theirs was seen: {}does their code switch MLflow tracing on, and does it wait for its \
         traces at its end (mlflow.flush_trace_async_logging())? Read the log: {}",
        list(&silent),
        seen(&silent),
        logs(tracing_ref.namespace, first)
    );
    Some(ConditionUpdate::bad(Reason::NoTracesFrom, message))
}

/// What the templates of silent workloads already say about the reason, a few of them.
fn seen(silent: &[&Assessment]) -> String {
    let notes = silent.iter().flat_map(|assessment| assessment.notes.iter().map(move |note| (assessment, note)));
    notes.take(MAX_SEEN).map(|(assessment, note)| format!("{}: {}; ", assessment.name, clip(note, 192))).collect()
}

/// Whether the pods of a wired Job or CronJob ended long enough ago for their traces to be there, and none is.
pub(super) fn has_ended_silently(assessment: &Assessment, findings: &Findings<'_>, now: Timestamp) -> bool {
    let wired_since = touched_at(assessment).max(assessment.created.map(Timestamp::as_second));
    let ended =
        assessment.ended.map(Timestamp::as_second).filter(|ended| wired_since.is_none_or(|since| since < *ended));
    assessment.injection_state == InjectionState::Current
        && evidence(findings, assessment) == Evidence::Nothing
        && ended.is_some_and(|ended| now.as_second() - ended >= SILENCE_SECONDS_AFTER_END)
}

fn received(
    tracing_ref: &TracingRef<'_>,
    current: &[&Assessment],
    findings: &Findings<'_>,
    mlflow: Option<&MlflowStatus>,
) -> Option<ConditionUpdate> {
    let TracingRef { namespace, name, .. } = tracing_ref;
    let received = with_traces(current.iter().copied(), findings);
    if received.is_empty() {
        return None;
    }
    let url = mlflow.map(|m| m.url.as_str()).unwrap_or_default();
    let port = port_of(url);
    let see = match mlflow.is_some_and(|m| m.source == "Service") {
        true => format!(
            "see them at http://localhost:{port} with: {}",
            Kubectl::new("port-forward")
                .namespace(namespace)
                .arg(&format!("service/{}", names::mlflow_object(name)))
                .arg(port)
        ),
        false => format!("they are at {url}; the newest of each: {}", tracing_ref.command("describe")),
    };
    let message = format!("Traces with their spans arrive in {}; {see}", experiments(&received));
    Some(ConditionUpdate::good(Reason::TracesReceived, message))
}

fn with_traces<'a>(workloads: impl Iterator<Item = &'a Assessment>, findings: &Findings<'_>) -> Vec<&'a Assessment> {
    workloads
        .filter(|j| {
            j.injection_state == InjectionState::Current && matches!(evidence(findings, j), Evidence::Received(_))
        })
        .collect()
}

fn not_yet(tracing_ref: &TracingRef<'_>, current: &[&Assessment], mlflow: Option<&MlflowStatus>) -> ConditionUpdate {
    let namespace = tracing_ref.namespace;
    if mlflow.is_some_and(|m| m.source == "Unobserved") {
        let message = format!(
            "Nobody but the agents may ask this MLflow, so that nobody can tell whether traces arrive; list its host in \
             --trusted-mlflow-hosts, or in --mlflow-token-hosts where it needs a token: {}",
            Kubectl::new("get deployment").namespace(names::OPERATOR_NAMESPACE).arg(names::MANAGED_BY).yaml()
        );
        return ConditionUpdate::unknown(Reason::NotObservable, message);
    }
    let unknown: Vec<_> = current.iter().copied().filter(|j| j.experiment == TraceDestination::Unknown).collect();
    if !unknown.is_empty() && unknown.len() == current.len() {
        let message = format!(
            "The experiment of {} comes from elsewhere (valueFrom), so nobody can look for its traces; see its \
             environment: {}",
            list(&unknown),
            Kubectl::new("get").namespace(namespace).arg(&unknown[0].resource()).yaml()
        );
        return ConditionUpdate::unknown(Reason::NotObservable, message);
    }
    let next = match current.first() {
        Some(first) => format!("send the agents a request, then read their log: {}", logs(namespace, first)),
        None => format!("no workload is wired yet; watch with: {}", tracing_ref.command("get").arg("--watch")),
    };
    ConditionUpdate::bad(Reason::NoTracesYet, format!("No trace was seen since the current wiring: {next}"))
}

/// The experiments of workloads, each once, with how many workloads log to it where it is not one alone.
fn experiments(workloads: &[&Assessment]) -> String {
    let mut sharers: BTreeMap<String, usize> = BTreeMap::new();
    for experiment in workloads.iter().filter_map(|j| j.experiment.display()) {
        *sharers.entry(experiment).or_default() += 1;
    }
    let named = |(experiment, workloads): (&String, &usize)| match workloads {
        1 => experiment.clone(),
        several => format!("{experiment} (shared by {})", count(*several, "workload")),
    };
    let few = |most: usize| sharers.iter().take(most).map(named).collect::<Vec<_>>().join(", ");
    match sharers.len() {
        0 => "an experiment that cannot be seen".to_owned(),
        1 => format!("experiment {}", few(1)),
        all if all <= MAX_NAMES => format!("experiments {}", few(all)),
        all => format!("{all} experiments ({} and {} more)", few(3), all - 3),
    }
}

/// In progress, so that something else is the worst.
const TRANSIENT: [Reason; 4] =
    [Reason::Progressing, Reason::WaitingForMLflow, Reason::RolloutInProgress, Reason::Creating];
/// What is said of traces and is no fault of anything.
const INFORMATIONAL: [Reason; 3] = [Reason::NoTracesYet, Reason::NoTracesFrom, Reason::NotObservable];

/// Condition `Ready`: the worst of the others.
pub(super) fn ready(
    tracing_ref: &TracingRef<'_>,
    findings: &Findings<'_>,
    updates: &[(ConditionType, ConditionUpdate)],
) -> ConditionUpdate {
    let lost = findings.workloads.iter().filter(|j| j.injection_state == InjectionState::OwnedByOther).count();
    if lost > 0 && lost == findings.workloads.len() {
        let message = format!(
            "All {lost} workloads that match belong to an older AgentTracing; delete one of the two or give them different \
             injection.selectors: {}",
            Kubectl::new("get agenttracing").namespace(tracing_ref.namespace)
        );
        return ConditionUpdate::bad(Reason::Conflict, message);
    }
    let lowers = |(condition, update): &&(ConditionType, ConditionUpdate)| {
        let calm = *condition == ConditionType::TracesFlowing && INFORMATIONAL.contains(&update.reason);
        update.good == Some(false) && !calm
    };
    let bad = || updates.iter().filter(lowers).map(|(_, update)| update);
    if let Some(worst) = bad().find(|v| !TRANSIENT.contains(&v.reason)).or_else(|| bad().next()) {
        return worst.clone();
    }
    let traces_flowing = updates.iter().find(|(condition, _)| *condition == ConditionType::TracesFlowing);
    let Some((_, traces)) = traces_flowing else { return ConditionUpdate::good(Reason::WaitingForTraces, "") };
    let received = with_traces(findings.workloads.iter(), findings);
    match (traces.good, received.as_slice()) {
        (Some(true), _) => ConditionUpdate::good(Reason::TracesReceived, traces.message.clone()),
        (_, []) => ConditionUpdate::good(Reason::WaitingForTraces, traces.message.clone()),
        // One that is silent does not undo what the others have shown.
        (_, some) => {
            let message = format!("Traces with their spans arrive in {}. {}", experiments(some), traces.message);
            ConditionUpdate::good(Reason::TracesReceived, message)
        }
    }
}
