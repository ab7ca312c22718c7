//! What the newest traces say of the workloads: whether they are of the current wiring, and whether they still come.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use jiff::{SignedDuration, Timestamp};

use super::Subject;
use super::experiments::{Ensured, ExperimentRef};
use super::searches::{Interest, Looked, SPANS_LATE};
use crate::api::{Reason, WorkloadState};
use crate::controller::workload_key::WorkloadKey;
use crate::controller::{Context, Error, observe};
use crate::core::selection::kind::Kind;
use crate::core::status::{SILENCE_SECONDS, SILENCE_SECONDS_AFTER_END};
use crate::core::workloads::evidence::{Earlier, Evidence, PodAges, should_send, start};
use crate::core::workloads::{Assessment, InjectionState, TraceDestination};
use crate::mlflow::Trace;

/// How long a first trace is awaited impatiently.
const IMPATIENCE: SignedDuration = SignedDuration::from_mins(15);
/// Workloads whose pods are looked at in one pass, and how many at a time.
const MOST_LOOKS: usize = 100;
const AT_A_TIME: usize = 8;
/// How soon pods of an earlier wiring are looked at again, and pods of Jobs that are at work.
const FAST_POLL: Duration = Duration::from_secs(5);
const JOBS: Duration = Duration::from_secs(30);
/// After which time silence is told.
const SILENCE: SignedDuration = SignedDuration::from_secs(SILENCE_SECONDS);
const SILENCE_AFTER_END: SignedDuration = SignedDuration::from_secs(SILENCE_SECONDS_AFTER_END);

/// What is remembered between passes.
#[derive(Debug, Default)]
pub(super) struct EvidenceState {
    wired: BTreeMap<WorkloadKey, Wired>,
    /// Workloads, whatever their wiring, that were wired in an earlier pass.
    known: BTreeSet<WorkloadKey>,
    seeded: bool,
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
    /// The experiment of the first workload whose traces have stopped.
    pub stopped_in: Option<String>,
    /// When it is to be looked again without an event.
    pub look_again: Option<Duration>,
}

impl EvidenceState {
    /// Another database: nothing counts that the one before said, nor what the status of before a restart says of it.
    pub fn forget_answers(&mut self, now: Timestamp) {
        for wired in self.wired.values_mut() {
            (wired.since, wired.received) = (wired.since.map(|since| since.max(now)), None);
        }
    }

    /// In which experiments traces are to be looked for, and how eagerly.
    pub fn interests(&mut self, subject: Subject<'_>, ensured: &Ensured, now: Timestamp) -> BTreeMap<String, Interest> {
        let current: Vec<_> = current(subject.workloads).collect();
        remember(self, subject, &current, now);
        let mut interests: BTreeMap<String, Interest> = BTreeMap::new();
        for workload in current {
            let (Some(wired), Some(place)) =
                (self.wired.get(&WorkloadKey::of_wiring(workload)), place(workload, ensured))
            else {
                continue;
            };
            let interest = interests.entry(place.id).or_default();
            interest.awaited |= wired.is_awaited(workload, now);
            // One without pods sends nothing that could prove it.
            let sends = !workload.kind.rolls() || workload.rollout.wanted > 0;
            interest.unproven |= wired.received.is_none() && sends;
            interest.rhythmic |= wired.received.is_some() && should_send(workload);
        }
        interests
    }

    /// What the answers say of each workload. Its pods are looked at where that depends on them.
    pub async fn find(
        &mut self,
        ctx: &Context,
        subject: Subject<'_>,
        ensured: &Ensured,
        looked: &BTreeMap<String, Looked>,
        now: Timestamp,
    ) -> Result<Found, Error> {
        let places: BTreeMap<&str, ExperimentRef> =
            current(subject.workloads).filter_map(|j| Some((j.uid.as_str(), place(j, ensured)?))).collect();
        let answer = |workload: &Assessment| places.get(workload.uid.as_str()).and_then(|known| looked.get(&known.id));
        for workload in current(subject.workloads) {
            if let Some(wired) = self.wired.get_mut(&WorkloadKey::of_wiring(workload)) {
                wired.note_place(places.get(workload.uid.as_str()), now);
            }
        }
        let trace = |workload: &Assessment| answer(workload).and_then(|looked| looked.trace);
        let more = self.find_starts(ctx, subject, trace, now).await?; // IO
        let mut found = Found { evidence: BTreeMap::new(), stopped_in: None, look_again: more.then_some(FAST_POLL) };
        for workload in current(subject.workloads) {
            let Some(wired) = self.wired.get_mut(&WorkloadKey::of_wiring(workload)) else { continue };
            let evidence = match is_lost(workload, ensured) {
                true => wired.lose(),
                false => wired.assess(workload, answer(workload), now),
            };
            if matches!(evidence, Evidence::Stopped(_)) && found.stopped_in.is_none() {
                found.stopped_in = places.get(workload.uid.as_str()).map(|known| known.id.clone());
            }
            let goes = wired.goes(workload).then_some(FAST_POLL);
            // Spans that are late are told after a minute.
            let bare = answer(workload).and_then(|looked| looked.trace).filter(|trace| !trace.has_spans);
            let late = bare.and_then(|trace| until(trace.time + SPANS_LATE, now));
            let is_silent = matches!(evidence, Evidence::Nothing | Evidence::NotAsked);
            let silence = is_silent.then(|| until_silence(workload, now)).flatten();
            found.look_again = [found.look_again, goes, late, silence].into_iter().flatten().min();
            found.evidence.insert(workload.uid.clone(), evidence);
        }
        Ok(found)
    }

