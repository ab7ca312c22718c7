//! The links of one AgentTracing: its spec, its conditions, its workloads and their traces.

use jiff::Timestamp;

use super::{Chain, Fact, Facts, PodFacts, State, authorities, bad, good, name_of, operator_logs, unknown};
use crate::api::{AgentTracing, ConditionType, Reason, WorkloadState, WorkloadStatus};
use crate::core::kubectl::Kubectl;
use crate::core::selection::kind::Kind;

pub(super) fn of_tracing(chain: &mut Chain, tracing: &AgentTracing, facts: &Facts, of_several: bool, now: Timestamp) {
    let name = name_of(tracing);
    let title = |link: &str| if of_several { format!("{name}: {link}") } else { link.to_owned() };
    // One AgentTracing that is broken says nothing about the next.
    chain.broken = chain.links.iter().any(|link| link.state == State::Bad && !link.link.contains(": "));
    let status = tracing.status.clone().unwrap_or_default();
    let seen = status.observed_generation.is_some() && status.observed_generation == tracing.metadata.generation;
    chain.add(
        &title("spec"),
        match seen {
            true => good(format!("generation {} was reconciled", status.observed_generation.unwrap_or_default())),
            false => bad(format!(
                "the newest change of {name} was not reconciled; read the operator's log: {}",
                operator_logs(facts)
            )),
        },
    );
    let condition = |kind: ConditionType| status.conditions.iter().find(|c| c.type_ == kind.as_str());
    let stops = [Reason::Suspended, Reason::InvalidSpec, Reason::Conflict].map(Reason::as_str);
    if let Some(ready) = condition(ConditionType::Ready).filter(|c| stops.contains(&c.reason.as_str())) {
        chain.add(&title("spec allows it"), bad(format!("{}: {}", ready.reason, ready.message)));
    }
    for kind in [
        ConditionType::MLflowReady,
        ConditionType::WorkspaceReady,
        ConditionType::RBACReady,
        ConditionType::RelayReady,
        ConditionType::InjectionReady,
        ConditionType::ExperimentsReady,
    ] {
        if let Some(condition) = condition(kind) {
            chain.add(&title(kind.as_str()), of_condition(&condition.status, &condition.reason, &condition.message));
        }
    }
    workload_links(chain, tracing, facts, of_several, now);
    traces_link(chain, tracing, facts, &title("traces"));
}

/// The links of its workloads, or of the one that was asked for.
fn workload_links(chain: &mut Chain, tracing: &AgentTracing, facts: &Facts, of_several: bool, now: Timestamp) {
    let (name, namespace) = (name_of(tracing), &facts.namespace);
    let title = |link: &str| if of_several { format!("{name}: {link}") } else { link.to_owned() };
    let mut rows: Vec<_> = tracing.status.iter().flat_map(|status| &status.workloads).collect();
    if let Some(only) = &facts.workload {
        rows.retain(|row| resource(row) == *only);
        if rows.is_empty() && !of_several {
            let message = format!(
                "{only} is none that {name} selects, or it is not there; compare injection.kinds and injection.selector: {}",
                Kubectl::new("get").namespace(namespace).arg(only).yaml()
            );
            chain.add(only, bad(message));
        }
    }
    let first = chain.links.len();
    for row in rows {
        // The others are as they are whatever this one lacks.
        let broken = chain.broken;
        chain.add(&title(&resource(row)), of_workload(row, facts));
        if let Some(assessment) = of_bundle(row, facts, now) {
            chain.add(&title(&format!("CA bundle of {}", resource(row))), assessment);
        }
        chain.broken = broken;
    }
    chain.broken |= chain.links[first..].iter().any(|link| link.state == State::Bad);
}

/// Whether traces arrive: those of the workload that was asked for, or any.
fn traces_link(chain: &mut Chain, tracing: &AgentTracing, facts: &Facts, title: &str) {
    let Some(status) = &tracing.status else { return };
    let flowing = status.conditions.iter().find(|c| c.type_ == ConditionType::TracesFlowing.as_str());
    if let (Some(only), false) = (&facts.workload, chain.broken) {
        let row = status.workloads.iter().find(|row| resource(row) == *only && row.state == WorkloadState::Injected);
        if let Some(row) = row {
            chain.add(title, traces_of(row, facts));
        }
    } else if let Some(flowing) = flowing {
        let early = [Reason::NoTracesYet, Reason::NoTracesFrom].map(Reason::as_str).contains(&flowing.reason.as_str());
        let found = match early {
            true => unknown(format!("{}: {}", flowing.reason, flowing.message)),
            false => of_condition(&flowing.status, &flowing.reason, &flowing.message),
        };
        chain.add(title, found);
    }
}

