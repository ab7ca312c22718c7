//! Who asks relays what they know of traces, beside the passes: each relay every ten seconds, and its AgentTracing is woken when
//! the answer is news. Passes take what was answered last.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::runtime::reflector::ObjectRef;
use serde_json::Value;
use tokio::time::Instant;

use super::client;
use crate::controller::probing::{Tasks, Wakeups};
use crate::controller::{Guarded, observe};
use crate::core::relay::evidence::Evidence;
use crate::core::relay::history::History;
use crate::core::relay::pods;
use crate::core::relay::report::{RelayReport, has_newer_traces, is_news};
use crate::names;
use crate::telemetry::error_chain;

/// How often a relay that answers is asked.
const INTERVAL: Duration = Duration::from_secs(10);
/// The same where none of its pods answers, by how often in a row that was so.
const BACK_OFF: [Duration; 3] = [INTERVAL, Duration::from_secs(20), Duration::from_secs(40)];
/// So old an answer says nothing any more.
const STALE: SignedDuration = SignedDuration::from_secs(60);
/// How often it is news that traces came of which nobody waited for the next.
const REFRESH: Duration = Duration::from_secs(300);
/// How often it is looked whose turn it is.
const TICK: Duration = Duration::from_millis(500);

/// The pods of a relay, as far as its StatefulSet tells: others have other addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RelayPods {
    ready: i64,
    uid: Option<String>,
    revisions: [Option<String>; 2],
}

impl RelayPods {
    pub(super) fn of(stateful_set: Option<&Value>) -> Self {
        let field = |pointer: &str| stateful_set.and_then(|set| set.pointer(pointer));
        let text = |pointer: &str| field(pointer).and_then(Value::as_str).map(str::to_owned);
        Self {
            ready: field("/status/readyReplicas").and_then(Value::as_i64).unwrap_or(0),
            uid: text("/metadata/uid"),
            revisions: ["/status/currentRevision", "/status/updateRevision"].map(text),
        }
    }
}

/// What asks the relay of one AgentTracing.
#[derive(Debug)]
pub(super) struct Asker {
    tracing: ObjectRef<Guarded>,
    asking: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    wanted: RelayPods,
    /// For which the addresses were listed.
    listed: Option<RelayPods>,
    addresses: BTreeMap<String, SocketAddr>,
    /// By pod.
    answers: BTreeMap<String, (Timestamp, Evidence)>,
    history: History,
    noted_at: Timestamp,
    /// What the last pass took, and when.
    taken: Option<Arc<RelayReport>>,
    taken_at: Instant,
    /// Workloads whose next trace is news.
    awaited: BTreeSet<String>,
    was_asked: bool,
    /// Pods that did not answer the last time.
    silent: BTreeSet<String>,
    due: Instant,
    /// Without any answer, in a row.
    failures: usize,
}

impl Asker {
    /// Sets the pods that are to be asked.
    pub(super) fn want(&self, pods: RelayPods) {
        let mut state = self.state();
        if state.wanted != pods {
            (state.wanted, state.due) = (pods, Instant::now());
        }
    }

    /// What is known now, for a pass.
    pub(super) fn report(&self, now: Timestamp) -> Option<Arc<RelayReport>> {
        let mut state = self.state();
        let report = state.report(now).map(Arc::new);
        (state.taken, state.taken_at) = (report.clone(), Instant::now());
        report
    }

    pub(super) fn await_traces(&self, awaited: BTreeSet<String>) {
        self.state().awaited = awaited;
    }

    /// Asks all pods. Says whether the answer is news.
    async fn ask(&self, kube: &Client, http: &reqwest::Client, port: u16) -> bool {
        let _one = self.asking.lock().await;
        if let Err(error) = self.list(kube, port).await {
            let tracing = &self.tracing;
            tracing::warn!(%tracing, error = error_chain(&error), "failed to find the pods of a relay; trying again");
        }
        let addresses = self.state().addresses.clone();
        let ask = |(pod, address)| async move { (pod, client::evidence(http, address).await) };
        let answers = join_all(addresses.into_iter().map(ask)).await;
        let now = Timestamp::now();
        let mut state = self.state();
        state.note(answers, now, &self.tracing);
        state.is_news(now)
    }

    /// Finds the addresses of the pods, where others are ready than before, or one did not answer and may be another one now.
    async fn list(&self, kube: &Client, port: u16) -> Result<(), observe::Error> {
        let wanted = {
            let state = self.state();
            if state.listed.as_ref() == Some(&state.wanted) {
                return Ok(());
            }
            state.wanted.clone()
        };
        let ObjectRef { name, namespace, .. } = &self.tracing;
        let namespace = namespace.as_deref().unwrap_or_default();
        let found = match wanted.ready {
            0 => Vec::new(),
            _ => observe::server_pods(kube, namespace, name, names::RELAY_APPLICATION).await?,
        };
        let found = pods::addresses(&found, &names::relay_object(name)).into_iter();
        let mut state = self.state();
        state.addresses = found.map(|(pod, ip)| (pod, SocketAddr::new(ip, port))).collect();
        // The list may be older than what the StatefulSet says.
        let is_whole = i64::try_from(state.addresses.len()).is_ok_and(|found| found >= wanted.ready);
        state.listed = is_whole.then_some(wanted);
        Ok(())
    }

