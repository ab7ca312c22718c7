//! The status of an AgentTracing, from what a pass found.
//!
//! It is computed whole each time and written only when it differs: no field changes by itself, and a condition's
//! `lastTransitionTime` moves only with its status.

mod rows;
mod traces;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::evidence::Evidence;
use super::health::Verdict;
use super::kind::Kind;
use super::policy::Pace;
use super::rollout::{Rest, halt, is_stuck, next_touch};
use super::workload::{Judged, Standing, Target};
use crate::api::{AgentTracing, AgentTracingStatus, ConditionType, EnsuredExperiment, MlflowStatus, Reason};
use crate::names;
pub use rows::States;

/// What one pass found.
#[derive(Clone, Debug)]
pub struct Findings<'a> {
    /// Condition `MLflowReady`.
    pub mlflow: Verdict,
    /// Condition `WorkspaceReady`, in mode CR.
    pub workspace: Option<Verdict>,
    /// Condition `RBACReady`, in mode CR.
    pub rights: Option<Verdict>,
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
    pub workloads: &'a [Judged],
    /// How fast workloads may be changed.
    pub pace: Pace,
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
}

/// Experiments as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Experiments {
    /// Those that exist: name and id.
    pub ensured: BTreeMap<String, String>,
    /// Those that the workloads need, by name, and what is wrong with each.
    pub problems: BTreeMap<String, (Reason, String)>,
}

/// Most service accounts in the list.
const MAX_ACCOUNTS: usize = 1000;
/// Most experiments in the list.
const MAX_EXPERIMENTS: usize = 1000;
/// The status that says what was found, and the states of all workloads.
pub fn status(tracing: &AgentTracing, found: &Findings<'_>, now: Timestamp) -> (AgentTracingStatus, States) {
    let old = tracing.status.clone().unwrap_or_default();
    let about = About::of(tracing);
    let counted: Vec<_> = found.workloads.iter().filter(|j| is_counted(&j.standing)).collect();
    let current = counted.iter().filter(|j| j.standing == Standing::Current).count();
    let (listed, states) = rows::list(&about, found, &old, now);

    let mlflow = found.answered.clone().or(old.mlflow.clone());
    let shared = [(ConditionType::WorkspaceReady, &found.workspace), (ConditionType::RBACReady, &found.rights)];
    let shared = shared.into_iter().filter_map(|(condition, verdict)| Some((condition, verdict.clone()?)));
    let mut verdicts = vec![(ConditionType::MLflowReady, found.mlflow.clone())];
    verdicts.extend(shared);
    verdicts.extend([
        (ConditionType::InjectionReady, injection_ready(&about, found, counted.len())),
        (ConditionType::ExperimentsReady, experiments_ready(&about, found)),
        (ConditionType::WorkloadsReady, workloads_ready(&about, &counted, found, now)),
        (ConditionType::TracesFlowing, traces::flowing(&about, &counted, found, mlflow.as_ref(), now)),
    ]);
    verdicts.insert(0, (ConditionType::Ready, traces::ready(&about, found, &verdicts)));
    let status = AgentTracingStatus {
        observed_generation: tracing.metadata.generation,
        injected: Some(format!("{current}/{}", counted.len())),
        mlflow,
        experiments: experiments(&old, found),
        service_accounts: accounts(&old, found),
        workloads: listed,
        workload_states: rows::counts(&states),
        conditions: conditions(tracing, &verdicts, now),
    };
    (status, states)
}

/// The status of an AgentTracing with `spec.suspend`: everything as it was, only `Ready` says so.
pub fn suspended(tracing: &AgentTracing, now: Timestamp) -> AgentTracingStatus {
    let About { namespace, name } = About::of(tracing);
    let resume = format!(
        "Suspended by spec.suspend: nothing is injected, repaired or reconciled; resume with: kubectl patch agenttracing \
         -n {namespace} {name} --type merge -p '{{\"spec\":{{\"suspend\":false}}}}'"
    );
    only_ready(tracing, Verdict::bad(Reason::Suspended, resume), now)
}

/// The status of an AgentTracing whose spec cannot be carried out.
pub fn invalid(tracing: &AgentTracing, problems: &str, now: Timestamp) -> AgentTracingStatus {
    let About { namespace, name } = About::of(tracing);
    let message = format!("{problems}; change it with: kubectl edit agenttracing -n {namespace} {name}");
    only_ready(tracing, Verdict::bad(Reason::InvalidSpec, message), now)
}

