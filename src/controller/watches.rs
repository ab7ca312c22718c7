//! What says that an AgentTracing may need a pass: the watches.
//!
//! They carry metadata only and nothing of them is kept but the AgentTracings themselves. Each has its own back-off and its errors are
//! logged, never passed on: a watch that is refused costs promptness, not the process.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, select_all};
use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, Role, RoleBinding};
use kube::api::Api;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::reflector::store::Writer;
use kube::runtime::{WatchStreamExt, utils, watcher};
use kube::{Resource, ResourceExt};

use super::sweep::{Suspect, Suspects};
use super::{Context, Guarded, observe};
use crate::api::MlflowMode;
use crate::lean::{self, Lean};
use crate::names;
use crate::telemetry::error_chain;

/// Events that arrive within this time make one pass.
const DEBOUNCE: Duration = Duration::from_millis(500);

/// AgentTracings, as the queue names them.
type References = BoxStream<'static, ObjectRef<Guarded>>;

/// AgentTracings that may need a pass, each once per [`DEBOUNCE`]. Follows all AgentTracings into the store.
pub(super) fn concerned(
    ctx: &Arc<Context>,
    writer: Writer<Guarded>,
    suspects: &Arc<Suspects>,
) -> impl Stream<Item = ObjectRef<Guarded>> + Send {
    let watches = Watches { ctx: ctx.clone(), suspects: suspects.clone() };
    let children = || lean::config().labels(&format!("{}={}", names::LABEL_MANAGED_BY, names::MANAGED_BY));
    let opted_in = lean::config().labels(names::INJECT_SELECTOR);
    let labelled = lean::config().labels(names::LABEL_INJECTION);
    let all = select_all([
        watches.tracings(writer),
        // All of them: agents and our servers alike.
        watches.objects::<Deployment>(lean::config()),
        watches.objects::<StatefulSet>(lean::config()),
        watches.objects::<DaemonSet>(lean::config()),
        watches.objects::<CronJob>(lean::config()),
        watches.objects::<Job>(lean::config()),
        watches.objects::<Pod>(opted_in),
        watches.objects::<Service>(children()),
        watches.objects::<PersistentVolumeClaim>(children()),
        watches.objects::<NetworkPolicy>(children()),
        watches.objects::<RoleBinding>(children()),
        watches.objects::<Role>(children()),
        watches.objects::<PodDisruptionBudget>(children()),
        watches.objects::<ServiceAccount>(lean::config()),
        // Whom agents are bound to, and where the shared MLflow is, concern every AgentTracing of mode CR.
        watches.integration_role(),
        watches.mlflow(),
        // With a selector, a label that goes away is a deletion: both ways are seen.
        watches.objects::<Namespace>(labelled),
        watches.woken(),
    ]);
    debounce(all, DEBOUNCE)
}

struct Watches {
    ctx: Arc<Context>,
    suspects: Arc<Suspects>,
}

impl Watches {
    fn tracings(&self, writer: Writer<Guarded>) -> References {
        watcher(Api::<Guarded>::all(self.ctx.client.clone()), lean::config_of_tracings())
            .modify(|tracing| tracing.meta_mut().managed_fields = None)
            .default_backoff()
            .reflect(writer)
            .touched_objects()
            .filter_map(|event| async move { log_error("agenttracings", event).map(|o| ObjectRef::from_obj(&o)) })
            .boxed()
    }

    /// Changes of a kind, as the AgentTracings of the namespace concerned. Whether the one that a workload is labelled with still
    /// exists is for the sweep to find out.
    fn objects<K>(&self, config: watcher::Config) -> References
    where
        K: Resource<DynamicType = ()> + 'static,
        Lean<K>: Resource<DynamicType = ()>,
    {
        let (ctx, suspects) = (self.ctx.clone(), self.suspects.clone());
        watcher(Api::<Lean<K>>::all(ctx.client.clone()), config)
            .default_backoff()
            .touched_objects()
            .filter_map(|event| async move { log_error(&K::plural(&()), event) })
            .flat_map(move |object| {
                // A namespace concerns those in it.
                let namespace = object.namespace().unwrap_or_else(|| object.name_any());
                if let Some(tracing) = object.labels().get(names::LABEL_WIRED) {
                    suspects.add(Suspect { namespace: namespace.clone(), tracing: tracing.clone() });
                }
                stream::iter(ctx.references(|tracing| tracing.namespace().as_deref() == Some(&*namespace)))
            })
            .boxed()
    }

    fn integration_role(&self) -> References {
        let name = &self.ctx.options.integration_role;
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let changes = watcher(Api::<Lean<ClusterRole>>::all(self.ctx.client.clone()), config)
            .default_backoff()
            .touched_objects()
            .filter_map(|event| async move { log_error("clusterroles", event) });
        self.all_of_mode_cr(changes)
    }

