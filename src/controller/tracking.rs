//! What MLflow has of the workloads: their experiments and their newest traces.
//!
//! A pass says what it wants to know and takes what is known by then; a [`Tracker`] beside it asks, what is awaited at once and
//! the rest calmly, and wakes the AgentTracing when an answer is news.

mod evidence;
mod experiments;
mod searches;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::ObjectRef;
use tokio::time::Instant;

use super::probing::{Gate, Servers, Tasks, Wakeups};
use super::{Context, Error, Guarded, reference};
use crate::api::{AgentTracing, AgentTracingStatus, MlflowMode, MlflowStatus};
use crate::core::settings::Settings;
use crate::core::status::Experiments;
use crate::core::status::writes::Writes;
use crate::core::workloads::Assessment;
use crate::core::workloads::evidence::Evidence;
use crate::mlflow::{self, MlflowClient};
use searches::{Looked, Searches};

/// How long a pass waits for answers that nobody has given yet.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Between two questions of one kind that are repeated, at most.
const LONGEST_REST: Duration = Duration::from_secs(1);
/// How often it is looked whether something is to be asked.
const TICK: Duration = Duration::from_millis(500);
/// How long nothing is asked after a question that got no answer.
const RETRY: SignedDuration = SignedDuration::from_secs(10);
/// How long it is not asked whether OTLP is taken after that failed.
const RETRY_OTLP: SignedDuration = SignedDuration::from_secs(60);
/// How often it is tried whether MLflow writes, while traces have stopped.
const TRIAL: SignedDuration = SignedDuration::from_secs(30);
/// The same once it did.
const TRIAL_WHEN_WELL: SignedDuration = SignedDuration::from_mins(5);

/// What is remembered between passes.
#[derive(Debug, Default)]
pub(super) struct TrackingState {
    evidence: evidence::EvidenceState,
    tracker: Option<Arc<Tracker>>,
}

impl Drop for TrackingState {
    /// Work that is under way holds the tracker for longer.
    fn drop(&mut self) {
        if let Some(tracker) = &self.tracker {
            tracker.state().client = None;
        }
    }
}

/// What is asked about.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub tracing: &'a AgentTracing,
    pub settings: &'a Settings,
    pub workloads: &'a [Assessment],
    pub old: &'a AgentTracingStatus,
    /// The MLflow that answers now.
    pub answered: Option<&'a MlflowStatus>,
}

/// What is known of it.
pub(super) struct Answers {
    /// Whether OTLP is taken at the tracking URI of a shared server; `None` where nobody could ask.
    pub takes_otlp: Option<bool>,
    pub experiments: Experiments,
    /// By uid of the workload.
    pub traces: BTreeMap<String, Evidence>,
    /// Whether MLflow writes, where there was cause to try.
    pub writes: Option<Writes>,
    /// When something is to be looked at again without an event, if at all.
    pub look_again: Option<Duration>,
}

/// What is known now of the workloads' experiments and traces. What was learnt earlier counts until there is a newer answer.
pub(super) async fn track(
    ctx: &Context,
    mlflow: Option<MlflowClient>,
    subject: Subject<'_>,
    memory: &mut TrackingState,
    now: Timestamp,
) -> Result<Answers, Error> {
    let tracker = memory.tracker.get_or_insert_with(|| ctx.trackers.add(reference(subject.tracing))).clone();
    let asks = mlflow.is_some();
    let client = mlflow.map(|mlflow| Client {
        gate: ctx.servers.gates.of(mlflow.tracking_uri()),
        asks_for_otlp: subject.settings.server.mode() == MlflowMode::Cr,
        restores_deleted: subject.settings.experiment.restore_deleted,
        mlflow,
    });
    // Whatever is noted from here on may come too late for this pass, and is then seen by the next.
    tracker.state().news = false;
    tracker.want_experiments(client, subject);
    tracker.catch_up(&ctx.trackers.tasks).await; // IO, for a moment
    let (ensured, anew) = tracker.experiments();
    if anew {
        memory.evidence.forget_answers(now);
    }
    let wanted = memory.evidence.interests(subject, &ensured, now);
    tracker.want_traces(wanted);
    tracker.catch_up(&ctx.trackers.tasks).await; // IO, for a moment
    let looked = tracker.looked();
    let found = memory.evidence.find(ctx, subject, &ensured, &looked, now).await?; // IO
    tracker.set_trial(found.stopped_in.filter(|_| asks));
    let state = tracker.state();
    Ok(Answers {
        takes_otlp: state.otlp.as_ref().filter(|_| asks).map(|(_, takes)| *takes),
        experiments: ensured.experiments,
        traces: found.evidence,
        writes: state.experiments.writes().or_else(|| state.trial.as_ref().and_then(|(_, writes)| writes.clone())),
        look_again: found.look_again,
    })
}