/// What the user chose so is no fault, nor what another AgentTracing has.
fn is_fine(row: &WorkloadStatus) -> bool {
    let reason = row.reason.as_deref().and_then(Reason::from_name);
    row.state == WorkloadState::Injected || reason.is_some_and(Reason::is_no_fault)
}

fn of_workload(row: &WorkloadStatus, facts: &Facts) -> (State, String) {
    let why = [Some(row.state.as_str()), row.reason.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(" ");
    if !is_fine(row) {
        return bad(format!("{why}: {}", row.message.as_deref().unwrap_or_default()));
    }
    if row.state != WorkloadState::Injected {
        return good(match row.reason.as_deref() == Some(Reason::Conflict.as_str()) {
            true => format!("{why}: an older AgentTracing of this namespace has it"),
            false => format!("{why}, as its owner chose"),
        });
    }
    let experiment = row.experiment.as_deref().unwrap_or("one that cannot be seen");
    let last = row.last_trace_time.as_deref().map_or_else(|| "none seen".to_owned(), |time| format!("from {time}"));
    let wiring = format!("wired, experiment {experiment}, last trace {last}");
    match &facts.pods {
        Fact::Known(all) => match all.get(&resource(row)) {
            Some(PodFacts { running, current, .. }) if current < running => bad(format!(
                "{} of its {running} pods are from before the wiring; replace them: {}",
                running - current,
                Kubectl::new("rollout restart").namespace(&facts.namespace).arg(&resource(row))
            )),
            Some(PodFacts { tokenless: Some((pod, container)), .. }) => bad(format!(
                "container {container} of {pod} has no service account token, so that MLflow refuses its traces; a policy has taken it \
                 from the pod (automountServiceAccountToken), or its volume: {}",
                Kubectl::new("get pod").namespace(&facts.namespace).arg(pod).yaml()
            )),
            // Whether its traces arrive is not known, whatever the others' do.
            _ if row.last_trace_time.is_none() => unknown(format!(
                "{wiring}; send it a request, then look again: {}",
                Kubectl::new("get agenttracing").namespace(&facts.namespace)
            )),
            _ => good(wiring),
        },
        Fact::Unknown(why) => unknown(format!(
            "{wiring}; its pods cannot be looked at ({why}); see whether you may: {}",
            Kubectl::new("auth can-i list pods").namespace(&facts.namespace)
        )),
    }
}

/// Whether traces of one workload arrive. What is said of all of them says nothing about this one.
fn traces_of(row: &WorkloadStatus, facts: &Facts) -> (State, String) {
    let (namespace, resource) = (&facts.namespace, resource(row));
    let log = match row.kind == Kind::CronJob.as_str() {
        true => Kubectl::new("get jobs").namespace(namespace),
        false => Kubectl::new("logs").namespace(namespace).arg(&resource),
    };
    let broken = [Reason::TracesWithoutSpans, Reason::TracesStopped, Reason::TracesHeld].map(Reason::as_str);
    let note = row.notes.iter().find(|note| broken.iter().any(|reason| note.starts_with(&format!("{reason}: "))));
    let experiment = row.experiment.as_deref().unwrap_or("that cannot be seen");
    match (note, &row.last_trace_time) {
        // The agent has done its part.
        (Some(note), _) if note.starts_with(Reason::TracesHeld.as_str()) => bad(format!(
            "{note}; condition TracesFlowing says what to do: {}",
            Kubectl::new("describe agenttracing").namespace(namespace)
        )),
        (Some(note), _) => bad(format!("{note}; read its log: {log}")),
        (None, Some(time)) => good(format!("experiment {experiment} got a trace with its spans at {time}")),
        (None, None) => unknown(format!(
            "none was seen in experiment {experiment} since its current wiring; send it a request, then read its log: {log}"
        )),
    }
}

/// `None` where it has no bundle, or no pod that runs.
fn of_bundle(row: &WorkloadStatus, facts: &Facts, now: Timestamp) -> Option<(State, String)> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == row.kind)?;
    authorities::assess(kind, &resource(row), facts, now)
}

fn resource(row: &WorkloadStatus) -> String {
    format!("{}/{}", row.kind.to_ascii_lowercase(), row.name)
}

fn of_condition(status: &str, reason: &str, message: &str) -> (State, String) {
    let state = match status {
        "True" => State::Good,
        "False" => State::Bad,
        _ => State::Unknown,
    };
    (state, format!("{reason}: {message}"))
}
