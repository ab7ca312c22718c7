//! Reads of workloads and their pods.
//!
//! Templates are looked at in place, page by page: a whole namespace of decoded workloads would be the operator's largest
//! piece of memory, and typed structs would lose fields that this build does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::api::{GetParams, Request};
use serde::Deserialize;
use serde_json::Value;

use super::Error;
use super::lists::{List, url};
use crate::controller::Context;
use crate::core::selection::SelectionContext;
use crate::core::selection::kind::Kind;
use crate::core::workloads::evidence::PodAges;
use crate::core::workloads::pod_failures;
use crate::core::workloads::rollout::touched_at;
use crate::core::workloads::{
    Assessment, InjectionState, PodGroups, RolloutProgress, account_to_bind, assess, progress, retain_recent,
};
use crate::names;

/// Finished Jobs that are held while the others are read.
const MOST_FINISHED: usize = 50;
/// Workloads whose pods are looked at in one pass, and pods of each.
const MAX_UNAVAILABLE: usize = 20;
const MAX_PODS: usize = 20;
/// Pods of all Jobs of a namespace, of those that do not run.
const MAX_JOB_PODS: usize = 100;
/// Pods of a workload whose age is looked at.
const MAX_AGES: usize = 2000;
/// How long after its time a pod is still said to end.
const MIN_AGE_OF_LOST_PODS: SignedDuration = SignedDuration::from_mins(1);
/// An evicted pod stays and sends nothing.
const NOT_ENDED: &str = "status.phase!=Failed,status.phase!=Succeeded";
const NOT_RUNNING: &str = "status.phase!=Running,status.phase!=Succeeded";

/// The workloads of a namespace.
#[derive(Debug, Default)]
pub(in crate::controller) struct Workloads {
    /// Those that concern the AgentTracing.
    pub assessments: Vec<Assessment>,
    /// Service accounts of all that any AgentTracing of mode CR has.
    pub accounts: BTreeSet<String>,
}

/// The workloads of a namespace, each judged for one AgentTracing.
pub(in crate::controller) async fn workloads(
    ctx: &Context,
    tracing: &str,
    context: &SelectionContext<'_>,
    now: Timestamp,
) -> Result<Workloads, Error> {
    let mut found = Workloads::default();
    let (mut pods, mut finished) = (PodGroups::default(), Vec::new());
    let shares = context.policies.iter().any(|policy| policy.facts.bound.is_some());
    for kind in Kind::ALL {
        let each = |item: &str| {
            let assessment = assess(kind, item, tracing, context)?;
            match assessment.map(|j| Assessment { injection_state: j.injection_state.shrink(), ..j }) {
                Some(pod) if kind == Kind::Pod => pods.add(pod),
                Some(job) if job.is_finished() => {
                    finished.push(job);
                    // A namespace may keep thousands of them.
                    if finished.len() >= MOST_FINISHED {
                        retain_recent(&mut finished, now);
                    }
                }
                other => found.assessments.extend(other),
            }
            if shares {
                found.accounts.extend(account_to_bind(kind, item, context)?);
            }
            Ok(())
        };
        let mut list = List::of(kind, Some(context.namespace));
        // Of Pods only those matter that are wired by themselves.
        if kind == Kind::Pod {
            list = list.labelled(names::INJECT_SELECTOR);
        }
        list.for_each(&ctx.client, each).await?;
    }
    retain_recent(&mut finished, now);
    found.assessments.extend(finished);
    found.assessments.extend(pods.into_groups());
    Ok(found)
}

/// One workload, read live and judged.
pub(in crate::controller) async fn workload(
    ctx: &Context,
    kind: Kind,
    name: &str,
    tracing: &str,
    context: &SelectionContext<'_>,
) -> Result<Option<Assessment>, Error> {
    let Some(text) = read(&ctx.client, kind, context.namespace, name).await? else { return Ok(None) };
    assess(kind, &text, tracing, context).map_err(|source| decode(kind, context.namespace, name, source))
}

