//! Takes the wiring out of workloads whose AgentTracing is gone, so that a deletion needs neither a finalizer nor a running
//! operator: what was missed meanwhile is found at the start and once a day by a look at every workload of the cluster, and in
//! between by the label that wired workloads carry.

mod queue;

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use futures::future::join_all;
use kube::{Client, ResourceExt};

use super::traffic::RolloutBudget;
use super::{Context, Error, apply, events, observe};
use crate::core::selection::SelectionContext;
use crate::core::selection::kind::Kind;
use crate::core::settings::policy::RolloutStrategy;
use crate::core::workloads::{Orphan, orphan, wired, wired_by};
use crate::telemetry::error_chain;
use queue::Queue;
pub(super) use queue::Suspects;

/// Under which name, followed by the namespace, a sweep takes places.
pub(super) const BUDGET_PREFIX: &str = "sweep/";
/// How often every workload of the cluster is looked at.
const DAILY: Duration = Duration::from_secs(24 * 3600);
/// How long a deleted AgentTracing may take to come back: whoever replaces it by deleting it rolls nothing.
const RECREATION_GRACE: Duration = Duration::from_secs(5);
/// When to try again what failed.
const RETRY: Duration = Duration::from_secs(30);
/// Namespaces at a time.
const CONCURRENCY: usize = 4;
/// How often it is asked whether pods are replaced, and for how long at most.
const POLL: Duration = Duration::from_secs(2);
const ROUND_TIMEOUT: Duration = Duration::from_secs(600);
/// Changes of workloads without pods between two looks, and orphans that are looked at.
const BATCH: usize = 20;
const MAX_ORPHANS: usize = 100;

/// Something may carry the wiring of an AgentTracing that is no more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Suspect {
    pub namespace: String,
    pub tracing: String,
}

/// Looks at all that may have been orphaned, for ever.
pub(super) async fn run(ctx: &Context, suspects: &Suspects) {
    if ctx.store.wait_until_ready().await.is_err() {
        return;
    }
    let queue = Queue::default();
    let suspected = async {
        loop {
            for Suspect { namespace, tracing } in suspects.gathered(RECREATION_GRACE).await {
                if !ctx.knows(&namespace, &tracing) {
                    queue.add(&namespace);
                }
            }
        }
    };
    let daily = async {
        loop {
            everywhere(ctx).await.iter().for_each(|namespace| queue.add(namespace));
            tokio::time::sleep(DAILY).await;
        }
    };
    let workers = join_all((0..CONCURRENCY).map(|_| work(ctx, &queue)));
    // None of them ends.
    let _ = futures::join!(suspected, daily, workers);
}

/// Sweeps one namespace after the other. One that cannot be done now makes room for the others (review C3).
async fn work(ctx: &Context, queue: &Queue) {
    loop {
        let namespace = queue.next().await;
        let again = match namespace_of_orphans(ctx, &namespace).await {
            Ok(Round::Done) => None,
            Ok(Round::NoPlaces) => Some(POLL),
            Ok(Round::Refused) => Some(RETRY),
            Err(error) => {
                tracing::warn!(namespace, error = error_chain(&error), retry_in = ?RETRY, "failed to sweep");
                Some(RETRY)
            }
        };
        queue.done(&namespace, again);
    }
}

