//! Reads of workloads and their pods.
//!
//! Templates are looked at in place, page by page: a whole namespace of decoded workloads would be the operator's largest
//! piece of memory, and typed structs would lose fields that this build does not know.

use std::collections::BTreeSet;
use std::pin::pin;

use futures::AsyncBufReadExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, GetParams, ListParams, Request};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Error;
use super::items::{Item, Items};
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

/// Objects of the first page of a list, and bytes and objects of the others.
const FIRST_PAGE: u32 = 25;
const PAGE_BYTES: usize = 4 << 20;
const MOST_OF_A_PAGE: u32 = 500;
/// Objects of one page where only metadata is read.
const METADATA_PAGE: u32 = 100;
/// Finished Jobs that are held while the others are read.
const MOST_FINISHED: usize = 50;
/// Workloads whose pods are looked at in one pass, and pods of each.
const MAX_UNAVAILABLE: usize = 20;
const MAX_PODS: u32 = 20;
/// Pods of all Jobs of a namespace, of those that do not run.
const MAX_JOB_PODS: u32 = 100;
/// Pages of a workload's pods.
const MAX_PAGES: usize = 20;
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

/// Where the workloads of a kind are; in all namespaces where none is named.
pub(in crate::controller) fn url(kind: Kind, namespace: Option<&str>) -> String {
    let base = match kind.group() {
        "" => format!("/api/{}", kind.version()),
        group => format!("/apis/{group}/{}", kind.version()),
    };
    match namespace {
        Some(namespace) => format!("{base}/namespaces/{namespace}/{}", kind.plural()),
        None => format!("{base}/{}", kind.plural()),
    }
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
        // Of Pods only those matter that are wired by themselves.
        let opted_in = format!("{}=true", names::LABEL_INJECT);
        let labels = (kind == Kind::Pod).then_some(opted_in.as_str());
        for_each(&ctx.client, kind, Some(context.namespace), labels, each).await?;
    }
    retain_recent(&mut finished, now);
    found.assessments.extend(finished);
    found.assessments.extend(pods.into_groups());
    Ok(found)
}

/// Looks in place at every object of a kind, or at those with these labels.
pub(in crate::controller) async fn for_each(
    client: &Client,
    kind: Kind,
    namespace: Option<&str>,
    labels: Option<&str>,
    mut each: impl FnMut(&str) -> Result<(), serde_json::Error>,
) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Page {
        #[serde(default)]
        metadata: PageMetadata,
    }
    #[derive(Default, Deserialize)]
    struct PageMetadata {
        #[serde(default, rename = "continue")]
        next: Option<String>,
    }
    let what = || format!("the {} of {}", kind.plural(), namespace.unwrap_or("all namespaces"));
    let decode = |source| Error::Decode { what: what(), source };
    let read = |source| Error::Read { what: what(), source };
    let request = Request::new(url(kind, namespace));
    let mut params =
        ListParams { label_selector: labels.map(str::to_owned), ..ListParams::default().limit(FIRST_PAGE) };
    loop {
        let request = request.list(&params).map_err(|error| read(kube::Error::BuildRequest(error)))?;
        let mut body = pin!(client.request_stream(request).await.map_err(read)?);
        let mut items = Items::default();
        let (mut bytes, mut count) = (0, 0);
        loop {
            let part = body.fill_buf().await.map_err(|error| read(kube::Error::Service(error.into())))?;
            let size = part.len();
            if size == 0 {
                break;
            }
            let one = |item: Item<'_>| {
                count += 1;
                match item {
                    Item::Whole(text) => each(serde_json::from_slice::<&RawValue>(text)?.get()),
                    Item::TooLarge(bytes) => {
                        tracing::warn!(
                            kind = kind.as_str(),
                            namespace,
                            bytes,
                            "an object is too large to be looked at"
                        );
                        Ok(())
                    }
                }
            };
            items.feed(part, one).map_err(decode)?;
            body.consume_unpin(size);
            bytes += size;
            // Where the next part is there already nothing would let others go on: the lease, and other passes.
            tokio::task::yield_now().await;
        }
        let page: Page = serde_json::from_slice(items.list()).map_err(decode)?;
        match page.metadata.next.filter(|next| !next.is_empty()) {
            Some(next) => params.continue_token = Some(next),
            None => return Ok(()),
        }
        params.limit = Some(next_limit(bytes, count, params.limit.unwrap_or(FIRST_PAGE)));
    }
}

