//! The controller: brings the objects of each AgentTracing, and the workloads of its namespace, to what the spec says.
//!
//! A controller is a loop over *keys*, not over events: watches only say which AgentTracing may need a look, and
//! `reconcile` reads the world anew each time. So a missed, doubled or reordered event changes
//! nothing, and neither does a restart.

mod apply;
mod ca_config_map;
mod canary;
mod events;
mod mlflow_credentials;
mod mlflow_server;
mod observe;
mod probing;
mod rbac;
mod reconcile;
mod relay;
mod release;
mod rollout;
mod step_timer;
mod sweep;
mod tracking;
mod traffic;
mod watches;
mod workload_key;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{self, Action, applier};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::{Client, Resource, ResourceExt};

use crate::api::AgentTracing;
use crate::core::settings::Platform;
use crate::core::settings::hosts::Hosts;
use crate::mlflow::{self, Http};
use crate::names;
use crate::standstill::spawned;
use crate::telemetry::{Metrics, error_chain};
use crate::trust::TrustedAuthorities;
pub(crate) use observe::mlflows;
use probing::PATIENCE;
use reconcile::ReconcileState;
pub use release::unused as release_authorities;
use step_timer::StepTimer;
use sweep::Suspect;
pub use sweep::everything as uninject_all;

/// What the controller needs from outside.
#[derive(Clone)]
pub struct Options {
    /// Client of the API server.
    pub client: Client,
    /// The install; whether the cluster is OpenShift is found out.
    pub platform: Platform,
    /// Name of this replica, for events.
    pub identity: String,
    /// Whose certificates the operator believes.
    pub authorities: Arc<TrustedAuthorities>,
    /// Hosts that may be asked, beside the operator's own servers and the discovered one.
    pub trusted_hosts: Hosts,
    /// Hosts that may be asked and are shown the observer's token, beside the discovered one.
    pub token_hosts: Hosts,
    /// Namespaces whose AgentTracings may create the MLflow resource.
    pub create_namespaces: BTreeSet<String>,
    /// The ClusterRole that agents are bound to in mode CR.
    pub integration_role: String,
    /// Most workloads of the cluster that are unavailable at a time because of us.
    pub max_rolling: usize,
    /// Told what happens.
    pub metrics: Arc<Metrics>,
}

/// Why the controller ended, or why a pass failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// At start.
    #[error("failed to discover what the cluster offers")]
    Discover(#[source] observe::Error),
    /// A pass did not end in time.
    #[error("failed to reconcile within {} s", PASS_TIMEOUT.as_secs())]
    Timeout,
    /// A pass panicked.
    #[error("failed to reconcile: a bug")]
    Panicked,
    /// The process stood still, and this replica may no longer lead.
    #[error("failed to reconcile without a standstill of the process")]
    Stalled,
    /// A read failed.
    #[error(transparent)]
    Observe(#[from] observe::Error),
    /// A write failed.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// No client of MLflow servers.
    #[error("failed to make a client of MLflow servers")]
    Http(#[source] mlflow::Error),
    /// All watches ended, which they never do.
    #[error("failed to keep watching")]
    Ended,
}

impl Error {
    /// Somebody else wrote in between: reading anew is the remedy.
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Apply(error) if error.is_conflict())
    }

    /// The name of the variant, as a metric label.
    fn label(&self) -> &'static str {
        match self {
            Self::Discover(_) => "discover",
            Self::Timeout => "timeout",
            Self::Panicked => "panicked",
            Self::Stalled => "stalled",
            Self::Observe(_) => "observe",
            Self::Apply(_) => "apply",
            Self::Http(_) => "http",
            Self::Ended => "ended",
        }
    }
}

/// One bad AgentTracing must not stop the watch of all others.
type Guarded = DeserializeGuard<AgentTracing>;

/// What every pass shares.
pub(crate) struct Context {
    client: Client,
    platform: Platform,
    options: Options,
    store: Store<Guarded>,
    reporter: Reporter,
    observer: Arc<mlflow_credentials::Observer>,
    reconcile_states: Mutex<HashMap<String, Arc<tokio::sync::Mutex<ReconcileState>>>>,
    budget: traffic::RolloutBudget,
    wakeups: Arc<probing::Wakeups>,
    servers: Arc<probing::Servers>,
    trackers: tracking::Trackers,
    relays: relay::Askers,
}

/// Above what a webhook that hangs for its 2 s at each of ten touches and five patches takes.
const PASS_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take to tell that passes fail.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);
/// Passes at a time. Most of their time they wait.
const CONCURRENCY: u16 = 32;