/// One question to MLflow.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Question {
    /// Whether OTLP is taken at the tracking URI.
    Otlp,
    /// An experiment by its name.
    Experiment(String),
    /// Which experiments were deleted last.
    Deleted,
    /// The newest traces of these experiments, of those that began after a moment.
    Newest { ids: Vec<String>, since: Option<Timestamp> },
    /// Whether the spans of an experiment's newest trace are there.
    Spans(String),
    /// When the traces of an experiment began.
    Rhythm(String),
    /// Whether MLflow writes a tag of an experiment.
    Trial(String),
}

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

#[derive(Debug, Default)]
struct State {
    client: Option<Client>,
    experiments: experiments::ExperimentCache,
    searches: Searches,
    /// Whether OTLP is taken, at which tracking URI.
    otlp: Option<(String, bool)>,
    /// The experiment by whose tag it is tried whether MLflow writes.
    trial_in: Option<String>,
    trial: Option<(Timestamp, Option<Writes>)>,
    /// The server has another database than before.
    anew: bool,
    /// An answer came that no pass has seen.
    news: bool,
    /// Nothing is asked before: the server does not answer.
    paused_until: Option<Timestamp>,
    /// When it may be asked again whether OTLP is taken.
    otlp_after: Option<Timestamp>,
    /// Questions that were not urgent: each class has its turn.
    turn: usize,
}

#[derive(Clone, Debug)]
struct Client {
    mlflow: MlflowClient,
    gate: Arc<Gate>,
    asks_for_otlp: bool,
    restores_deleted: bool,
}

impl Tracker {
    fn want_experiments(&self, client: Option<Client>, subject: Subject<'_>) {
        let mut state = self.state();
        state.client = client;
        state.experiments.want(subject);
    }

    fn experiments(&self) -> (experiments::Ensured, bool) {
        let mut state = self.state();
        (state.experiments.report(), std::mem::take(&mut state.anew))
    }

    fn want_traces(&self, interests: BTreeMap<String, searches::Interest>) {
        self.state().searches.want(interests);
    }

    fn looked(&self) -> BTreeMap<String, Looked> {
        self.state().searches.looked().clone()
    }

    fn set_trial(&self, experiment: Option<String>) {
        let mut state = self.state();
        if experiment.is_none() {
            state.trial = None;
        }
        state.trial_in = experiment;
    }

    /// Asks what is urgent, and waits a moment for it.
    async fn catch_up(self: &Arc<Self>, tasks: &Tasks) {
        if self.state().next(true, Timestamp::now()).is_none() {
            return;
        }
        let this = self.clone();
        tasks.spawn_and_wait(async move { this.work(true).await }, PATIENCE).await;
    }

    /// Asks all that is due, of one kind.
    async fn work(&self, urgent: bool) {
        let _one = if urgent { self.urgent.lock().await } else { self.calm.lock().await };
        let mut told = Instant::now();
        loop {
            let next = self.state().next(urgent, Timestamp::now());
            let Some((client, question)) = next else { break };
            // What is awaited is asked for again and again, and takes half of the server's time at most.
            let is_repeated = urgent && matches!(question, Question::Newest { since: Some(_), .. });
            let began = Instant::now();
            let asked = client.ask(question.clone());
            let answer = if urgent { client.gate.ask(asked).await } else { client.gate.ask_calmly(asked).await };
            if !self.state().note(question, answer, Timestamp::now(), &self.tracing) {
                self.servers.suspect(client.mlflow.tracking_uri());
                break;
            }
            if is_repeated {
                tokio::time::sleep(began.elapsed().min(LONGEST_REST)).await;
            }
            // Of a thousand experiments the first ones need not wait for the last.
            if told.elapsed() > PATIENCE {
                told = Instant::now();
                self.tell();
            }
        }
        self.tell();
    }

