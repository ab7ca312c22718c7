//! The status of an AgentTracing, from what a pass found.
//!
//! It is computed whole each time and written only when it differs: no field changes by itself, and a condition's
//! `lastTransitionTime` moves only with its status.

mod bounds;
pub mod condition;
mod facts;
pub mod health;
mod messages;
pub mod mlflow_cr;
pub mod quote;
pub mod relay;
mod rows;
mod server_pods;
mod settling;
mod traces;
mod workloads;
pub mod writes;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::json;

use self::condition::ConditionUpdate;
pub use self::traces::{SILENCE_SECONDS, SILENCE_SECONDS_AFTER_END, stopped_at};
use crate::api::{
    AgentTracing, AgentTracingStatus, ConditionType, MlflowMode, MlflowStatus, Reason, RefusedMergeCa, RelayStatus,
};
use crate::core::kubectl::Kubectl;
use crate::core::relay::report::RelayReport;
use crate::core::selection::kind::Kind;
use crate::core::settings::policy::RolloutStrategy;
use crate::core::workloads::cause::Fleet;
use crate::core::workloads::evidence::Evidence;
use crate::core::workloads::{Assessment, InjectionState};
use crate::names;
pub use rows::States;
pub use settling::Settling;

/// What one pass found.
#[derive(Clone, Debug)]
pub struct Findings<'a> {
    /// Condition `MLflowReady`.
    pub mlflow: ConditionUpdate,
    /// Condition `WorkspaceReady`, in mode CR.
    pub workspace: Option<ConditionUpdate>,
    /// Condition `RBACReady`, in mode CR.
    pub rights: Option<ConditionUpdate>,
    /// Condition `RelayReady`, where there is a relay.
    pub relay: Option<ConditionUpdate>,
    /// What the relay's answers say, where it answers.
    pub report: Option<&'a RelayReport>,
    /// The relay that was ready once.
    pub ready_relay: Option<RelayStatus>,
    /// Whether agents talk to the relay alone, so that no account of theirs has to be bound.
    pub relays_all: bool,
    /// What keeps the merged certificate authorities from agents, where something does.
    pub authorities: Option<ConditionUpdate>,
    /// The init container that the cluster does not admit in this namespace.
    pub refused_merge_ca: Option<&'a RefusedMergeCa>,
    /// Service accounts that may write to MLflow.
    pub accounts: BTreeSet<String>,
    /// Whether OTLP is taken at the tracking URI; `None` where nobody asked.
    pub takes_otlp: Option<bool>,
    /// The MLflow that answered at the wanted address in this pass.
    pub answered: Option<MlflowStatus>,
    /// Whether the namespace carries the injection label.
    pub labelled: bool,
    /// Whether it is one that is never wired.
    pub excluded: bool,
    /// The workloads.
    pub workloads: &'a [Assessment],
    /// How fast workloads may be changed.
    pub rollout_strategy: RolloutStrategy,
    /// Whether a recent touch went unanswered.
    pub webhook_silent: bool,
    /// Experiments.
    pub experiments: &'a Experiments,
    /// Per workload, by uid, what is known of its traces.
    pub traces: &'a BTreeMap<String, Evidence>,
    /// Whether newer trace times may be written: at most once in five minutes.
    pub refresh_trace_times: bool,
}

impl Findings<'_> {
    /// Whether MLflow answers now, or counts as if it did: no running workload is changed while it does not.
    pub fn mlflow_answers(&self) -> bool {
        self.answered.is_some()
    }

    /// Whether the relay, where there is one, takes traces now.
    pub fn relay_answers(&self) -> bool {
        self.relay.as_ref().is_none_or(relay::takes_traces)
    }
}

/// Experiments as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Experiments {
    /// Those that exist: name and id.
    pub ensured: BTreeMap<String, String>,
    /// Those that the workloads need, by name, and what is wrong with each.
    pub problems: BTreeMap<String, (Reason, String)>,
}

