//! The newest traces of wired workloads: whether they are of the current wiring, and whether they still come.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::experiments::{Ensured, ExperimentRef};
use super::{FAST_POLL, MAX_QUESTIONS, POLL, Question, writes};
use crate::api::{Reason, WorkloadState};
use crate::controller::key::WorkloadKey;
use crate::controller::{Context, Error, observe};
use crate::core::selection::kind::Kind;
use crate::core::status::writes::Writes;
use crate::core::workloads::evidence::{Earlier, Evidence, PodAges, should_send, start};
use crate::core::workloads::rhythm::{MAX_TRACES, MIN_SILENCE, has_stopped, usual_gap};
use crate::core::workloads::{Assessment, InjectionState, TraceDestination};
use crate::mlflow::{self, MlflowClient, Trace};

/// How long a first trace is awaited impatiently, from when the pods are up and at most from when the wiring was seen.
const FIRST_TRACE_FAST_POLL: SignedDuration = SignedDuration::from_mins(2);
const FIRST_TRACE_FAST_POLL_LIMIT: SignedDuration = SignedDuration::from_mins(15);
/// How long spans may come after their trace.
const SPANS_GRACE: SignedDuration = SignedDuration::from_mins(1);
/// How often it is tried whether MLflow writes, while traces have stopped.
const WRITE_CHECK: SignedDuration = SignedDuration::from_secs(30);
/// The same once it did.
const WRITE_CHECK_WHEN_WELL: SignedDuration = SignedDuration::from_mins(5);
/// Times of traces that are kept of the looks, and how far they are apart.
const SAMPLES: usize = 8;
const SAMPLE_INTERVAL: SignedDuration = SignedDuration::from_secs(20);

/// What is remembered between passes.
#[derive(Debug, Default)]
pub(super) struct TraceCache {
    /// By id of the experiment.
    looked: BTreeMap<String, TraceSearch>,
    wired: BTreeMap<WorkloadKey, Wired>,
    /// Workloads, whatever their wiring, that were wired in an earlier pass.
    known: BTreeSet<WorkloadKey>,
    seeded: bool,
    writes: Option<(Timestamp, Option<Writes>)>,
}

/// The last answer about an experiment. It counts until there is a newer one.
#[derive(Clone, Debug)]
struct TraceSearch {
    at: Timestamp,
    trace: Option<Trace>,
    /// When traces began that were the newest at earlier looks.
    samples: Vec<Timestamp>,
    /// The trace after which the rhythm was asked for, and the gap between those before it.
    rhythm: Option<(Timestamp, Option<SignedDuration>)>,
}

/// A workload's current wiring.
#[derive(Clone, Debug)]
struct Wired {
    seen: Timestamp,
    earlier: Earlier,
    /// From when on only pods with this wiring exist.
    since: Option<Timestamp>,
    received: Option<Timestamp>,
    /// When the pods were asked last, and on account of which trace.
    asked: Option<(Timestamp, Option<Timestamp>)>,
    /// Whether pods of an earlier wiring were there then.
    beside_earlier: bool,
    /// Where its traces were looked for.
    experiment: Option<ExperimentRef>,
}

/// What was found.
pub(super) struct Found {
    /// By uid of the workload.
    pub evidence: BTreeMap<String, Evidence>,
    pub writes: Option<Writes>,
    /// Whether a first trace is awaited.
    pub hurried: bool,
}

impl TraceCache {
    /// Another database: no answer of the one before counts, nor what the status of before a restart says of it.
    pub fn forget_answers(&mut self, now: Timestamp) {
        self.looked.clear();
        self.writes = None;
        for wired in self.wired.values_mut() {
            (wired.since, wired.received) = (wired.since.map(|since| since.max(now)), None);
        }
    }
}