/// A workload as it is; `None` where it is gone.
pub(in crate::controller) async fn object(
    ctx: &Context,
    kind: Kind,
    namespace: &str,
    name: &str,
) -> Result<Option<Value>, Error> {
    let Some(text) = read(&ctx.client, kind, namespace, name).await? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|source| decode(kind, namespace, name, source))
}

/// Whether all pods of a workload are of its current template, or it is gone.
pub(in crate::controller) async fn is_settled(
    client: &Client,
    kind: Kind,
    namespace: &str,
    name: &str,
) -> Result<bool, Error> {
    let Some(text) = read(client, kind, namespace, name).await? else { return Ok(true) };
    let rollout = progress(kind, &text).map_err(|source| decode(kind, namespace, name, source))?;
    Ok(!rollout.replaces_pods() || (rollout.complete && rollout.available >= rollout.wanted))
}

async fn read(client: &Client, kind: Kind, namespace: &str, name: &str) -> Result<Option<String>, Error> {
    let request = Request::new(url(kind, Some(namespace))).get(name, &GetParams::default());
    let text = match request.map_err(kube::Error::BuildRequest) {
        Ok(request) => client.request_text(request).await,
        Err(error) => Err(error),
    };
    match text {
        Ok(text) => Ok(Some(text)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(source) => Err(Error::Read { what: format!("{} {namespace}/{name}", kind.as_str()), source }),
    }
}

fn decode(kind: Kind, namespace: &str, name: &str, source: serde_json::Error) -> Error {
    Error::Decode { what: format!("{} {namespace}/{name}", kind.as_str()), source }
}

/// Workloads by what is wrong with the operator's init container in them.
#[derive(Debug, Default)]
pub(in crate::controller) struct Troubles {
    /// It does not start.
    pub not_started: BTreeSet<String>,
    /// Not even a pod with it exists.
    pub without_pods: BTreeSet<String>,
}

/// Looks at the pods of workloads that are wired and not well: notes what keeps them, and names those whose init container
/// of ours does not start, or whose pods are not even created.
pub(in crate::controller) async fn troubles(
    ctx: &Context,
    namespace: &str,
    workloads: &mut [Assessment],
    now: Timestamp,
) -> Result<Troubles, Error> {
    let mut found = Troubles::default();
    let unwell = |j: &&mut Assessment| {
        let RolloutProgress { complete, wanted, available, .. } = j.rollout;
        j.injection_state == InjectionState::Current && wanted > 0 && (!complete || available < wanted)
    };
    let mut unwell: Vec<_> = workloads.iter_mut().filter(unwell).collect();
    // What was changed last comes first: a dead workload of long ago must not hide that a new `merge-ca` fails.
    unwell.sort_by_key(|j| std::cmp::Reverse(touched_at(j)));
    for workload in unwell.into_iter().take(MAX_UNAVAILABLE) {
        let pods = List::of(Kind::Pod, Some(namespace)).labelled(&workload.pods).at_most(MAX_PODS);
        let pods = pods.pods(&ctx.client).await?;
        let record = workload.record.as_deref();
        if workload.merge_ca.present && pod_failures::lacks_merge_ca(&pods, record, now) {
            found.not_started.insert(workload.resource());
        }
        if workload.merge_ca.present && pod_failures::lacks_pods(workload, &pods, now) {
            found.without_pods.insert(workload.resource());
        }
        // What a container says is nearer to the cause than that a deadline was exceeded.
        if let Some(failure) = pod_failures::of_pods(&pods, record, now) {
            workload.rollout.failure = Some(failure);
        }
    }
    jobs_without_merge_ca(ctx, namespace, workloads, &mut found, now).await?;
    Ok(found)
}

/// A Job's pods come and go, so no status of a workload says how they are. Notes the Jobs that wait for our init container, and
/// names the CronJobs whose next one would too.
async fn jobs_without_merge_ca(
    ctx: &Context,
    namespace: &str,
    workloads: &mut [Assessment],
    found: &mut Troubles,
    now: Timestamp,
) -> Result<(), Error> {
    let mut at_work: Vec<_> = workloads.iter_mut().filter(|j| j.wired && !j.jobs.is_empty()).collect();
    if at_work.is_empty() {
        return Ok(());
    }
    let pods = List::of(Kind::Pod, Some(namespace)).labelled(names::LABEL_JOB_NAME).with_fields(NOT_RUNNING);
    let pods = pods.at_most(MAX_JOB_PODS).pods(&ctx.client).await?;
    for workload in &mut at_work {
        let (waiting, again) =
            pod_failures::jobs_without_merge_ca(&pods, &workload.jobs, workload.record.as_deref(), now);
        workload.merge_ca.waiting = waiting;
        let Assessment { kind, merge_ca, injection_state, .. } = &**workload;
        // A Job is never changed.
        if !merge_ca.present || *injection_state != InjectionState::Current || !kind.template_is_mutable() {
            continue;
        }
        if again {
            found.not_started.insert(workload.resource());
        }
        // Pods that run are not looked at here, so whether there is none is the question that the dry run answers.
        if merge_ca.waiting.is_empty() {
            found.without_pods.insert(workload.resource());
        }
    }
    Ok(())
}

/// A CronJob numbers its Jobs: `nightly-report-29` is none of `nightly`.
fn is_run_of(job: &str, prefix: &str) -> bool {
    job.strip_prefix(prefix).is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// How old a workload's pods are, and whether some still have an earlier wiring. Those that are ending count: they send until
/// they are gone. One that should be gone for a minute is on a node that nobody hears of.
pub(in crate::controller) async fn pod_ages(
    ctx: &Context,
    namespace: &str,
    assessment: &Assessment,
    now: Timestamp,
) -> Result<PodAges, Error> {
    // A CronJob selects no pods; those of its Jobs are named after it.
    let (labels, prefix) = match assessment.kind {
        Kind::CronJob => (names::LABEL_JOB_NAME, Some(format!("{}-", assessment.name))),
        _ => (assessment.pods.as_str(), None),
    };
    let mut found = PodAges::default();
    let each = |item: &str| {
        let PodMetadata { labels, annotations, creation_timestamp, deletion_timestamp } =
            serde_json::from_str::<PodWithMetadata>(item)?.metadata;
        if prefix
            .as_ref()
            .is_some_and(|prefix| !labels.get(names::LABEL_JOB_NAME).is_some_and(|job| is_run_of(job, prefix)))
        {
            return Ok(ControlFlow::Continue(()));
        }
        if deletion_timestamp.is_some_and(|end| now.duration_since(end) > MIN_AGE_OF_LOST_PODS) {
            return Ok(ControlFlow::Continue(()));
        }
        let record = annotations.get(names::ANNOTATION_RECORD);
        // One without a record was never told where MLflow is.
        found.has_earlier |= record.is_some() && record != assessment.record.as_ref();
        if record.is_some() && record == assessment.record.as_ref() {
            found.oldest = [found.oldest, creation_timestamp].into_iter().flatten().min();
        }
        Ok(if found.has_earlier { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    let pods = List::of(Kind::Pod, Some(namespace)).labelled(labels).with_fields(NOT_ENDED);
    pods.metadata_only().at_most(MAX_AGES).for_each_until(&ctx.client, each).await?;
    Ok(found)
}

/// What is read of a pod's metadata: managed fields are most of it (see [`crate::lean`]).
#[derive(Deserialize)]
struct PodWithMetadata {
    metadata: PodMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodMetadata {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    creation_timestamp: Option<Timestamp>,
    deletion_timestamp: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::is_run_of;

    #[test]
    fn a_cron_job_has_the_jobs_that_are_numbered_after_it() {
        assert!(is_run_of("nightly-29340180", "nightly-"));
        assert!(!is_run_of("nightly-report-29340180", "nightly-"));
        assert!(!is_run_of("nightly", "nightly-"));
    }
}