fn only_ready(tracing: &AgentTracing, verdict: Verdict, now: Timestamp) -> AgentTracingStatus {
    let old = tracing.status.clone().unwrap_or_default();
    let others = old.conditions.iter().filter(|c| c.type_ != ConditionType::Ready.as_str()).cloned();
    let mut all = conditions(tracing, &[(ConditionType::Ready, verdict)], now);
    all.extend(others);
    AgentTracingStatus { observed_generation: tracing.metadata.generation, conditions: all, ..old }
}

/// Whether a condition of a status is `True`.
pub fn is_true(status: Option<&AgentTracingStatus>, condition: ConditionType) -> bool {
    let mut conditions = status.iter().flat_map(|s| &s.conditions);
    conditions.any(|c| c.type_ == condition.as_str() && c.status == "True")
}

struct About<'a> {
    namespace: &'a str,
    name: &'a str,
}

impl<'a> About<'a> {
    fn of(tracing: &'a AgentTracing) -> Self {
        Self {
            namespace: tracing.metadata.namespace.as_deref().unwrap_or_default(),
            name: tracing.metadata.name.as_deref().unwrap_or_default(),
        }
    }
}

/// What was chosen so by the user is reported, but is no part of "5/6".
fn is_counted(standing: &Standing) -> bool {
    match standing {
        Standing::Current | Standing::Wanting { .. } | Standing::Waiting(_) | Standing::Newer => true,
        Standing::Skipped { deliberate, .. } => !deliberate,
        Standing::Stray(_) | Standing::Elsewhere => false,
    }
}

fn experiments(old: &AgentTracingStatus, found: &Findings<'_>) -> Vec<EnsuredExperiment> {
    // Kept also when their workload is gone: it may come back. The needed ones go first, should there be too many.
    let needed: BTreeSet<_> = found.workloads.iter().map(|j| &j.experiment).collect();
    let mut all: BTreeMap<_, _> = old.experiments.iter().map(|e| (e.name.clone(), e.id.clone())).collect();
    all.extend(found.experiments.ensured.clone());
    let mut list: Vec<_> = all.into_iter().map(|(name, id)| EnsuredExperiment { name, id }).collect();
    if list.len() > MAX_EXPERIMENTS {
        list.sort_by_key(|e| (!needed.contains(&Target::Name(e.name.clone())), e.name.clone()));
        list.truncate(MAX_EXPERIMENTS);
        list.sort_by(|a, b| a.name.cmp(&b.name));
    }
    list
}

/// Once good, a fact stays good as long as a workload needs it: a right that is lost is told, and changes no wiring.
fn accounts(old: &AgentTracingStatus, found: &Findings<'_>) -> Vec<String> {
    if found.rights.is_none() {
        return Vec::new();
    }
    let needed = |account: &&String| found.workloads.iter().any(|j| j.account == **account);
    let all: BTreeSet<_> = old.service_accounts.iter().filter(needed).chain(&found.accounts).cloned().collect();
    all.into_iter().take(MAX_ACCOUNTS).collect()
}

fn injection_ready(about: &About<'_>, found: &Findings<'_>, matched: usize) -> Verdict {
    let About { namespace, .. } = about;
    if found.excluded {
        let message = format!(
            "Nothing in namespace {namespace} is ever injected: it is one of the cluster's own, or an administrator excluded it; look \
             with: kubectl get deployment -A -l {}={} -o yaml",
            names::LABEL_NAME,
            names::MANAGED_BY
        );
        return Verdict::bad(Reason::NamespaceExcluded, message);
    }
    if !found.labelled {
        let message = format!(
            "Namespace {namespace} is not labelled, so nothing in it is injected; label it: kubectl label namespace {namespace} {}={}",
            names::LABEL_INJECTION,
            names::ENABLED
        );
        return Verdict::bad(Reason::NamespaceNotLabelled, message);
    }
    // What an older AgentTracing has matches all the same.
    let matched = matched + found.workloads.iter().filter(|j| j.standing == Standing::Elsewhere).count();
    if matched == 0 {
        let message = format!(
            "No workload in namespace {namespace} matches; create one, or compare injection.kinds and injection.selector with what is there \
             and with the pod templates' labels: kubectl get deployments,statefulsets,daemonsets,jobs -n {namespace} \
             -o custom-columns=NAME:.metadata.name,LABELS:.spec.template.metadata.labels"
        );
        return Verdict::bad(Reason::NothingMatches, message);
    }
    if found.webhook_silent {
        let message = format!(
            "The webhook did not answer, so the operator patched the workloads itself; look with: kubectl get \
             mutatingwebhookconfiguration {} -o yaml",
            names::WEBHOOK_CONFIGURATION
        );
        return Verdict::bad(Reason::WebhookUnavailable, message);
    }
    let list = format!(
        "kubectl get deployments,statefulsets,daemonsets,cronjobs,jobs -n {namespace} -l {}",
        names::LABEL_WIRED
    );
    Verdict::good(
        Reason::Enabled,
        format!("The namespace is labelled and workloads match ({matched}); list the wired ones with: {list}"),
    )
}

