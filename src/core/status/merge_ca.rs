//! What the status says of workloads whose init container cannot be pulled, started or admitted.

use super::TracingRef;
use super::condition::ConditionUpdate;
use crate::api::Reason;
use crate::core::decide::Fallback;
use crate::core::selection::kind::Kind;
use crate::core::workloads::Assessment;
use crate::names;

/// Most Jobs in one command.
const MAX_JOBS: usize = 5;

/// Condition `WorkloadsReady` where these have Jobs that do not begin.
pub(super) fn jobs_wait(workloads: &str, details: &str) -> ConditionUpdate {
    let message = format!(
        "Jobs wait for init container {}, whose image cannot be pulled or started: {workloads}; see what to do: {details}",
        names::MERGE_CA
    );
    ConditionUpdate::bad(Reason::RolloutHalted, message)
}

/// Why a workload takes its certificate authorities from the ConfigMap, and what makes its init container possible again.
pub(super) fn without_merge_ca(tracing_ref: &TracingRef<'_>, assessment: &Assessment) -> (Reason, String) {
    let TracingRef { namespace, name, .. } = *tracing_ref;
    let (image, resource) = (&assessment.merge_ca.image, assessment.resource());
    let instead = format!("it takes its authorities from ConfigMap {}", names::CA_CONFIG_MAP);
    match assessment.merge_ca.fallback {
        Some(Fallback::RefusedInNamespace) => {
            let message = format!(
                "The cluster does not admit init container {} with image {image} in this namespace, so {instead}; allow the image (or \
                 set the install's mergeCa): it is tried again every ten minutes; see who refuses it: kubectl get agenttracing -n \
                 {namespace} {name} -o jsonpath='{{.status.mergeCa.message}}'",
                names::MERGE_CA
            );
            (Reason::MergeCARefused, message)
        }
        Some(Fallback::Refused) => {
            let message = format!(
                "The cluster does not admit it with init container {} and image {image}, so {instead}, and no other workload is \
                 changed; allow the image (or set the install's mergeCa), then: kubectl annotate -n {namespace} {resource} {}-",
                names::MERGE_CA,
                names::ANNOTATION_MERGE_CA_REFUSED
            );
            (Reason::MergeCARefused, message)
        }
        Some(Fallback::NotStarted) | None => {
            let message = format!(
                "Image {image} of its init container {} could not be pulled or started, so {instead}, and no other workload is \
                 changed; make the image available (or set the install's mergeCa), then: kubectl annotate -n {namespace} {resource} {}-",
                names::MERGE_CA,
                names::ANNOTATION_MERGE_CA_FAILED
            );
            (Reason::MergeCAImage, message)
        }
    }
}

/// A Job keeps the template that it was made with, so that nobody but its owner can help it.
pub(super) fn why_jobs_wait(namespace: &str, assessment: &Assessment) -> String {
    let what = format!("init container {}, whose image cannot be pulled or started", names::MERGE_CA);
    if assessment.kind == Kind::Job {
        return format!(
            "It waits for {what}, and goes on by itself once it can; see why not: kubectl describe pods -n {namespace} -l {}={}",
            names::LABEL_JOB_NAME,
            assessment.name
        );
    }
    let waiting = &assessment.merge_ca.waiting;
    let named = &waiting[..waiting.len().min(MAX_JOBS)];
    let next = match assessment.merge_ca.fallback {
        Some(_) => format!(" (those after them take their authorities from ConfigMap {})", names::CA_CONFIG_MAP),
        None => String::new(),
    };
    format!(
        "{} for {what}{next}. A Job stays as it was made, and with concurrencyPolicy Forbid no other begins, so delete what waits: \
         kubectl delete jobs -n {namespace} {}",
        match waiting.as_slice() {
            [one] => format!("Its Job {one} waits"),
            all => format!("{} of its Jobs wait", all.len()),
        },
        named.join(" ")
    )
}