/// The status that says what was found, and the states of all workloads.
pub fn status(tracing: &AgentTracing, findings: &Findings<'_>, now: Timestamp) -> (AgentTracingStatus, States) {
    let old = tracing.status.clone().unwrap_or_default();
    let tracing_ref = TracingRef::of(tracing);
    let counted: Vec<_> = findings.workloads.iter().filter(|j| is_counted(j)).collect();
    let current = counted.iter().filter(|j| j.injection_state == InjectionState::Current).count();
    let fleet = Fleet::of(findings.workloads, findings.rollout_strategy, findings.mlflow_answers(), now);
    let causes: Vec<_> = findings.workloads.iter().map(|j| (j, fleet.cause(j))).collect();
    let (listed, states) = rows::list(&tracing_ref, &causes, findings, &old, now);

    let mlflow = findings.answered.clone().or(old.mlflow.clone());
    let rights = facts::rights(&tracing_ref, findings);
    let shared = [
        (ConditionType::WorkspaceReady, findings.workspace.clone()),
        (ConditionType::RBACReady, rights),
        (ConditionType::RelayReady, findings.relay.clone()),
    ];
    let shared = shared.into_iter().filter_map(|(condition, update)| Some((condition, update?)));
    let mut updates = vec![(ConditionType::MLflowReady, findings.mlflow.clone())];
    updates.extend(shared);
    updates.extend([
        (ConditionType::InjectionReady, injection_ready(&tracing_ref, findings, counted.len(), tracing)),
        (ConditionType::ExperimentsReady, experiments_ready(&tracing_ref, findings)),
        (ConditionType::WorkloadsReady, workloads::workloads_ready(&tracing_ref, &fleet, &causes, findings)),
        (ConditionType::TracesFlowing, traces::traces_flowing(&tracing_ref, &counted, findings, mlflow.as_ref(), now)),
    ]);
    updates.insert(0, (ConditionType::Ready, traces::ready(&tracing_ref, findings, &updates)));
    let status = AgentTracingStatus {
        observed_generation: tracing.metadata.generation,
        injected: Some(format!("{current}/{}", counted.len())),
        mlflow,
        relay: findings.ready_relay.clone(),
        experiments: facts::experiments(&old, findings),
        merge_ca: findings.refused_merge_ca.cloned(),
        service_accounts: facts::accounts(&old, findings),
        workloads: listed,
        workload_states: rows::counts(&states),
        conditions: conditions(tracing, &updates, now),
    };
    (bounds::clip_all(status), states)
}

/// The status of an AgentTracing with `spec.suspend`: everything as it was, only `Ready` says so.
pub fn suspended(tracing: &AgentTracing, now: Timestamp) -> AgentTracingStatus {
    let resume = format!(
        "Suspended by spec.suspend: nothing is injected, repaired or reconciled; resume with: {}",
        TracingRef::of(tracing).command("patch").merge(&json!({"spec": {"suspend": false}}))
    );
    only_ready(tracing, ConditionUpdate::bad(Reason::Suspended, resume), now)
}

/// The status of an AgentTracing whose passes fail: what was found before stays.
pub fn failed(tracing: &AgentTracing, what: &str, operator_namespace: &str, now: Timestamp) -> AgentTracingStatus {
    let message = format!(
        "The operator cannot finish its work here and tries again ({what}); read its log: {}",
        Kubectl::new("logs").namespace(operator_namespace).selector(&names::operator_selector()).arg("--tail=-1")
    );
    only_ready(tracing, ConditionUpdate::bad(Reason::ReconcileFailed, message), now)
}

/// The status of an AgentTracing whose spec cannot be carried out.
pub fn invalid(tracing: &AgentTracing, problems: &str, now: Timestamp) -> AgentTracingStatus {
    let message = format!("{problems}; change it with: {}", TracingRef::of(tracing).command("edit"));
    only_ready(tracing, ConditionUpdate::bad(Reason::InvalidSpec, message), now)
}

fn only_ready(tracing: &AgentTracing, update: ConditionUpdate, now: Timestamp) -> AgentTracingStatus {
    let old = tracing.status.clone().unwrap_or_default();
    let others = old.conditions.iter().filter(|c| c.type_ != ConditionType::Ready.as_str()).cloned();
    let mut all = conditions(tracing, &[(ConditionType::Ready, update)], now);
    all.extend(others);
    bounds::clip_all(AgentTracingStatus { observed_generation: tracing.metadata.generation, conditions: all, ..old })
}

/// Whether a condition of a status is `True`.
pub fn is_true(status: Option<&AgentTracingStatus>, condition: ConditionType) -> bool {
    let mut conditions = status.iter().flat_map(|s| &s.conditions);
    conditions.any(|c| c.type_ == condition.as_str() && c.status == "True")
}