    /// Wakes the AgentTracing where there is something that no pass has seen.
    fn tell(&self) {
        if self.state().news {
            self.wakeups.add(self.tracing.clone());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What MLflow said.
enum Answer {
    Otlp(String, bool),
    Experiment(Result<mlflow::Experiment, mlflow::Error>),
    Deleted(Vec<String>),
    Newest(Vec<(String, mlflow::Trace)>),
    Spans(Option<mlflow::Trace>),
    Rhythm(Vec<Timestamp>),
    Trial(Result<(), mlflow::Error>),
}

impl Client {
    async fn ask(&self, question: Question) -> Result<Answer, mlflow::Error> {
        let mlflow = &self.mlflow;
        Ok(match question {
            Question::Otlp => Answer::Otlp(mlflow.tracking_uri().to_owned(), mlflow.takes_otlp().await?),
            Question::Experiment(name) => {
                Answer::Experiment(mlflow.ensure_experiment(&name, self.restores_deleted).await)
            }
            Question::Deleted => Answer::Deleted(mlflow.deleted_experiments(experiments::MOST_DELETED).await?),
            Question::Newest { ids, since } => {
                Answer::Newest(mlflow.newest_traces(&ids, since, searches::rows(&ids)).await?)
            }
            Question::Spans(id) => Answer::Spans(searches::newest(mlflow, &id, Timestamp::now()).await?),
            Question::Rhythm(id) => {
                Answer::Rhythm(mlflow.trace_times(&id, crate::core::workloads::rhythm::MAX_TRACES).await?)
            }
            Question::Trial(id) => Answer::Trial(mlflow.write_check(&id, &Timestamp::now().to_string()).await),
        })
    }
}

impl State {
    /// What is to be asked next, and of whom.
    fn next(&self, urgent: bool, now: Timestamp) -> Option<(Client, Question)> {
        let client = self.client.as_ref().filter(|_| !self.is_paused(now))?;
        let question = match urgent {
            true => self
                .experiments
                .next(true, now)
                .or_else(|| self.searches.next(true, now))
                .or_else(|| self.otlp(client, now)),
            false => {
                let classes: [&dyn Fn() -> Option<Question>; 3] =
                    [&|| self.searches.next(false, now), &|| self.experiments.next(false, now), &|| self.trial(now)];
                (0..classes.len()).find_map(|n| classes[(self.turn + n) % classes.len()]())
            }
        };
        Some((client.clone(), question?))
    }

    fn otlp(&self, client: &Client, now: Timestamp) -> Option<Question> {
        let at = client.mlflow.tracking_uri();
        let is_unknown = client.asks_for_otlp && self.otlp.as_ref().is_none_or(|(of, _)| of != at);
        (is_unknown && self.otlp_after.is_none_or(|after| now >= after)).then_some(Question::Otlp)
    }

    fn is_paused(&self, now: Timestamp) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    fn trial(&self, now: Timestamp) -> Option<Question> {
        let id = self.trial_in.clone()?;
        let interval = |writes: &Option<Writes>| if *writes == Some(Writes::Taken) { TRIAL_WHEN_WELL } else { TRIAL };
        let is_due = self.trial.as_ref().is_none_or(|(at, writes)| now.duration_since(*at) >= interval(writes));
        is_due.then_some(Question::Trial(id))
    }

    /// Notes an answer. Says whether there is sense in asking the next question.
    fn note(
        &mut self,
        question: Question,
        answer: Result<Answer, mlflow::Error>,
        now: Timestamp,
        tracing: &ObjectRef<Guarded>,
    ) -> bool {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(%tracing, ?question, %error, "failed to ask MLflow; trying again");
                return self.note_failure(question, &error, now);
            }
        };
        self.turn = self.turn.wrapping_add(1);
        match (question, answer) {
            (Question::Otlp, Answer::Otlp(at, takes)) => {
                self.otlp = Some((at, takes));
                self.news = true;
            }
            (Question::Experiment(name), Answer::Experiment(found)) => {
                let noted = self.experiments.note(&name, found, now, tracing);
                if noted.anew {
                    (self.anew, self.trial) = (true, None);
                    self.searches.forget();
                }
                self.news |= noted.news || noted.anew;
                if !noted.goes_on {
                    self.paused_until = now.checked_add(RETRY).ok();
                }
                return noted.goes_on;
            }
            (Question::Deleted, Answer::Deleted(ids)) => self.news |= self.experiments.note_deleted(ids, now),
            (Question::Newest { ids, since }, Answer::Newest(rows)) => {
                self.news |= self.searches.note_newest(&ids, since.is_some(), rows, now);
            }
            (Question::Spans(id), Answer::Spans(trace)) => self.news |= self.searches.note_spans(&id, trace, now),
            (Question::Rhythm(id), Answer::Rhythm(times)) => self.news |= self.searches.note_rhythm(&id, &times, now),
            (Question::Trial(id), Answer::Trial(answer)) => {
                if let Err(error) = &answer {
                    tracing::warn!(%tracing, id, %error, "MLflow does not take a write by way of trial");
                }
                let writes = writes(&answer);
                self.news |= self.trial.as_ref().is_none_or(|(_, before)| *before != writes);
                self.trial = Some((now, writes));
            }
            _ => {}
        }
        true
    }

    /// Notes that a question failed. One that fails by itself keeps no other from being asked; a server that does not answer is
    /// left alone for a while.
    fn note_failure(&mut self, question: Question, error: &mlflow::Error, now: Timestamp) -> bool {
        use mlflow::Error as E;
        self.turn = self.turn.wrapping_add(1);
        match &question {
            Question::Deleted => _ = self.experiments.note_deleted(Vec::new(), now),
            Question::Otlp => self.otlp_after = now.checked_add(RETRY_OTLP).ok(),
            Question::Newest { ids, .. } => self.searches.note_failure(ids, now),
            Question::Spans(id) => self.searches.put_off_spans(id),
            Question::Rhythm(id) => _ = self.searches.note_rhythm(id, &[], now),
            Question::Experiment(_) | Question::Trial(_) => {}
        }
        let answers = !matches!(
            error,
            E::Client(_)
                | E::Dns(_)
                | E::Refused(_)
                | E::Timeout
                | E::Tls(_)
                | E::Connection(_)
                | E::Unauthorized
                | E::Mesh
        );
        if !answers {
            self.paused_until = now.checked_add(RETRY).ok();
        }
        answers
    }
}

/// What an answer to a write says of the server. A refusal of ourselves says nothing of what agents write.
fn writes<T>(answer: &Result<T, mlflow::Error>) -> Option<Writes> {
    match answer {
        Ok(_) => Some(Writes::Taken),
        Err(mlflow::Error::StorageFull { .. }) => Some(Writes::Full),
        Err(error @ mlflow::Error::Server { status: 500.., .. }) => Some(Writes::Refused(error.to_string())),
        Err(error @ mlflow::Error::Rejected { code: Some(code), .. }) if code == experiments::UNKNOWN_TROUBLE => {
            Some(Writes::Refused(error.to_string()))
        }
        Err(_) => None,
    }
}

/// All trackers. Each lives as long as what is remembered of its AgentTracing.
#[derive(Debug)]
pub(super) struct Trackers {
    all: Mutex<HashMap<ObjectRef<Guarded>, Weak<Tracker>>>,
    wakeups: Arc<Wakeups>,
    servers: Arc<Servers>,
    tasks: Tasks,
}

impl Trackers {
    pub(super) fn new(wakeups: Arc<Wakeups>, servers: Arc<Servers>) -> Self {
        Self { all: Mutex::default(), wakeups, servers, tasks: Tasks::default() }
    }

    fn add(&self, tracing: ObjectRef<Guarded>) -> Arc<Tracker> {
        let (wakeups, servers) = (self.wakeups.clone(), self.servers.clone());
        let (urgent, calm, state) = Default::default();
        let tracker = Arc::new(Tracker { tracing: tracing.clone(), wakeups, servers, urgent, calm, state });
        self.all.lock().unwrap_or_else(PoisonError::into_inner).insert(tracing, Arc::downgrade(&tracker));
        tracker
    }

    /// Has every tracker ask what is due, for ever.
    pub(super) async fn run(&self) {
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