/// Runs until the process ends; only the leader calls this.
pub async fn run(options: Options) -> Result<(), Error> {
    let openshift = observe::openshift(&options.client).await.map_err(Error::Discover)?;
    tracing::info!(openshift, "controller starts");
    let (store, writer) = reflector::store();
    let ctx = Arc::new(Context::new(options.clone(), openshift, store.clone(), PATIENCE));

    let suspects = Arc::new(sweep::Suspects::default());
    let queue = watches::concerned(&ctx, writer, &suspects).map(Ok::<_, std::convert::Infallible>);
    let config = controller::Config::default().concurrency(CONCURRENCY);
    let passes = applier(|tracing, ctx| Box::pin(task(tracing, ctx)), after_failure, ctx.clone(), store, queue, config);
    let beside = futures::future::select_all([
        sweep::run(&ctx, &suspects).boxed(),
        release::run(&ctx).boxed(),
        ctx.servers.run(&ctx).boxed(),
        ctx.trackers.run().boxed(),
        ctx.relays.run().boxed(),
    ]);
    let passed = passes.for_each(|done| {
        let (ctx, suspects) = (ctx.clone(), suspects.clone());
        async move {
            match done {
                Ok((tracing, _)) => tracing::debug!(%tracing, "reconciled"),
                Err(controller::Error::ObjectNotFound(gone)) => {
                    let namespace = gone.namespace.unwrap_or_default();
                    ctx.forget_deleted(&namespace, &gone.name);
                    suspects.add(Suspect { namespace, tracing: gone.name });
                }
                Err(controller::Error::ReconcilerFailed(..)) => {}
                Err(error) => tracing::warn!(%error, "failed to follow a change"),
            }
        }
    });
    // None ends before the process does.
    futures::future::select(pin!(passed), beside).await;
    Err(Error::Ended)
}

impl Context {
    fn new(options: Options, openshift: bool, store: Store<Guarded>, patience: Duration) -> Self {
        let wakeups = Arc::<probing::Wakeups>::default();
        let servers = Arc::new(probing::Servers::new(wakeups.clone(), patience));
        Self {
            reporter: Reporter { controller: names::MANAGED_BY.to_owned(), instance: Some(options.identity.clone()) },
            client: options.client.clone(),
            platform: Platform { openshift, ..options.platform.clone() },
            store,
            observer: Arc::new(mlflow_credentials::Observer::new(
                options.client.clone(),
                &options.platform.operator_namespace,
            )),
            reconcile_states: Mutex::default(),
            budget: traffic::RolloutBudget::new(options.max_rolling),
            trackers: tracking::Trackers::new(wakeups.clone(), servers.clone()),
            relays: relay::Askers::new(options.client.clone(), wakeups.clone()),
            servers,
            wakeups,
            options,
        }
    }

    /// A new one for each event: it would keep every event that it published, and nothing is published twice anyway.
    fn recorder(&self) -> Recorder {
        Recorder::new(self.client.clone(), self.reporter.clone())
    }

    /// A client of MLflow servers, which trusts what is to be trusted now.
    fn http(&self) -> Result<Http, Error> {
        self.options.authorities.http(Timestamp::now()).map_err(Error::Http)
    }

    /// Whether an administrator listed the host of an address, with or without the token.
    fn may_ask(&self, url: &str) -> bool {
        self.options.trusted_hosts.contains(url) || self.options.token_hosts.contains(url)
    }

    /// What is remembered of an AgentTracing between passes. Losing it costs a few reads.
    fn reconcile_state(&self, uid: &str) -> Arc<tokio::sync::Mutex<ReconcileState>> {
        let mut states = self.reconcile_states.lock().unwrap_or_else(PoisonError::into_inner);
        states.entry(uid.to_owned()).or_default().clone()
    }

    /// Whether an AgentTracing of this name is in memory.
    fn knows(&self, namespace: &str, name: &str) -> bool {
        self.store.state().iter().any(|t| t.namespace().as_deref() == Some(namespace) && t.name_any() == name)
    }

    /// The AgentTracings that are meant, as the queue names them.
    fn references(&self, are_meant: impl Fn(&Guarded) -> bool) -> Vec<ObjectRef<Guarded>> {
        self.store.state().iter().filter(|t| are_meant(t)).map(|t| ObjectRef::from_obj(&**t)).collect()
    }