struct TracingRef<'a> {
    namespace: &'a str,
    name: &'a str,
    mode: MlflowMode,
    /// Whether agents get the id of their experiment.
    pins: bool,
    restores_deleted: bool,
}

impl<'a> TracingRef<'a> {
    fn of(tracing: &'a AgentTracing) -> Self {
        Self {
            namespace: tracing.metadata.namespace.as_deref().unwrap_or_default(),
            name: tracing.metadata.name.as_deref().unwrap_or_default(),
            mode: tracing.spec.mlflow.mode,
            pins: tracing.spec.experiment.pin,
            restores_deleted: tracing.spec.experiment.restore_deleted,
        }
    }

    /// A command about it.
    fn command(&self, what: &str) -> Kubectl {
        Kubectl::new(what).arg("agenttracing").namespace(self.namespace).arg(self.name)
    }
}

/// What was chosen so by the user is reported, but is no part of "5/6".
fn is_counted(assessment: &Assessment) -> bool {
    if assessment.is_finished() {
        return false;
    }
    match &assessment.injection_state {
        InjectionState::Current
        | InjectionState::OutOfDate { .. }
        | InjectionState::Blocked(_)
        | InjectionState::FutureVersion => true,
        InjectionState::Skipped { deliberate, .. } => !deliberate,
        InjectionState::ToRemove(_) | InjectionState::OwnedByOther => false,
    }
}

fn injection_ready(
    tracing_ref: &TracingRef<'_>,
    findings: &Findings<'_>,
    matched: usize,
    tracing: &AgentTracing,
) -> ConditionUpdate {
    let TracingRef { namespace, .. } = tracing_ref;
    if findings.excluded {
        let message = format!(
            "Nothing in namespace {namespace} is ever injected: it is one of the cluster's own, or an administrator excluded it; look \
             with: {}",
            Kubectl::new("get deployment").arg("-A").selector(&names::operator_selector()).yaml()
        );
        return ConditionUpdate::bad(Reason::NamespaceExcluded, message);
    }
    if !findings.labelled {
        let message = format!(
            "Namespace {namespace} is not labelled, so nothing in it is injected; label it: {}",
            Kubectl::new("label namespace").arg(namespace).arg(&format!(
                "{}={}",
                names::LABEL_INJECTION,
                names::ENABLED
            ))
        );
        return ConditionUpdate::bad(Reason::NamespaceNotLabelled, message);
    }
    if let Some(authorities) = &findings.authorities {
        return authorities.clone();
    }
    if matched == 0 && is_idle(findings, tracing) {
        let message = format!(
            "The namespace is labelled, and no workload that matches runs at the moment; see those that come with: {}",
            Kubectl::new("get cronjobs,jobs,pods").namespace(namespace).arg("--watch")
        );
        return ConditionUpdate::good(Reason::Enabled, message);
    }
    if matched == 0 && findings.workloads.iter().any(|j| j.injection_state == InjectionState::OwnedByOther) {
        let message = format!(
            "The namespace is labelled, and the workloads that match belong to an older AgentTracing; see both: {}",
            Kubectl::new("get agenttracing").namespace(namespace)
        );
        return ConditionUpdate::good(Reason::Enabled, message);
    }
    if matched == 0 {
        let message = format!(
            "No workload in namespace {namespace} matches; create one, or compare injection.kinds and injection.selector with what is there \
             and with the pod templates' labels: {}",
            Kubectl::new("get deployments,statefulsets,daemonsets,jobs")
                .namespace(namespace)
                .args(["-o", "custom-columns=NAME:.metadata.name,LABELS:.spec.template.metadata.labels"])
        );
        return ConditionUpdate::bad(Reason::NothingMatches, message);
    }
    if findings.webhook_silent {
        let message = format!(
            "The webhook did not answer, so the operator patched the workloads itself; look with: {}",
            Kubectl::new("get mutatingwebhookconfiguration").arg(names::WEBHOOK_CONFIGURATION).yaml()
        );
        return ConditionUpdate::bad(Reason::WebhookUnavailable, message);
    }
    let wired = Kubectl::new("get deployments,statefulsets,daemonsets,cronjobs,jobs").namespace(namespace);
    let list = wired.selector(names::LABEL_WIRED);
    ConditionUpdate::good(
        Reason::Enabled,
        format!("The namespace is labelled and workloads match ({matched}); list the wired ones with: {list}"),
    )
}