fn experiments_ready(about: &About<'_>, found: &Findings<'_>) -> Verdict {
    let About { namespace, name } = about;
    // What is never found out must not look as if it were on its way.
    if found.mlflow.reason == Reason::NotObservable {
        let message = format!(
            "Nobody but the agents may ask this MLflow, so they create their experiments themselves; list its host in \
             --trusted-mlflow-hosts: kubectl get deployment -n {} {} -o yaml",
            names::OPERATOR_NAMESPACE,
            names::MANAGED_BY
        );
        return Verdict::unknown(Reason::NotObservable, message);
    }
    if let Some((experiment, (reason, what))) = found.experiments.problems.iter().next() {
        let remedy = match reason {
            Reason::ExperimentDeleted => format!(
                "restore it with: kubectl patch agenttracing -n {namespace} {name} --type merge -p \
                 '{{\"spec\":{{\"experiment\":{{\"restoreDeleted\":true}}}}}}'"
            ),
            Reason::NameInvalid => format!("choose another name: kubectl edit agenttracing -n {namespace} {name}"),
            _ => format!("look with: kubectl describe agenttracing -n {namespace} {name}"),
        };
        return Verdict::bad(*reason, format!("Experiment \"{experiment}\" {what}; {remedy}"));
    }
    let count = found.experiments.ensured.len();
    let list = format!("kubectl get agenttracing -n {namespace} {name} -o jsonpath='{{.status.experiments}}'");
    Verdict::good(
        Reason::Ensured,
        format!("The experiments of the workloads exist in MLflow ({count}); list them with: {list}"),
    )
}

fn workloads_ready(about: &About<'_>, counted: &[&Judged], found: &Findings<'_>, now: Timestamp) -> Verdict {
    let About { namespace, name } = about;
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
            "MLflow does not answer, and agents look for it once, when they start: {} wait until it does ({}); see why: kubectl describe \
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

fn conditions(tracing: &AgentTracing, verdicts: &[(ConditionType, Verdict)], now: Timestamp) -> Vec<Condition> {
    let old = tracing.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let condition = |(kind, verdict): &(ConditionType, Verdict)| {
        let status = match verdict.good {
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
            reason: verdict.reason.as_str().to_owned(),
            message: verdict.message.clone(),
            observed_generation: tracing.metadata.generation,
            last_transition_time: before.map_or(Time(whole), |c| c.last_transition_time.clone()),
        }
    };
    verdicts.iter().map(condition).collect()
}

/// `1 workload`, `2 workloads`.
fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A few names, and how many more.
fn list(workloads: &[&Judged]) -> String {
    let name = |judged: &&Judged| match judged.kind {
        Kind::Deployment => judged.name.clone(),
        kind => format!("{} ({})", judged.name, kind.as_str()),
    };
    let few = |some: &[&Judged]| some.iter().map(name).collect::<Vec<_>>().join(", ");
    match workloads {
        [] => "none".to_owned(),
        all if all.len() <= 5 => few(all),
        all => format!("{} and {} more", few(&all[..3]), all.len() - 3),
    }
}

/// The command that shows a workload's log. A CronJob has none of its own.
fn logs(namespace: &str, judged: &Judged) -> String {
    match judged.kind {
        Kind::CronJob => format!("kubectl get jobs -n {namespace}"),
        _ => format!("kubectl logs -n {namespace} {}", judged.resource()),
    }
}

#[cfg(test)]
mod tests;