/// Looks for the newest traces of the current workloads.
pub(super) async fn look(
    ctx: &Context,
    mlflow: Option<&MlflowClient>,
    question: Question<'_>,
    ensured: &Ensured,
    memory: &mut TraceCache,
    now: Timestamp,
) -> Result<Found, Error> {
    let current: Vec<_> = question.workloads.iter().filter(|j| j.injection_state == InjectionState::Current).collect();
    remember(memory, question, &current, now);
    let places: BTreeMap<&str, ExperimentRef> =
        current.iter().filter_map(|j| Some((j.uid.as_str(), place(j, ensured)?))).collect();
    let ids_of = |chosen: &dyn Fn(&Assessment, &Wired) -> bool| -> BTreeSet<String> {
        let wired = |j: &Assessment| memory.wired.get(&WorkloadKey::of_wiring(j));
        let all = current.iter().filter(|j| wired(j).is_some_and(|wired| chosen(j, wired)));
        all.filter_map(|j| places.get(j.uid.as_str())).map(|known| known.id.clone()).collect()
    };
    let wanted = ids_of(&|_, _| true);
    let hurried = ids_of(&|j, wired| is_awaited(j, wired, now));
    let rhythmic = ids_of(&|j, wired| wired.received.is_some() && should_send(j));
    memory.looked.retain(|id, _| wanted.contains(id));
    if let Some(mlflow) = mlflow {
        ask(mlflow, &wanted, &hurried, &rhythmic, memory, now).await; // IO
    }
    let mut evidence = BTreeMap::new();
    let mut pods_asked = 0;
    for workload in current {
        let Some(wired) = memory.wired.get_mut(&WorkloadKey::of_wiring(workload)) else { continue };
        let place = places.get(workload.uid.as_str());
        let looked = place.and_then(|known| memory.looked.get(&known.id));
        wired.note_place(place, now);
        if pods_asked < MAX_QUESTIONS && wired.needs_start(workload, looked.and_then(|l| l.trace), now) {
            pods_asked += 1;
            wired.find_start(ctx, question, workload, looked.and_then(|l| l.trace), now).await?; // IO
        }
        let found = match is_lost(workload, ensured) {
            true => wired.lose(),
            false => wired.assess(workload, looked, now),
        };
        evidence.insert(workload.uid.clone(), found);
    }
    let stopped = stopped_in(question.workloads, &places, &evidence);
    let writes = check_writes(mlflow, stopped, memory, now).await; // IO
    Ok(Found { evidence, writes, hurried: !hurried.is_empty() })
}

/// Where a workload's traces are looked for: never by an id that this MLflow has not shown under its name.
fn place(workload: &Assessment, ensured: &Ensured) -> Option<ExperimentRef> {
    match &workload.experiment {
        TraceDestination::Name(name) => ensured.verified.get(name).cloned(),
        TraceDestination::Id(id) => Some(ExperimentRef::by_id(id)),
        TraceDestination::Unknown => None,
    }
}

fn is_lost(workload: &Assessment, ensured: &Ensured) -> bool {
    let TraceDestination::Name(name) = &workload.experiment else { return false };
    ensured.experiments.problems.get(name).is_some_and(|(reason, _)| *reason == Reason::ExperimentDeleted)
}

/// Keeps one entry per current wiring; a changed one starts over.
fn remember(memory: &mut TraceCache, question: Question<'_>, current: &[&Assessment], now: Timestamp) {
    let Question { workloads, old, .. } = question;
    let first = !std::mem::replace(&mut memory.seeded, true);
    let keys: BTreeSet<WorkloadKey> = current.iter().map(|j| WorkloadKey::of_wiring(j)).collect();
    memory.wired.retain(|key, _| keys.contains(key));
    let exist: BTreeSet<WorkloadKey> = workloads.iter().map(|j| WorkloadKey::of(&j.uid)).collect();
    memory.known.retain(|key| exist.contains(key));
    for workload in current {
        let key = WorkloadKey::of_wiring(workload);
        let was_known = !memory.known.insert(WorkloadKey::of(&workload.uid));
        if memory.wired.contains_key(&key) {
            continue;
        }
        // After a restart the status tells what was seen of this wiring; the pods that sent it may be gone.
        let row = old
            .workloads
            .iter()
            .filter(|row| first && workload.rollout.complete && row.state == WorkloadState::Injected)
            .find(|row| row.kind == workload.listed_kind() && row.name == workload.name);
        let received = row.and_then(|w| w.last_trace_time.as_deref()?.parse().ok());
        let earlier = match (first, was_known) {
            (true, _) => Earlier::Unknown,
            (false, true) => Earlier::Replaced,
            (false, false) => Earlier::Never,
        };
        let wired = Wired {
            seen: now,
            earlier,
            since: received,
            received,
            asked: None,
            beside_earlier: false,
            experiment: None,
        };
        memory.wired.insert(key, wired);
    }
}