    /// Has the other AgentTracings of a namespace looked at.
    fn wake_others(&self, namespace: &str, name: &str) {
        let is_other = |t: &Guarded| t.namespace().as_deref() == Some(namespace) && t.name_any() != name;
        self.references(is_other).into_iter().for_each(|other| self.wakeups.add(other));
    }

    fn forget_deleted(&self, namespace: &str, name: &str) {
        tracing::debug!(namespace, name, "deleted");
        self.options.metrics.tracing_is_gone(namespace, name);
        self.servers.leave_others(&ObjectRef::new(name).within(namespace), tokio::time::Instant::now());
        self.wake_others(namespace, name);
        let known: HashSet<_> = self.store.state().iter().filter_map(|t| t.uid()).collect();
        self.reconcile_states.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| known.contains(uid));
        self.budget
            .retain(|of| of.starts_with(sweep::BUDGET_PREFIX) || known.contains(of.split('/').next().unwrap_or(of)));
    }
}

/// A pass in a task of its own: what it computes for long keeps no watch and no other pass waiting.
async fn task(tracing: Arc<Guarded>, ctx: Arc<Context>) -> Result<Action, Error> {
    spawned(pass(tracing, ctx)).await.unwrap_or(Err(Error::Stalled))
}

/// One pass over one AgentTracing; it ends in time and never takes the others down.
async fn pass(tracing: Arc<Guarded>, ctx: Arc<Context>) -> Result<Action, Error> {
    let tracing = match &tracing.0 {
        Ok(tracing) => tracing,
        Err(invalid) => {
            // The API server's schema admits nothing that we cannot read; this is an older or newer operator's object.
            tracing::warn!(name = ?invalid.metadata.name, namespace = ?invalid.metadata.namespace, error = %invalid.error, "unreadable AgentTracing");
            return Ok(Action::await_change());
        }
    };
    let steps = StepTimer::begin(&ctx.options.metrics);
    let pass = AssertUnwindSafe(reconcile::reconcile(tracing, &ctx, &steps)).catch_unwind();
    let done = match tokio::time::timeout(PASS_TIMEOUT, pass).await {
        Ok(Ok(done)) => done,
        Ok(Err(_)) => Err(Error::Panicked),
        Err(_) => Err(Error::Timeout),
    };
    steps.end(done.as_ref().err().map(Error::label));
    if let Err(error) = &done
        && !error.is_conflict()
    {
        let write = reconcile::write_failure(tracing, &ctx, error);
        let _ = tokio::time::timeout(STATUS_TIMEOUT, write).await;
    }
    done
}

/// How long to wait after a failed pass, by what failed.
fn after_failure(tracing: Arc<Guarded>, error: &Error, ctx: Arc<Context>) -> Action {
    let failures = reconcile::failed_again(&ctx, tracing.meta().uid.as_deref().unwrap_or_default());
    let name = tracing.name_any();
    let namespace = tracing.namespace();
    let delay = match error {
        e if e.is_conflict() => after_conflict(failures),
        Error::Panicked => Duration::from_secs(300),
        _ => Duration::from_secs(1 << failures.min(6)),
    };
    let error_text = error_chain(error);
    match error {
        e if e.is_conflict() => {
            tracing::debug!(name, namespace, failures, error = error_text, retry_in = ?delay, "somebody else wrote in between");
        }
        _ if is_namespace_terminating(&error_text) => {
            tracing::debug!(name, namespace, failures, error = error_text, retry_in = ?delay, "the namespace is going");
        }
        _ => tracing::warn!(name, namespace, failures, error = error_text, retry_in = ?delay, "failed to reconcile"),
    }
    Action::requeue(delay)
}

/// Someone else wrote in between: nothing is wrong, and bad luck in a row is no reason to stay away for a minute.
fn after_conflict(failures: u32) -> Duration {
    if failures <= 3 { Duration::from_millis(200) } else { Duration::from_secs(1 << (failures - 3).min(2)) }
}

/// Whether the API server takes nothing new because the namespace is being deleted: what fails then is nobody's trouble. The
/// words are those of its admission plugin NamespaceLifecycle.
fn is_namespace_terminating(message: &str) -> bool {
    message.contains("because it is being terminated")
}

/// An AgentTracing, as the queue names it.
fn reference(tracing: &AgentTracing) -> ObjectRef<Guarded> {
    ObjectRef::new(&tracing.name_any()).within(&tracing.namespace().unwrap_or_default())
}

#[cfg(test)]
mod tests;