/// The namespaces in which something is wired that no AgentTracing in memory has.
async fn everywhere(ctx: &Context) -> BTreeSet<String> {
    loop {
        let known: HashSet<_> =
            ctx.store.state().iter().map(|t| (t.namespace().unwrap_or_default(), t.name_any())).collect();
        match suspects(&ctx.client, &known).await {
            Ok(namespaces) => return namespaces,
            Err(error) => {
                tracing::warn!(error = error_chain(&error), retry_in = ?RETRY, "failed to look for orphans");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn suspects(client: &Client, known: &HashSet<(String, String)>) -> Result<BTreeSet<String>, observe::Error> {
    let mut found = BTreeSet::new();
    for kind in kinds() {
        let each = |item: &str| {
            let by = wired_by(kind, item)?.filter(|by| !known.contains(by));
            found.extend(by.map(|(namespace, _)| namespace));
            Ok(())
        };
        observe::List::of(kind, None).for_each(client, each).await?;
    }
    Ok(found)
}

/// Some of the orphans of a namespace. Of the many workloads that there may be, only these are held in memory.
async fn orphans(ctx: &Context, context: &SelectionContext<'_>) -> Result<Vec<Orphan>, observe::Error> {
    let mut found = Vec::new();
    for kind in kinds() {
        let each = |item: &str| {
            if found.len() < MAX_ORPHANS {
                found.extend(orphan(kind, item, context)?);
            }
            Ok(())
        };
        observe::List::of(kind, Some(context.namespace)).for_each(&ctx.client, each).await?;
    }
    Ok(found)
}

/// A Job is never changed after its creation.
fn kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter().filter(|kind| kind.template_is_mutable())
}

/// What became of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// Nothing is orphaned there any more.
    Done,
    /// All places for workloads that roll are taken.
    NoPlaces,
    /// The API server refuses the rest.
    Refused,
}

/// Takes out what is orphaned in a namespace, a few at a time. Nothing is believed that was not just read.
pub(super) async fn namespace_of_orphans(ctx: &Context, namespace: &str) -> Result<Round, Error> {
    let places = format!("{BUDGET_PREFIX}{namespace}");
    let done = async {
        loop {
            let policies = observe::live_policies(ctx, namespace).await?;
            let labels = observe::namespace_labels(ctx, namespace).await?;
            let context = SelectionContext {
                namespace,
                injection_enabled: observe::is_labelled(&labels),
                platform: &ctx.platform,
                tokenless: &BTreeSet::new(),
                policies: &policies,
                renews: false,
            };
            let orphans = orphans(ctx, &context).await?;
            if orphans.is_empty() {
                return Ok(Round::Done);
            }
            let wanted = orphans.iter().filter(|orphan| orphan.costs).count();
            let free = ctx.budget.reserve(namespace, &places, 0, wanted.min(RolloutStrategy::default().max_concurrent));
            let batch = batch(orphans, free);
            if batch.is_empty() {
                return Ok(Round::NoPlaces);
            }
            let removal = take_out(&ctx.client, &ctx.budget, batch).await?;
            for orphan in &removal.out {
                tracing::info!(namespace, name = orphan.resource(), "wiring of a deleted AgentTracing taken out");
                events::orphaned(ctx, orphan).await;
            }
            for (orphan, refusal) in &removal.refused {
                tracing::warn!(
                    namespace,
                    name = orphan.resource(),
                    refusal,
                    "the API server refuses to take the wiring out"
                );
            }
            settled(&ctx.client, &removal.out).await?;
            if removal.out.is_empty() && !removal.refused.is_empty() {
                return Ok(Round::Refused);
            }
        }
    };
    let done = done.await;
    ctx.budget.hold(&places, 0);
    done
}

/// Takes the wiring out of everything, whoever it is of; for `uninject --all`, with no operator running. `tell` hears what
/// becomes of each workload.
pub async fn everything(client: &Client, limit: usize, mut tell: impl FnMut(&str, Option<&str>)) -> Result<(), Error> {
    let budget = RolloutBudget::new(limit);
    let mut refused = HashSet::new();
    loop {
        let mut found = Vec::new();
        for kind in kinds() {
            let each = |item: &str| {
                let new = |orphan: &Orphan| !refused.contains(&orphan.uid);
                if found.len() < MAX_ORPHANS {
                    found.extend(wired(kind, item)?.filter(new));
                }
                Ok(())
            };
            observe::List::of(kind, None).for_each(client, each).await?;
        }
        if found.is_empty() {
            return Ok(());
        }
        let removal = take_out(client, &budget, batch(found, limit)).await?;
        for orphan in &removal.out {
            tell(&format!("{} {}", orphan.namespace, orphan.resource()), None);
        }
        for (orphan, refusal) in removal.refused {
            tell(&format!("{} {}", orphan.namespace, orphan.resource()), Some(&refusal));
            refused.insert(orphan.uid);
        }
        settled(client, &removal.out).await?;
    }
}

/// What may be changed before the next look: `free` workloads with pods, and some without.
fn batch(orphans: Vec<Orphan>, free: usize) -> Vec<Orphan> {
    let (rolling, resting): (Vec<_>, Vec<_>) = orphans.into_iter().partition(|orphan| orphan.costs);
    rolling.into_iter().take(free).chain(resting.into_iter().take(BATCH)).collect()
}

#[derive(Default)]
struct Removal {
    out: Vec<Orphan>,
    /// With the API server's words.
    refused: Vec<(Orphan, String)>,
}

async fn take_out(client: &Client, budget: &RolloutBudget, orphans: Vec<Orphan>) -> Result<Removal, Error> {
    let mut removal = Removal::default();
    for orphan in orphans {
        let written = apply::Written { kind: orphan.kind, namespace: &orphan.namespace, name: &orphan.name };
        budget.wait_for_write().await;
        match apply::patch(client, written, &orphan.resource_version, &orphan.patch).await {
            Ok(_) => removal.out.push(orphan),
            Err(error) if error.is_conflict() => {}
            Err(error) => match error.refusal() {
                Some(refusal) => removal.refused.push((orphan, refusal)),
                None => return Err(error.into()),
            },
        }
    }
    Ok(removal)
}

/// Waits until the pods of these are replaced, but not for ever.
async fn settled(client: &Client, orphans: &[Orphan]) -> Result<(), Error> {
    let end = tokio::time::Instant::now() + ROUND_TIMEOUT;
    for orphan in orphans.iter().filter(|orphan| orphan.costs) {
        while !observe::is_settled(client, orphan.kind, &orphan.namespace, &orphan.name).await?
            && tokio::time::Instant::now() < end
        {
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}