fn is_awaited(workload: &Assessment, wired: &Wired, now: Timestamp) -> bool {
    let up = workload.rollout.available_since.unwrap_or(now);
    wired.received.is_none()
        && now.duration_since(up) < FIRST_TRACE_FAST_POLL
        && now.duration_since(wired.seen) < FIRST_TRACE_FAST_POLL_LIMIT
}

impl Wired {
    /// A trace of another experiment, or of another database, is no evidence.
    fn note_place(&mut self, place: Option<&ExperimentRef>, now: Timestamp) {
        let Some(place) = place else { return };
        if self.experiment.as_ref().is_some_and(|known| !known.is_same(place)) {
            (self.since, self.received) = (self.since.map(|since| since.max(now)), None);
        }
        self.experiment = Some(place.clone());
    }

    /// The pods are asked when there is something to compare them with, and while those of an earlier wiring go: nobody tells
    /// afterwards when they went.
    fn needs_start(&self, workload: &Assessment, trace: Option<Trace>, now: Timestamp) -> bool {
        if self.since.is_some() {
            return false;
        }
        let newer = trace.is_some_and(|trace| self.asked.is_none_or(|(_, of)| of.is_none_or(|of| trace.time > of)));
        // A CronJob has no pods that go: those of its next run are of the current wiring.
        let goes = workload.rollout.replaces_pods() || workload.kind == Kind::CronJob;
        let going = self.earlier == Earlier::Replaced && goes;
        let again =
            |(at, _): (Timestamp, _)| now.duration_since(at).unsigned_abs() + Duration::from_secs(1) >= FAST_POLL;
        newer || (going && self.asked.is_none_or(again))
    }

    async fn find_start(
        &mut self,
        ctx: &Context,
        question: Question<'_>,
        workload: &Assessment,
        trace: Option<Trace>,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.asked = Some((now, trace.map(|trace| trace.time)));
        let namespace = &question.settings.namespace;
        let pods = match workload.kind {
            // Its template never changes, and its pods may be gone; Pods are their own template.
            Kind::Job | Kind::Pod => PodAges { oldest: workload.created, has_earlier: false },
            Kind::CronJob => {
                PodAges { oldest: Some(self.seen), ..observe::pod_ages(ctx, namespace, workload, now).await? }
            }
            _ => observe::pod_ages(ctx, namespace, workload, now).await?,
        };
        self.beside_earlier = pods.has_earlier;
        if pods.has_earlier {
            self.earlier = Earlier::Replaced;
        }
        self.since = start(workload.kind, pods, self.earlier, &workload.rollout, now);
        Ok(())
    }

    fn assess(&mut self, workload: &Assessment, looked: Option<&TraceSearch>, now: Timestamp) -> Evidence {
        let trace = looked.and_then(|looked| looked.trace);
        let of_this_wiring = |trace: &Trace| self.since.is_some_and(|since| trace.time >= since);
        if let Some(trace) = trace.filter(|trace| trace.has_spans && of_this_wiring(trace)) {
            self.received = self.received.max(Some(trace.time));
        }
        match (self.received, looked) {
            (Some(last), Some(looked)) if should_send(workload) && looked.has_stopped(last) => Evidence::Stopped(last),
            (Some(last), _) => Evidence::Received(last),
            (None, None) => Evidence::NotAsked,
            (None, Some(_)) if trace.is_some_and(|t| of_this_wiring(&t) && is_spanless(&t, now)) => {
                Evidence::WithoutSpans
            }
            // Traces come, and nobody can tell from which of its pods: a StatefulSet may keep some of the earlier wiring for good.
            (None, Some(_)) if self.beside_earlier && trace.is_some_and(|t| t.time >= self.seen) => Evidence::NotAsked,
            (None, Some(_)) => Evidence::Nothing,
        }
    }

