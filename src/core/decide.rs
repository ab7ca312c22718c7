//! The one question: what should this workload's template look like, and which patch brings it there?

use json_patch::PatchOperation;

use super::inject::{Injection, inject, uninject};
use super::record::RecordError;
use super::select::{NotSelected, Selection, Surroundings, select};
use super::settings::Platform;
use super::view::Workload;
use super::wiring::{Missing, wiring};
use crate::api::{CaBundleStrategy, Reason};
use crate::names;

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The template should carry the wiring of the named AgentTracing; an empty patch means that it does.
    Wire {
        /// The AgentTracing.
        tracing: String,
        /// The experiment's name.
        experiment: String,
        /// Patch, hash and notes.
        injection: Injection,
    },
    /// The template carries our wiring and the user opted out: this patch takes it out.
    Unwire(Vec<PatchOperation>),
    /// Nothing is changed.
    Leave(Leave),
}

/// Why nothing is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leave {
    /// No AgentTracing applies.
    NotSelected(NotSelected),
    /// The AgentTracing that applies is suspended.
    Suspended {
        /// The AgentTracing.
        tracing: String,
    },
    /// A fact is missing: MLflow has not answered yet. Existing wiring stays.
    Waiting {
        /// The AgentTracing.
        tracing: String,
        /// What is missing.
        missing: Missing,
    },
    /// The record on the template cannot be used.
    Record {
        /// The AgentTracing; empty where the workload opted out and none was asked for.
        tracing: String,
        /// Why.
        error: RecordError,
    },
}

/// Decides about a workload.
pub fn decide(workload: &Workload<'_>, around: &Surroundings<'_>) -> Decision {
    let policy = match select(workload, around) {
        Selection::One(policy) => policy,
        Selection::None(NotSelected::OptedOut) => return opted_out(workload),
        Selection::None(why) => return Decision::Leave(Leave::NotSelected(why)),
    };
    let tracing = policy.name.clone();
    if policy.suspend {
        return Decision::Leave(Leave::Suspended { tracing });
    }
    let account = workload.service_account();
    if policy.needs_token() && !workload.has_token(!around.tokenless.contains(account)) {
        return match uninject(workload) {
            Ok(patch) => {
                let skipped = Some(Reason::NoServiceAccountToken);
                let injection = Injection { patch, skipped, ..Injection::default() };
                let annotation = workload.annotation(names::ANNOTATION_EXPERIMENT);
                Decision::Wire { tracing, experiment: policy.experiment_of(workload.name(), annotation), injection }
            }
            Err(error) => Decision::Leave(Leave::Record { tracing, error }),
        };
    }
    let annotation = workload.annotation(names::ANNOTATION_EXPERIMENT);
    if policy.bound.as_ref().is_some_and(|bound| !bound.contains(account)) {
        return Decision::Leave(Leave::Waiting { tracing, missing: Missing::Binding });
    }
    let mut wiring = match wiring(policy, workload.name(), annotation) {
        Ok(wiring) => wiring,
        Err(missing) => return Decision::Leave(Leave::Waiting { tracing, missing }),
    };
    if let Some(ca) = &mut wiring.ca
        && ca.strategy == CaBundleStrategy::InitContainer
        && falls_back(workload, around.platform)
    {
        ca.strategy = CaBundleStrategy::ConfigMap;
    }
    match inject(workload, &wiring, &policy.containers, around.platform) {
        Ok(injection) => Decision::Wire { tracing, experiment: wiring.experiment, injection },
        Err(error) => Decision::Leave(Leave::Record { tracing, error }),
    }
}

/// Whether the operator's init container could not be pulled or started in this workload. That stands on the workload itself,
/// where the webhook sees it, and counts until the install says something else about the image.
pub fn falls_back(workload: &Workload<'_>, platform: &Platform) -> bool {
    let failed = workload.metadata.annotation(names::ANNOTATION_MERGE_CA_FAILED);
    failed.is_some_and(|failed| failed == platform.merge_ca.source())
}

fn opted_out(workload: &Workload<'_>) -> Decision {
    match uninject(workload) {
        Ok(patch) if patch.is_empty() => Decision::Leave(Leave::NotSelected(NotSelected::OptedOut)),
        Ok(patch) => Decision::Unwire(patch),
        Err(error) => Decision::Leave(Leave::Record { tracing: String::new(), error }),
    }
}