    fn is_due(&self) -> bool {
        self.asking.try_lock().is_ok() && self.state().due <= Instant::now()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new() -> Self {
        let (wanted, listed, taken) = Default::default();
        let (addresses, answers, history, awaited, silent) = Default::default();
        let (taken_at, due, noted_at) = (Instant::now(), Instant::now(), Timestamp::UNIX_EPOCH);
        let (was_asked, failures) = (false, 0);
        Self {
            wanted,
            listed,
            addresses,
            answers,
            history,
            noted_at,
            taken,
            taken_at,
            awaited,
            was_asked,
            silent,
            due,
            failures,
        }
    }

    /// Notes what the pods answered.
    fn note(
        &mut self,
        answers: Vec<(String, Result<Evidence, client::Error>)>,
        now: Timestamp,
        of: &ObjectRef<Guarded>,
    ) {
        let (asked, silent_before) = (answers.len(), std::mem::take(&mut self.silent));
        self.was_asked = true;
        for (pod, answer) in answers {
            match answer {
                Ok(evidence) => {
                    self.answers.insert(pod, (now, evidence));
                }
                Err(error) => {
                    self.listed = None;
                    if !silent_before.contains(&pod) {
                        tracing::warn!(tracing = %of, pod, error = error_chain(&error), "failed to ask a relay what it knows; trying again");
                    }
                    self.silent.insert(pod);
                }
            }
        }
        let answered = asked - self.silent.len();
        self.answers.retain(|_, (at, _)| now.duration_since(*at) < STALE);
        let sum = self.answers.values().map(|(_, evidence)| evidence.clone()).reduce(Evidence::with);
        if let Some(sum) = sum.filter(|_| answered > 0) {
            self.history.note(sum, now);
            self.noted_at = now;
        }
        self.failures = if asked > 0 && answered == 0 { self.failures + 1 } else { 0 };
        let rest = BACK_OFF[self.failures.saturating_sub(1).min(BACK_OFF.len() - 1)];
        self.due = Instant::now() + rest;
    }

    fn report(&self, now: Timestamp) -> Option<RelayReport> {
        let is_fresh = |(at, _): &(Timestamp, Evidence)| now.duration_since(*at) < STALE;
        self.answers.values().any(is_fresh).then(|| {
            let mut pods = self.addresses.keys();
            let complete = pods.all(|pod| self.answers.get(pod).is_some_and(is_fresh)) && !self.addresses.is_empty();
            self.history.report(complete, self.noted_at)
        })
    }

    fn is_news(&self, now: Timestamp) -> bool {
        let (before, report) = (self.taken.as_deref(), self.report(now));
        let refresh = || self.taken_at.elapsed() >= REFRESH && has_newer_traces(before, report.as_ref());
        is_news(before, report.as_ref(), &self.awaited) || refresh()
    }
}

/// All askers. Each lives as long as what is remembered of its AgentTracing.
#[derive(Debug)]
pub(in crate::controller) struct Askers {
    all: Mutex<HashMap<ObjectRef<Guarded>, Weak<Asker>>>,
    kube: Kube,
    http: Option<reqwest::Client>,
    /// Where relays are asked.
    pub(in crate::controller) port: u16,
    wakeups: Arc<Wakeups>,
    tasks: Tasks,
}

/// A client of the API server.
#[derive(Clone)]
struct Kube(Client);

impl std::fmt::Debug for Kube {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kube").finish_non_exhaustive()
    }
}

impl Askers {
    pub(in crate::controller) fn new(kube: Client, wakeups: Arc<Wakeups>) -> Self {
        let http = client::client();
        let warn = |error: &reqwest::Error| {
            tracing::error!(error = error_chain(error), "failed to make a client of relays; none is asked");
        };
        let http = http.inspect_err(warn).ok();
        Self {
            all: Mutex::default(),
            kube: Kube(kube),
            http,
            port: names::RELAY_OWN_PORT,
            wakeups,
            tasks: Tasks::default(),
        }
    }

    /// One for the relay of an AgentTracing.
    pub(super) fn add(&self, tracing: ObjectRef<Guarded>) -> Arc<Asker> {
        let state = Mutex::new(State::new());
        let asker = Arc::new(Asker { tracing: tracing.clone(), asking: tokio::sync::Mutex::default(), state });
        self.all.lock().unwrap_or_else(PoisonError::into_inner).insert(tracing, Arc::downgrade(&asker));
        asker
    }