    /// Its experiment is gone, and with it what was seen there.
    fn lose(&mut self) -> Evidence {
        (self.received, self.experiment) = (None, None);
        Evidence::NoExperiment
    }
}

impl TraceSearch {
    fn has_stopped(&self, last: Timestamp) -> bool {
        let newest = self.trace.map(|trace| trace.time);
        let of_newest = self.rhythm.filter(|(of, _)| Some(*of) == newest && *of == last);
        of_newest.and_then(|(_, gap)| gap).is_some_and(|gap| has_stopped(last, gap, self.at))
    }
}

fn is_spanless(trace: &Trace, now: Timestamp) -> bool {
    !trace.has_spans && trace.finished && now.duration_since(trace.time) > SPANS_GRACE
}

async fn ask(
    mlflow: &MlflowClient,
    wanted: &BTreeSet<String>,
    hurried: &BTreeSet<String>,
    rhythmic: &BTreeSet<String>,
    memory: &mut TraceCache,
    now: Timestamp,
) {
    let is_due = |id: &&String| {
        let rollout_strategy = if hurried.contains(*id) { FAST_POLL } else { POLL };
        // A pass may come a little early.
        memory
            .looked
            .get(*id)
            .is_none_or(|l| now.duration_since(l.at).unsigned_abs() + Duration::from_secs(1) >= rollout_strategy)
    };
    let mut due: Vec<_> = wanted.iter().filter(is_due).collect();
    due.sort_by_key(|id| (!hurried.contains(*id), memory.looked.get(*id).map(|l| l.at)));
    for id in due.into_iter().take(MAX_QUESTIONS) {
        let before = memory.looked.remove(id);
        match answer(mlflow, id, rhythmic.contains(id), before.clone(), now).await {
            Ok(looked) => {
                memory.looked.insert(id.clone(), looked);
            }
            Err(error) => {
                tracing::warn!(id, %error, "failed to look for traces; trying again");
                memory.looked.extend(before.map(|before| (id.clone(), before)));
                break;
            }
        }
    }
}

async fn answer(
    mlflow: &MlflowClient,
    id: &str,
    rhythmic: bool,
    before: Option<TraceSearch>,
    now: Timestamp,
) -> Result<TraceSearch, mlflow::Error> {
    let trace = newest(mlflow, id, now).await?;
    let (mut samples, mut rhythm) = before.map(|before| (before.samples, before.rhythm)).unwrap_or_default();
    if let Some(Trace { time, .. }) = trace {
        if samples.last().is_none_or(|last| time.duration_since(*last) >= SAMPLE_INTERVAL) {
            samples.push(time);
            let surplus = samples.len().saturating_sub(SAMPLES);
            samples.drain(..surplus);
        }
        // Asked once per silence.
        let quiet = rhythmic && now.duration_since(time) > MIN_SILENCE;
        if quiet && rhythm.is_none_or(|(of, _)| of != time) {
            let sent = mlflow.trace_times(id, MAX_TRACES).await?;
            rhythm = Some((time, [usual_gap(&sent), usual_gap(&samples)].into_iter().flatten().min()));
        }
    }
    Ok(TraceSearch { at: now, trace, samples, rhythm })
}

/// The newest trace or, where its spans may still be on their way, the newest of those that have had their time: of an agent
/// that is asked every few seconds the newest one is always too young to be told spanless.
async fn newest(mlflow: &MlflowClient, id: &str, now: Timestamp) -> Result<Option<Trace>, mlflow::Error> {
    let newest = mlflow.latest_trace(id, None).await?;
    match newest {
        Some(Trace { time, has_spans: false, .. }) if now.duration_since(time) <= SPANS_GRACE => {
            Ok(mlflow.latest_trace(id, Some(now - SPANS_GRACE)).await?.or(newest))
        }
        _ => Ok(newest),
    }
}