    /// Looks at the pods of those whose wiring has no start yet. Says whether there are more.
    async fn find_starts(
        &mut self,
        ctx: &Context,
        subject: Subject<'_>,
        trace: impl Fn(&Assessment) -> Option<Trace>,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let due = current(subject.workloads).filter_map(|workload| {
            let (key, trace) = (WorkloadKey::of_wiring(workload), trace(workload));
            self.wired.get(&key)?.needs_start(workload, trace, now).then_some((key, workload, trace))
        });
        let due: Vec<_> = due.collect();
        let namespace = &subject.settings.namespace;
        let looks = due.iter().take(MOST_LOOKS).map(|&(key, workload, trace)| {
            let look = async move {
                let pods = match workload.kind {
                    // Its template never changes, and its pods may be gone; Pods are their own template.
                    Kind::Job | Kind::Pod => PodAges { oldest: workload.created, has_earlier: false },
                    _ => observe::pod_ages(ctx, namespace, workload, now).await?,
                };
                Ok::<_, Error>((key, workload, trace, pods))
            };
            look.boxed()
        });
        let looks: Vec<_> = looks.collect();
        let mut found = stream::iter(looks).buffer_unordered(AT_A_TIME);
        while let Some(one) = found.next().await {
            let (key, workload, trace, pods) = one?;
            if let Some(wired) = self.wired.get_mut(&key) {
                wired.note_pods(workload, pods, trace, now);
            }
        }
        Ok(due.len() > MOST_LOOKS)
    }
}

/// How long until a moment, and a second more; `None` where it has passed.
fn until(moment: Timestamp, now: Timestamp) -> Option<Duration> {
    let left = Duration::try_from(moment.duration_since(now)).ok()?;
    Some(left + Duration::from_secs(1))
}

/// When it is to be said that a workload without a trace is silent: no event tells that time has passed.
fn until_silence(workload: &Assessment, now: Timestamp) -> Option<Duration> {
    let up = workload.rollout.available_since.map(|up| up + SILENCE);
    let ended = workload.ended.map(|ended| ended + SILENCE_AFTER_END);
    // A Job whose pods wait for our init container never becomes available.
    let jobs = (workload.merge_ca.present && !workload.jobs.is_empty()).then_some(JOBS);
    [up.and_then(|at| until(at, now)), ended.and_then(|at| until(at, now)), jobs].into_iter().flatten().min()
}

fn current(workloads: &[Assessment]) -> impl Iterator<Item = &Assessment> {
    workloads.iter().filter(|assessment| assessment.injection_state == InjectionState::Current)
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
fn remember(memory: &mut EvidenceState, subject: Subject<'_>, current: &[&Assessment], now: Timestamp) {
    let Subject { workloads, old, .. } = subject;
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

impl Wired {
    fn is_awaited(&self, workload: &Assessment, now: Timestamp) -> bool {
        // One that was scaled up later is asked then; of one that was there when the operator began to look, the wiring is older.
        let up = workload.rollout.available_since;
        let since = match self.earlier {
            Earlier::Unknown => up,
            Earlier::Never | Earlier::Replaced => Some(up.map_or(self.seen, |up| up.max(self.seen))),
        };
        self.received.is_none() && since.is_some_and(|since| now.duration_since(since) < IMPATIENCE)
    }

    /// Whether pods of an earlier wiring may still be going. A CronJob has none that go: those of its next run are of the current
    /// wiring.
    fn goes(&self, workload: &Assessment) -> bool {
        let replaces = workload.rollout.replaces_pods() || workload.kind == Kind::CronJob;
        self.since.is_none() && self.earlier == Earlier::Replaced && replaces
    }

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
        let again =
            |(at, _): (Timestamp, _)| now.duration_since(at).unsigned_abs() + Duration::from_secs(1) >= FAST_POLL;
        newer || (self.goes(workload) && self.asked.is_none_or(again))
    }

    fn note_pods(&mut self, workload: &Assessment, pods: PodAges, trace: Option<Trace>, now: Timestamp) {
        self.asked = Some((now, trace.map(|trace| trace.time)));
        let pods = match workload.kind {
            Kind::CronJob => PodAges { oldest: Some(self.seen), ..pods },
            _ => pods,
        };
        self.beside_earlier = pods.has_earlier;
        if pods.has_earlier {
            self.earlier = Earlier::Replaced;
        }
        self.since = start(workload.kind, pods, self.earlier, &workload.rollout, now);
    }

    fn assess(&mut self, workload: &Assessment, looked: Option<&Looked>, now: Timestamp) -> Evidence {
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

fn is_spanless(trace: &Trace, now: Timestamp) -> bool {
    !trace.has_spans && trace.finished && now.duration_since(trace.time) > SPANS_LATE
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

    fn looked(second: i64) -> Looked {
        let trace = Trace { time: at(second), has_spans: true, finished: true };
        Looked::found(trace)
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
        let mut memory = EvidenceState::default();
        let ledger = injection_state("ledger", InjectionState::Current);
        let wired = Wired { since: Some(at(0)), received: Some(at(5)), ..replaced() };
        memory.wired.insert(WorkloadKey::of_wiring(&ledger), wired);
        memory.forget_answers(at(9));
        let wired = memory.wired.values_mut().next().unwrap();
        assert_eq!(wired.assess(&ledger, Some(&looked(5)), at(9)), Evidence::Nothing);
        assert_eq!(wired.assess(&ledger, Some(&looked(10)), at(12)), Evidence::Received(at(10)));
    }
}
