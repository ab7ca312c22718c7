//! What is said of workloads whose init container cannot be pulled, started or admitted.

use super::super::TracingRef;
use super::super::condition::ConditionUpdate;
use crate::api::Reason;
use crate::core::kubectl::Kubectl;
use crate::core::selection::kind::Kind;
use crate::core::wiring::parts::FallbackReason;
use crate::core::workloads::Assessment;
use crate::names;

/// Most Jobs in one command.
const MAX_JOBS: usize = 5;

/// Condition `WorkloadsReady` where these have Jobs that do not begin.
pub(in crate::core::status) fn jobs_wait(workloads: &str, details: &Kubectl) -> ConditionUpdate {
    let message = format!(
        "Jobs wait for init container {}, whose image cannot be pulled or started: {workloads}; see what to do: {details}",
        names::MERGE_CA
    );
    ConditionUpdate::bad(Reason::RolloutHalted, message)
}

/// The reason of a row.
pub(super) fn reason(why: FallbackReason) -> Reason {
    match why {
        FallbackReason::RefusedInNamespace | FallbackReason::Refused => Reason::MergeCARefused,
        FallbackReason::NotStarted => Reason::MergeCAImage,
    }
}

/// Why a workload takes its certificate authorities from the ConfigMap, and what makes its init container possible again.
pub(super) fn without(why: FallbackReason, tracing_ref: &TracingRef<'_>, assessment: &Assessment) -> String {
    let namespace = tracing_ref.namespace;
    let image = &assessment.merge_ca.image;
    let instead = format!("it takes its authorities from ConfigMap {}", names::CA_CONFIG_MAP);
    let forget = |annotation: &str| {
        Kubectl::new("annotate").namespace(namespace).arg(&assessment.resource()).arg(&format!("{annotation}-"))
    };
    match why {
        FallbackReason::RefusedInNamespace => format!(
            "The cluster does not admit init container {} with image {image} in this namespace, so {instead}; allow the image (or \
             set the install's mergeCa): it is tried again every ten minutes; see who refuses it: {}",
            names::MERGE_CA,
            tracing_ref.command("get").jsonpath(".status.mergeCa.message")
        ),
        FallbackReason::Refused => format!(
            "The cluster does not admit it with init container {} and image {image}, so {instead}, and no other workload is \
             changed; allow the image (or set the install's mergeCa), then: {}",
            names::MERGE_CA,
            forget(names::ANNOTATION_MERGE_CA_REFUSED)
        ),
        FallbackReason::NotStarted => format!(
            "Image {image} of its init container {} could not be pulled or started, so {instead}, and no other workload is \
             changed; make the image available (or set the install's mergeCa; with strategy AgentInitContainer it is the agent's own, which needs a \
             shell at /bin/sh), then: {}",
            names::MERGE_CA,
            forget(names::ANNOTATION_MERGE_CA_FAILED)
        ),
    }
}

/// A Job keeps the template that it was made with, so that nobody but its owner can help it.
pub(super) fn why_jobs_wait(namespace: &str, assessment: &Assessment) -> String {
    let what = format!("init container {}, whose image cannot be pulled or started", names::MERGE_CA);
    if assessment.kind == Kind::Job {
        let its_pods = format!("{}={}", names::LABEL_JOB_NAME, assessment.name);
        return format!(
            "It waits for {what}, and goes on by itself once it can; see why not: {}",
            Kubectl::new("describe pods").namespace(namespace).selector(&its_pods)
        );
    }
    let waiting = &assessment.merge_ca.waiting;
    let named = waiting.iter().take(MAX_JOBS).map(String::as_str);
    let next = match assessment.merge_ca.fallback {
        Some(_) => format!(" (those after them take their authorities from ConfigMap {})", names::CA_CONFIG_MAP),
        None => String::new(),
    };
    format!(
        "{} for {what}{next}. A Job stays as it was made, and with concurrencyPolicy Forbid no other begins, so delete what waits: {}",
        match waiting.as_slice() {
            [one] => format!("Its Job {one} waits"),
            all => format!("{} of its Jobs wait", all.len()),
        },
        Kubectl::new("delete jobs").namespace(namespace).args(named)
    )
}
