//! What status keeps for the webhook: experiments and service accounts, as many as fit.

use std::collections::{BTreeMap, BTreeSet};

use super::condition::ConditionUpdate;
use super::{Findings, TracingRef};
use crate::api::{AgentTracingStatus, EnsuredExperiment, Reason};
use crate::core::kubectl::Kubectl;
use crate::core::wiring::Missing;
use crate::core::workloads::{InjectionState, TraceDestination};

/// Most service accounts in the list.
pub(super) const MAX_ACCOUNTS: usize = 1000;
/// Most experiments in the list.
pub(super) const MAX_EXPERIMENTS: usize = 1000;

pub(super) fn experiments(old: &AgentTracingStatus, findings: &Findings<'_>) -> Vec<EnsuredExperiment> {
    // Kept also when their workload is gone: it may come back. The needed ones go first, should there be too many.
    let needed: BTreeSet<_> = findings.workloads.iter().map(|j| &j.experiment).collect();
    let mut all: BTreeMap<_, _> = old.experiments.iter().map(|e| (e.name.clone(), e.id.clone())).collect();
    all.extend(findings.experiments.ensured.clone());
    let mut list: Vec<_> = all.into_iter().map(|(name, id)| EnsuredExperiment { name, id }).collect();
    if list.len() > MAX_EXPERIMENTS {
        list.sort_by_key(|e| (!needed.contains(&TraceDestination::Name(e.name.clone())), e.name.clone()));
        list.truncate(MAX_EXPERIMENTS);
        list.sort_by(|a, b| a.name.cmp(&b.name));
    }
    list
}

/// Once good, a fact stays good as long as a workload needs it: a right that is lost is told, and changes no wiring.
pub(super) fn accounts(old: &AgentTracingStatus, findings: &Findings<'_>) -> Vec<String> {
    if findings.rights.is_none() || findings.relays_all {
        return Vec::new();
    }
    let needed = |account: &&String| findings.workloads.iter().any(|j| j.account == **account);
    let all: BTreeSet<_> = old.service_accounts.iter().filter(needed).chain(&findings.accounts).cloned().collect();
    all.into_iter().take(MAX_ACCOUNTS).collect()
}

/// Condition `RBACReady`, which tells where there are more accounts than status holds: the webhook knows only those.
pub(super) fn rights(tracing_ref: &TracingRef<'_>, findings: &Findings<'_>) -> Option<ConditionUpdate> {
    let update = findings.rights.clone()?;
    let count = findings.accounts.len();
    if update.good != Some(true) || count <= MAX_ACCOUNTS {
        return Some(update);
    }
    let message = format!(
        "Workloads use {count} service accounts, and an AgentTracing holds {MAX_ACCOUNTS}, so those of the others are not wired; \
         spread them over namespaces or let them share accounts: {}",
        Kubectl::new("get serviceaccounts").namespace(tracing_ref.namespace)
    );
    Some(ConditionUpdate::bad(Reason::LimitReached, message))
}

/// Where workloads need the ids of more experiments than status holds.
pub(super) fn too_many_experiments(tracing_ref: &TracingRef<'_>, findings: &Findings<'_>) -> Option<ConditionUpdate> {
    let waits = findings.workloads.iter().any(|j| j.injection_state == InjectionState::Blocked(Missing::ExperimentId));
    let needed: BTreeSet<_> = findings.workloads.iter().map(|j| &j.experiment).collect();
    let count = needed.into_iter().filter(|target| matches!(target, TraceDestination::Name(_))).count();
    (waits && count > MAX_EXPERIMENTS).then(|| {
        let message = format!(
            "Workloads need {count} experiments, and an AgentTracing holds the ids of {MAX_EXPERIMENTS}, so the others are not wired; \
             set experiment.pin to false, or a literal experiment.name: {}",
            tracing_ref.command("edit")
        );
        ConditionUpdate::bad(Reason::LimitReached, message)
    })
}
