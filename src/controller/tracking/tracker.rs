//! Who asks MLflow for one AgentTracing, beside its passes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use tokio::time::Instant;

use super::questions::{Client, Question};
use super::searches::{self, Look};
use super::state::State;
use super::{Subject, experiments};
use crate::controller::Guarded;
use crate::controller::probing::{Servers, Tasks, Wakeups};
use crate::core::status::writes::Writes;

/// Between two questions of one kind that are repeated, at most.
const LONGEST_REST: Duration = Duration::from_secs(1);
/// How often it is looked whether something is to be asked.
const TICK: Duration = Duration::from_millis(500);

/// What asks for one AgentTracing.
#[derive(Debug)]
pub(super) struct Tracker {
    tracing: ObjectRef<Guarded>,
    wakeups: Arc<Wakeups>,
    servers: Arc<Servers>,
    /// What is urgent never waits for what is not.
    urgent: tokio::sync::Mutex<()>,
    calm: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

impl Tracker {
    pub(super) fn want_experiments(&self, client: Option<Client>, subject: Subject<'_>) {
        let mut state = self.state();
        state.client = client;
        state.experiments.want(subject);
    }

    pub(super) fn experiments(&self) -> (Arc<experiments::KnownExperiments>, bool) {
        let mut state = self.state();
        (state.experiments.report(), std::mem::take(&mut state.anew))
    }

    pub(super) fn want_traces(&self, interests: BTreeMap<String, searches::Interest>) {
        self.state().searches.want(interests);
    }

    pub(super) fn looks(&self) -> Arc<BTreeMap<String, Look>> {
        self.state().searches.looks()
    }

    /// Asks what is urgent, and waits a moment for it.
    pub(super) async fn catch_up(self: &Arc<Self>, tasks: &Tasks) {
        if self.state().next(true, Timestamp::now()).is_none() {
            return;
        }
        let this = self.clone();
        tasks.spawn_and_wait(async move { this.work(true).await }, self.servers.patience).await;
    }

    /// Asks all that is due, of one kind.
    async fn work(&self, urgent: bool) {
        let _one = if urgent { self.urgent.lock().await } else { self.calm.lock().await };
        let mut woken_at = Instant::now();
        loop {
            let next = self.state().next(urgent, Timestamp::now());
            let Some((client, question)) = next else { break };
            // What is awaited is asked for again and again, and takes half of the server's time at most.
            let is_repeated = urgent && matches!(question, Question::Newest { since: Some(_), .. });
            let began = Instant::now();
            let answer = client.ask(question.clone());
            let answer = if urgent { client.gate.ask(answer).await } else { client.gate.ask_calmly(answer).await };
            if !self.state().note(question, answer, Timestamp::now(), &self.tracing) {
                self.servers.suspect(client.mlflow.tracking_uri());
                break;
            }
            if is_repeated {
                tokio::time::sleep(began.elapsed().min(LONGEST_REST)).await;
            }
            // Of a thousand experiments the first ones need not wait for the last.
            if woken_at.elapsed() > self.servers.patience {
                woken_at = Instant::now();
                self.wake();
            }
        }
        self.wake();
    }

    /// Wakes the AgentTracing where there is something that no pass has seen.
    fn wake(&self) {
        if self.state().news {
            self.wakeups.add(self.tracing.clone());
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All trackers. Each lives as long as what is remembered of its AgentTracing.
#[derive(Debug)]
pub(in crate::controller) struct Trackers {
    all: Mutex<HashMap<ObjectRef<Guarded>, Weak<Tracker>>>,
    wakeups: Arc<Wakeups>,
    servers: Arc<Servers>,
    pub(super) tasks: Tasks,
}

impl Trackers {
    pub(in crate::controller) fn new(wakeups: Arc<Wakeups>, servers: Arc<Servers>) -> Self {
        Self { all: Mutex::default(), wakeups, servers, tasks: Tasks::default() }
    }

    /// One for an AgentTracing whose status says this of the server's writes.
    pub(super) fn add(&self, tracing: ObjectRef<Guarded>, writes: Option<Writes>) -> Arc<Tracker> {
        let (wakeups, servers) = (self.wakeups.clone(), self.servers.clone());
        let (urgent, calm) = Default::default();
        let state = Mutex::new(State::after_restart(writes));
        let tracker = Arc::new(Tracker { tracing: tracing.clone(), wakeups, servers, urgent, calm, state });
        self.all.lock().unwrap_or_else(PoisonError::into_inner).insert(tracing, Arc::downgrade(&tracker));
        tracker
    }

    /// Has every tracker ask what is due, for ever.
    pub(in crate::controller) async fn run(&self) {
        loop {
            tokio::time::sleep(TICK).await;
            for tracker in self.alive() {
                for urgent in [true, false] {
                    let is_at_work =
                        || if urgent { tracker.urgent.try_lock().is_err() } else { tracker.calm.try_lock().is_err() };
                    if is_at_work() || tracker.state().next(urgent, Timestamp::now()).is_none() {
                        continue;
                    }
                    let tracker = tracker.clone();
                    self.tasks.spawn(async move { tracker.work(urgent).await });
                }
            }
        }
    }

    fn alive(&self) -> Vec<Arc<Tracker>> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, tracker| tracker.strong_count() > 0);
        all.values().filter_map(Weak::upgrade).collect()
    }
}