    /// Waits a moment for the first answer of a relay: a new leader must not say that nothing is held, and then that it is.
    pub(super) async fn catch_up(&self, asker: &Arc<Asker>, patience: Duration) {
        let is_first = {
            let state = asker.state();
            !state.was_asked && state.wanted.ready > 0
        };
        if is_first && let Some(work) = self.work(asker) {
            self.tasks.spawn_and_wait(work, patience).await;
        }
    }

    /// Asks each relay when its turn has come, for ever.
    pub(in crate::controller) async fn run(&self) {
        loop {
            tokio::time::sleep(TICK).await;
            for asker in self.alive().iter().filter(|asker| asker.is_due()) {
                if let Some(work) = self.work(asker) {
                    self.tasks.spawn(work);
                }
            }
        }
    }

    /// For tests: each relay is asked now. Says which AgentTracings are woken.
    #[cfg(test)]
    pub(in crate::controller) async fn ask_all(&self) {
        for asker in self.alive() {
            if let Some(work) = self.work(&asker) {
                work.await;
            }
        }
    }

    /// Asks a relay, and wakes its AgentTracing where the answer is news.
    fn work(&self, asker: &Arc<Asker>) -> Option<impl Future<Output = ()> + Send + 'static> {
        let (asker, kube, http, port) = (asker.clone(), self.kube.clone(), self.http.clone()?, self.port);
        let wakeups = self.wakeups.clone();
        Some(async move {
            if asker.ask(&kube.0, &http, port).await {
                wakeups.add(asker.tracing.clone());
            }
        })
    }

    fn alive(&self) -> Vec<Arc<Asker>> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, asker| asker.strong_count() > 0);
        all.values().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    /// With so many pods.
    fn state(pods: u8) -> State {
        let address = |n: u8| (format!("tracing-relay-{n}"), SocketAddr::from(([10, 0, 0, n], 8080)));
        State { addresses: (0..pods).map(address).collect(), ..State::new() }
    }

    /// What a pod says, or that it does not answer.
    fn note(state: &mut State, pod: u8, evidence: Option<Value>, now: Timestamp) {
        let answer = evidence.map(|evidence| serde_json::from_value(evidence).unwrap());
        let answer = answer.ok_or(client::Error::Status(503));
        state.note(vec![(format!("tracing-relay-{pod}"), answer)], now, &ObjectRef::new("tracing"));
    }

    fn took(second: i64) -> Option<Value> {
        let teller = json!({"accepted": 1, "forwarded": 1, "held": 0, "lastForwarded": at(second).to_string()});
        Some(json!({"workloads": {"deployment/teller": teller}, "spool": {"bytes": 0, "limit": 9}}))
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_that_does_not_answer_is_asked_less_and_says_nothing_after_a_minute() {
        let mut state = state(1);
        note(&mut state, 0, took(0), at(0));
        state.taken = state.report(at(0)).map(Arc::new);
        assert!(!state.is_news(at(0)));
        let mut rest = |n: i64| {
            note(&mut state, 0, None, at(10 * n));
            state.due.duration_since(Instant::now()).as_secs()
        };
        assert_eq!([1, 2, 3, 4].map(&mut rest), [10, 20, 40, 40]);
        assert!(state.report(at(59)).is_some() && !state.is_news(at(59)));
        assert!(state.report(at(60)).is_none() && state.is_news(at(60)));
    }

    #[tokio::test(start_paused = true)]
    async fn where_one_of_two_pods_is_silent_nobody_knows_all() {
        let mut state = state(2);
        note(&mut state, 0, took(0), at(0));
        assert_eq!(state.report(at(0)).map(|report| report.complete), Some(false));
        note(&mut state, 1, took(5), at(5));
        assert_eq!(state.report(at(5)).map(|report| report.complete), Some(true));
        note(&mut state, 0, took(5), at(62));
        assert_eq!(state.report(at(65)).map(|report| report.complete), Some(false));
        assert_eq!(state.due.duration_since(Instant::now()), INTERVAL, "the other one is asked as before");
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_trace_is_news_after_five_minutes_and_at_once_where_it_is_awaited() {
        let mut state = state(1);
        note(&mut state, 0, took(0), at(0));
        state.taken = state.report(at(0)).map(Arc::new);
        note(&mut state, 0, took(9), at(10));
        assert!(!state.is_news(at(10)));
        state.awaited = BTreeSet::from(["deployment/teller".to_owned()]);
        assert!(state.is_news(at(10)));
        state.awaited.clear();
        tokio::time::advance(REFRESH).await;
        assert!(state.is_news(at(10)));
    }
}