/// The experiment of the first workload whose traces have stopped.
fn stopped_in<'a>(
    workloads: &[Assessment],
    places: &'a BTreeMap<&str, ExperimentRef>,
    evidence: &BTreeMap<String, Evidence>,
) -> Option<&'a str> {
    let stopped = |j: &&Assessment| matches!(evidence.get(&j.uid), Some(Evidence::Stopped(_)));
    let first = workloads.iter().find(stopped)?;
    places.get(first.uid.as_str()).map(|known| known.id.as_str())
}

/// Tries whether MLflow writes, while traces have stopped: it reads from a full disk as ever.
async fn check_writes(
    mlflow: Option<&MlflowClient>,
    stopped: Option<&str>,
    memory: &mut TraceCache,
    now: Timestamp,
) -> Option<Writes> {
    let Some(id) = stopped else {
        memory.writes = None;
        return None;
    };
    let rollout_strategy =
        |writes: &Option<Writes>| if *writes == Some(Writes::Taken) { WRITE_CHECK_WHEN_WELL } else { WRITE_CHECK };
    let is_due = memory.writes.as_ref().is_none_or(|(at, writes)| now.duration_since(*at) >= rollout_strategy(writes));
    if let Some(mlflow) = mlflow.filter(|_| is_due) {
        let answer = mlflow.write_check(id, &now.to_string()).await;
        if let Err(error) = &answer {
            tracing::warn!(id, %error, "MLflow does not take a write by way of trial");
        }
        memory.writes = Some((now, writes(&answer)));
    }
    memory.writes.as_ref().and_then(|(_, writes)| writes.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::selection::kind::Kind;
    use crate::core::workloads::tests::injection_state;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn replaced() -> Wired {
        Wired {
            seen: at(0),
            earlier: Earlier::Replaced,
            since: None,
            received: None,
            asked: None,
            beside_earlier: false,
            experiment: None,
        }
    }

    fn looked(second: i64) -> TraceSearch {
        let trace = Trace { time: at(second), has_spans: true, finished: true };
        TraceSearch { at: at(second), trace: Some(trace), samples: Vec::new(), rhythm: None }
    }

    /// Asked only when its trace had come, it began after that trace, and the run was told to have left none.
    #[test]
    fn a_cron_job_that_was_wired_anew_begins_at_once() {
        let nightly = Assessment { kind: Kind::CronJob, ..injection_state("nightly", InjectionState::Current) };
        assert!(replaced().needs_start(&nightly, None, at(0)));
    }

    /// A StatefulSet with a partition keeps pods of the earlier wiring for good.
    #[test]
    fn traces_beside_pods_of_an_earlier_wiring_are_neither_evidence_nor_missing() {
        let ledger = injection_state("ledger", InjectionState::Current);
        let mut beside = Wired { beside_earlier: true, ..replaced() };
        assert_eq!(beside.assess(&ledger, Some(&looked(5)), at(9)), Evidence::NotAsked);
        assert_eq!(beside.assess(&ledger, Some(&looked(-5)), at(9)), Evidence::Nothing, "none came since");
        assert_eq!(replaced().assess(&ledger, Some(&looked(5)), at(9)), Evidence::Nothing);
    }

    /// Operator and MLflow were restarted together, and MLflow came back empty.
    #[test]
    fn another_database_takes_what_the_status_said_of_traces() {
        let mut memory = TraceCache::default();
        let ledger = injection_state("ledger", InjectionState::Current);
        let wired = Wired { since: Some(at(0)), received: Some(at(5)), ..replaced() };
        memory.wired.insert(WorkloadKey::of_wiring(&ledger), wired);
        memory.forget_answers(at(9));
        let wired = memory.wired.values_mut().next().unwrap();
        assert_eq!(wired.assess(&ledger, Some(&looked(5)), at(9)), Evidence::Nothing);
        assert_eq!(wired.assess(&ledger, Some(&looked(10)), at(12)), Evidence::Received(at(10)));
    }
}
