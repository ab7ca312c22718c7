//! Takes the wiring out of workloads whose AgentTracing is gone, so that a deletion needs neither a finalizer nor a running
//! operator: what was missed meanwhile is found at the start and once a day by a look at every workload of the cluster, and in
//! between by the label that wired workloads carry.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Context, Error, apply, coalesced, observe, report};
use crate::core::kind::Kind;
use crate::core::rollout::Pace;
use crate::core::select::Surroundings;
use crate::core::workload::{Orphan, is_orphan, wired};
use crate::names;

/// Under which name, followed by the namespace, a sweep takes places.
pub(super) const PLACES: &str = "sweep/";
/// How often every workload of the cluster is looked at.
const DAILY: Duration = Duration::from_secs(24 * 3600);
/// How long a deleted AgentTracing may take to come back: whoever replaces it by deleting it rolls nothing.
const GRACE: Duration = Duration::from_secs(5);
/// When to try again what failed.
const RETRY: Duration = Duration::from_secs(30);
/// Namespaces at a time.
const CONCURRENCY: usize = 4;
/// How often it is asked whether pods are replaced, and for how long at most.
const POLL: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(600);
/// Changes of workloads without pods between two looks.
const BATCH: usize = 20;

/// Something may carry the wiring of an AgentTracing that is no more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Suspect {
    pub namespace: String,
    pub tracing: String,
}

/// Looks at all that may have been orphaned, for ever.
pub(super) async fn run(ctx: Arc<Context>, suspects: UnboundedReceiver<Suspect>) {
    if ctx.store.wait_until_ready().await.is_err() {
        return;
    }
    let suspects = stream::unfold(suspects, |mut suspects| async move { Some((suspects.recv().await?, suspects)) });
    let daily = stream::unfold((), |()| async {
        tokio::time::sleep(DAILY).await;
        Some(((), ()))
    });
    let context = ctx.clone();
    let all = stream::once(async {}).chain(daily).then(move |()| {
        let ctx = context.clone();
        async move { everywhere(&ctx).await }
    });
    let context = ctx.clone();
    let suspected = coalesced(suspects.boxed(), GRACE).filter_map(move |Suspect { namespace, tracing }| {
        let unknown = !context.knows(&namespace, &tracing);
        async move { unknown.then_some(namespace) }
    });
    let namespaces = stream::select(suspected, all.flat_map(stream::iter));
    namespaces
        .for_each_concurrent(CONCURRENCY, |namespace| {
            let ctx = ctx.clone();
            async move {
                while let Err(error) = namespace_of_orphans(&ctx, &namespace).await {
                    tracing::warn!(namespace, error = report(&error), retry_in = ?RETRY, "failed to sweep");
                    tokio::time::sleep(RETRY).await;
                }
            }
        })
        .await;
}