    /// The kind may be absent; the watch follows within a minute of its coming. It begins with the first AgentTracing of mode CR:
    /// a cluster without any is not asked for a kind that it need not have.
    fn mlflow(&self) -> References {
        let changes = watcher(observe::mlflows(&self.ctx.client), watcher::Config::default())
            .backoff(SlowBackoff::default())
            .touched_objects()
            .filter_map(|event| async move { event.ok() });
        let ctx = self.ctx.clone();
        self.all_of_mode_cr(begin_once(move || !ctx.references(is_of_mode_cr).is_empty(), changes))
    }

    /// Changes of one thing that all AgentTracings of mode CR share.
    fn all_of_mode_cr<T>(&self, changes: impl Stream<Item = T> + Send + 'static) -> References {
        let ctx = self.ctx.clone();
        changes.flat_map(move |_| stream::iter(ctx.references(is_of_mode_cr))).boxed()
    }

    /// AgentTracings of which something was learnt beside the passes.
    fn woken(&self) -> References {
        let wakeups = self.ctx.wakeups.clone();
        stream::unfold(wakeups, |wakeups| async move { Some((wakeups.next().await, wakeups)) }).boxed()
    }
}

fn is_of_mode_cr(tracing: &Guarded) -> bool {
    tracing.0.as_ref().is_ok_and(|tracing| tracing.spec.mlflow.mode == MlflowMode::Cr)
}

/// A stream that is not asked before something holds, which is looked at from time to time.
fn begin_once<T>(holds: impl Fn() -> bool, stream: impl Stream<Item = T>) -> impl Stream<Item = T> {
    let begins = async move {
        while !holds() {
            tokio::time::sleep(LOOK).await;
        }
    };
    stream::once(begins).filter_map(|()| std::future::ready(None)).chain(stream)
}

/// How soon it is noticed that the first AgentTracing of mode CR is there; its own first pass does not wait for the watch.
const LOOK: Duration = Duration::from_secs(5);

/// How soon the watch of a kind that may be absent is tried again: up to a minute later. That of kube is never later than two seconds
/// where the list itself fails, since an event comes before it, and any event has it start over: a kind that was not installed was
/// asked for 50 times a minute.
#[derive(Default)]
struct SlowBackoff(watcher::DefaultBackoff);

impl Iterator for SlowBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next()
    }
}

impl utils::Backoff for SlowBackoff {
    /// It starts over by itself, two minutes after the last failure.
    fn reset(&mut self) {}
}

fn log_error<T>(what: &str, event: Result<T, watcher::Error>) -> Option<T> {
    event.inspect_err(|error| tracing::warn!(what, error = error_chain(error), "watch interrupted")).ok()
}

/// Gathers keys for a while after the first and passes each on once.
///
/// The scheduler's own debounce starts over with each event, so a busy namespace would never be reconciled.
fn debounce<T: Eq + std::hash::Hash + Send>(
    keys: impl Stream<Item = T> + Send + Unpin,
    window: Duration,
) -> impl Stream<Item = T> + Send {
    stream::unfold(keys, move |mut keys| async move {
        let mut gathered = HashSet::from([keys.next().await?]);
        let end = tokio::time::sleep(window);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => break,
                key = keys.next() => match key {
                    Some(key) => gathered.insert(key),
                    None => break,
                },
            };
        }
        Some((stream::iter(gathered), keys))
    })
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn keys_are_gathered_for_a_while_and_each_is_passed_on_once() {
        let keys = stream::iter(["a", "b", "a", "a", "b"]).chain(stream::pending()).boxed();
        let gathered = debounce(keys, Duration::from_millis(20)).take(2).collect::<HashSet<_>>().await;
        assert_eq!(gathered, HashSet::from(["a", "b"]));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_asked_before_it_is_wanted() {
        let began = tokio::time::Instant::now();
        let is_wanted = move || began.elapsed() > Duration::from_secs(60);
        let asked = stream::once(async move { began.elapsed() });
        let asked_after = begin_once(is_wanted, asked).boxed().next().await.unwrap();
        assert!(asked_after > Duration::from_secs(60) && asked_after <= Duration::from_secs(65), "{asked_after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_that_is_absent_is_looked_for_twice_a_minute_at_most() {
        let mut backoff = SlowBackoff::default();
        let mut waited = Vec::new();
        for _ in 0..12 {
            utils::Backoff::reset(&mut backoff); // at the event before the list
            let delay = backoff.next().unwrap();
            waited.push(delay);
            tokio::time::advance(delay).await;
        }
        assert!(
            waited[0] < Duration::from_secs(2) && waited[8..].iter().all(|delay| *delay > Duration::from_secs(15)),
            "{waited:?}"
        );
        tokio::time::advance(Duration::from_secs(240)).await;
        assert!(backoff.next().unwrap() < Duration::from_secs(2));
    }
}