/// How many objects the next page may have, after one of so many bytes and objects, and of this limit: what the API server makes of
/// a page, and what is read anew where the connection breaks, follows the size of the objects. Large ones may come after small
/// ones, so it grows twofold at most.
fn next_limit(bytes: usize, count: usize, limit: u32) -> u32 {
    let most = PAGE_BYTES / (bytes / count.max(1)).max(1);
    u32::try_from(most).unwrap_or(MOST_OF_A_PAGE).clamp(1, MOST_OF_A_PAGE).min(limit.saturating_mul(2))
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
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), namespace);
    let mut found = Troubles::default();
    let unwell = |j: &&mut Assessment| {
        let RolloutProgress { complete, wanted, available, .. } = j.rollout;
        j.injection_state == InjectionState::Current && wanted > 0 && (!complete || available < wanted)
    };
    let mut unwell: Vec<_> = workloads.iter_mut().filter(unwell).collect();
    // What was changed last comes first: a dead workload of long ago must not hide that a new `merge-ca` fails.
    unwell.sort_by_key(|j| std::cmp::Reverse(touched_at(j)));
    for workload in unwell.into_iter().take(MAX_UNAVAILABLE) {
        let read = |source| Error::Read { what: format!("the pods of {namespace}/{}", workload.name), source };
        let params = ListParams::default().labels(&workload.pods).limit(MAX_PODS);
        let pods = api.list(&params).await.map_err(read)?.items;
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
    jobs_without_merge_ca(&api, namespace, workloads, &mut found, now).await?;
    Ok(found)
}

/// A Job's pods come and go, so no status of a workload says how they are. Notes the Jobs that wait for our init container, and
/// names the CronJobs whose next one would too.
async fn jobs_without_merge_ca(
    api: &Api<Pod>,
    namespace: &str,
    workloads: &mut [Assessment],
    found: &mut Troubles,
    now: Timestamp,
) -> Result<(), Error> {
    let mut at_work: Vec<_> = workloads.iter_mut().filter(|j| j.wired && !j.jobs.is_empty()).collect();
    if at_work.is_empty() {
        return Ok(());
    }
    let params = ListParams::default().labels(names::LABEL_JOB_NAME).fields(NOT_RUNNING).limit(MAX_JOB_PODS);
    let read = |source| Error::Read { what: format!("the pods of the Jobs of {namespace}"), source };
    let pods = api.list(&params).await.map_err(read)?.items;
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
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), namespace);
    let read = |source| Error::Read { what: format!("the pods of {namespace}/{}", assessment.name), source };
    // A CronJob selects no pods; those of its Jobs are named after it.
    let (labels, prefix) = match assessment.kind {
        Kind::CronJob => (names::LABEL_JOB_NAME, Some(format!("{}-", assessment.name))),
        _ => (assessment.pods.as_str(), None),
    };
    let mut params = ListParams::default().labels(labels).fields(NOT_ENDED).limit(METADATA_PAGE);
    let mut found = PodAges::default();
    for _ in 0..MAX_PAGES {
        let list = api.list_metadata(&params).await.map_err(read)?;
        for pod in &list.items {
            let job = pod.metadata.labels.as_ref().and_then(|labels| labels.get(names::LABEL_JOB_NAME));
            if prefix.as_ref().is_some_and(|prefix| !job.is_some_and(|job| is_run_of(job, prefix))) {
                continue;
            }
            let end = pod.metadata.deletion_timestamp.as_ref().map(|end| end.0);
            if end.is_some_and(|end| now.duration_since(end) > MIN_AGE_OF_LOST_PODS) {
                continue;
            }
            let record = pod.metadata.annotations.as_ref().and_then(|all| all.get(names::ANNOTATION_RECORD));
            // One without a record was never told where MLflow is.
            found.has_earlier |= record.is_some() && record != assessment.record.as_ref();
            if record.is_some() && record == assessment.record.as_ref() {
                let created = pod.metadata.creation_timestamp.as_ref().map(|at| at.0);
                found.oldest = [found.oldest, created].into_iter().flatten().min();
            }
        }
        match list.metadata.continue_.filter(|next| !next.is_empty() && !found.has_earlier) {
            Some(next) => params.continue_token = Some(next),
            None => break,
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{is_run_of, next_limit};

    /// Review B3: a page had 25 objects, whatever their size.
    #[test]
    fn a_page_has_few_large_objects_or_many_small_ones() {
        assert_eq!(next_limit(200 * 14_000, 200, 200), 299);
        assert_eq!(next_limit(25 * 14_000, 25, 25), 50);
        assert_eq!(next_limit(25 * 1_400_000, 25, 25), 2);
        assert_eq!(next_limit(25 * 8_000_000, 25, 25), 1);
        assert_eq!((next_limit(100, 25, 400), next_limit(100, 0, 1)), (500, 2));
    }

    #[test]
    fn a_cron_job_has_the_jobs_that_are_numbered_after_it() {
        assert!(is_run_of("nightly-29340180", "nightly-"));
        assert!(!is_run_of("nightly-report-29340180", "nightly-"));
        assert!(!is_run_of("nightly", "nightly-"));
    }
}