/// Whether nothing is there at the moment where something was, with the same spec: Jobs and Pods come and go.
fn is_idle(findings: &Findings<'_>, tracing: &AgentTracing) -> bool {
    let same_spec = tracing.status.as_ref().and_then(|old| old.observed_generation) == tracing.metadata.generation;
    let was_there = same_spec && is_true(tracing.status.as_ref(), ConditionType::InjectionReady);
    let ended = findings.workloads.iter().any(Assessment::is_finished);
    findings.workloads.iter().all(|j| j.is_finished() || j.injection_state == InjectionState::OwnedByOther)
        && (was_there || ended)
}

fn experiments_ready(tracing_ref: &TracingRef<'_>, findings: &Findings<'_>) -> ConditionUpdate {
    // What is never found out must not look as if it were on its way.
    if findings.mlflow.reason == Reason::NotObservable {
        let message = format!(
            "Nobody but the agents may ask this MLflow, so they create their experiments themselves; list its host in \
             --trusted-mlflow-hosts, or in --mlflow-token-hosts where it needs a token: {}",
            Kubectl::new("get deployment").namespace(names::OPERATOR_NAMESPACE).arg(names::MANAGED_BY).yaml()
        );
        return ConditionUpdate::unknown(Reason::NotObservable, message);
    }
    if let Some((experiment, (reason, what))) = findings.experiments.problems.iter().next() {
        let remedy = match reason {
            Reason::ExperimentDeleted => format!("restore it with: {}", tracing_ref.restore_experiments()),
            Reason::NameInvalid => format!("choose another name: {}", tracing_ref.command("edit")),
            _ => format!("look with: {}", tracing_ref.command("describe")),
        };
        return ConditionUpdate::bad(*reason, format!("Experiment \"{experiment}\" {what}; {remedy}"));
    }
    if let Some(update) = facts::too_many_experiments(tracing_ref, findings) {
        return update;
    }
    let count = findings.experiments.ensured.len();
    let list = tracing_ref.command("get").jsonpath(".status.experiments");
    ConditionUpdate::good(
        Reason::Ensured,
        format!("The experiments of the workloads exist in MLflow ({count}); list them with: {list}"),
    )
}

fn conditions(tracing: &AgentTracing, updates: &[(ConditionType, ConditionUpdate)], now: Timestamp) -> Vec<Condition> {
    let old = tracing.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let condition = |(kind, update): &(ConditionType, ConditionUpdate)| {
        debug_assert!(
            *kind == ConditionType::Ready || update.reason.conditions().contains(kind),
            "src/api/reasons.rs does not list {} among the conditions of {}",
            kind.as_str(),
            update.reason.as_str()
        );
        let status = match update.good {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let before = old.iter().find(|c| c.type_ == kind.as_str() && c.status == status);
        // What is written has whole seconds; more would differ from what is read back.
        let whole = Timestamp::from_second(now.as_second()).unwrap_or(now);
        Condition {
            type_: kind.as_str().to_owned(),
            status: status.to_owned(),
            reason: update.reason.as_str().to_owned(),
            message: update.message.clone(),
            observed_generation: tracing.metadata.generation,
            last_transition_time: before.map_or(Time(whole), |c| c.last_transition_time.clone()),
        }
    };
    updates.iter().map(condition).collect()
}

/// `1 workload`, `2 workloads`.
fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A few names, and how many more.
fn list(workloads: &[&Assessment]) -> String {
    let name = |assessment: &&Assessment| match assessment.kind {
        Kind::Deployment => assessment.name.clone(),
        _ => format!("{} ({})", assessment.name, assessment.listed_kind()),
    };
    let few = |some: &[&Assessment]| some.iter().map(name).collect::<Vec<_>>().join(", ");
    match workloads {
        [] => "none".to_owned(),
        all if all.len() <= 5 => few(all),
        all => format!("{} and {} more", few(&all[..3]), all.len() - 3),
    }
}

/// The command that shows a workload's log. A CronJob has none of its own.
fn logs(namespace: &str, assessment: &Assessment) -> Kubectl {
    match assessment.kind {
        Kind::CronJob => Kubectl::new("get jobs").namespace(namespace),
        _ => Kubectl::new("logs").namespace(namespace).arg(&assessment.resource()),
    }
}

#[cfg(test)]
mod tests;