/// The namespaces in which something is wired that no AgentTracing in memory has.
async fn everywhere(ctx: &Context) -> BTreeSet<String> {
    loop {
        match wired_workloads(&ctx.client, None).await {
            Ok(all) => {
                let suspects = all.into_iter().filter(|(orphan, _)| !ctx.knows(&orphan.namespace, &orphan.tracing));
                return suspects.map(|(orphan, _)| orphan.namespace).collect();
            }
            Err(error) => {
                tracing::warn!(error = report(&error), retry_in = ?RETRY, "failed to look for orphans");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Everything that is wired, with its JSON only as far as one namespace is concerned.
async fn wired_workloads(client: &Client, namespace: Option<&str>) -> Result<Vec<(Orphan, String)>, Error> {
    let mut found = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| kind.has_second_chance()) {
        let each = |item: &str| {
            let kept = |orphan| (orphan, namespace.map(|_| item.to_owned()).unwrap_or_default());
            found.extend(wired(kind, item)?.map(kept));
            Ok(())
        };
        observe::for_each(client, kind, namespace, "", each).await?;
    }
    Ok(found)
}

/// Takes out what is orphaned in a namespace, a few at a time. Nothing is believed that was not just read.
pub(super) async fn namespace_of_orphans(ctx: &Context, namespace: &str) -> Result<(), Error> {
    let places = format!("{PLACES}{namespace}");
    let done = async {
        loop {
            let policies = observe::live_policies(ctx, namespace).await?;
            let labels = observe::namespace_labels(ctx, namespace).await?;
            let around = Surroundings {
                namespace,
                injection_enabled: observe::is_labelled(&labels),
                platform: &ctx.platform,
                tokenless: &BTreeSet::new(),
                policies: &policies,
            };
            let mut orphans = Vec::new();
            for (orphan, json) in wired_workloads(&ctx.client, Some(namespace)).await? {
                let what = || format!("{} {namespace}/{}", orphan.kind.as_str(), orphan.name);
                let decode = |source| observe::Error::Decode { what: what(), source };
                if is_orphan(orphan.kind, &json, &orphan.tracing, &around).map_err(decode)? {
                    orphans.push(orphan);
                }
            }
            if orphans.is_empty() {
                return Ok(());
            }
            let wanted = orphans.iter().filter(|orphan| orphan.replaces_pods).count();
            let most = wanted.min(Pace::default().max_concurrent);
            let free = ctx.traffic.places(&places, 0, most, ctx.options.max_rolling);
            let taken_out = take_out(ctx, batch(orphans, free)).await?;
            for orphan in &taken_out {
                removed(ctx, orphan).await;
            }
            settled(&ctx.client, &taken_out).await?;
            if taken_out.is_empty() {
                // Nobody gave way, or all places are taken.
                tokio::time::sleep(POLL).await;
            }
        }
    };
    let done = done.await;
    ctx.traffic.places(&places, 0, 0, ctx.options.max_rolling);
    done
}

/// What may be changed before the next look: `free` workloads with pods, and some without.
fn batch(orphans: Vec<Orphan>, free: usize) -> Vec<Orphan> {
    let (rolling, resting): (Vec<_>, Vec<_>) = orphans.into_iter().partition(|orphan| orphan.replaces_pods);
    rolling.into_iter().take(free).chain(resting.into_iter().take(BATCH)).collect()
}

async fn take_out(ctx: &Context, orphans: Vec<Orphan>) -> Result<Vec<Orphan>, Error> {
    let mut done = Vec::new();
    for orphan in orphans {
        let Orphan { kind, namespace, name, .. } = &orphan;
        let written = apply::Written { kind: *kind, namespace, name };
        ctx.traffic.turn().await;
        match apply::patch(&ctx.client, written, &orphan.resource_version, &orphan.patch).await {
            Ok(_) => {
                tracing::info!(namespace, name, kind = kind.as_str(), "wiring of a deleted AgentTracing taken out");
                done.push(orphan);
            }
            Err(error) if error.is_conflict() => {}
            Err(error) => match error.refusal() {
                Some(said) => tracing::warn!(namespace, name, said, "the API server refuses a change of a workload"),
                None => return Err(error.into()),
            },
        }
    }
    Ok(done)
}

/// Waits until the pods of these are replaced, but not for ever.
async fn settled(client: &Client, orphans: &[Orphan]) -> Result<(), Error> {
    let end = tokio::time::Instant::now() + PATIENCE;
    for orphan in orphans.iter().filter(|orphan| orphan.replaces_pods) {
        while !observe::is_settled(client, orphan.kind, &orphan.namespace, &orphan.name).await?
            && tokio::time::Instant::now() < end
        {
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

async fn removed(ctx: &Context, orphan: &Orphan) {
    let Orphan { kind, namespace, name, uid, tracing, .. } = orphan;
    let regarding = ObjectReference {
        api_version: Some(kind.api_version()),
        kind: Some(kind.as_str().to_owned()),
        name: Some(name.clone()),
        namespace: Some(namespace.clone()),
        uid: Some(uid.clone()),
        ..ObjectReference::default()
    };
    let note = format!("AgentTracing {tracing} is gone: its wiring was taken out, and the template is what it was.");
    let reason = names::event::REMOVED.to_owned();
    let event = Event { type_: EventType::Normal, action: reason.clone(), reason, note: Some(note), secondary: None };
    if let Err(error) = ctx.recorder.publish(&event, &regarding).await {
        tracing::warn!(name, error = report(&error), "failed to publish an event");
    }
}
