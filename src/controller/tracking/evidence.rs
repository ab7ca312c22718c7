//! What the newest traces say of the workloads: whether they are of the current wiring, and whether they still come.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use jiff::{SignedDuration, Timestamp};

use super::Subject;
use super::experiments::{ExperimentRef, KnownExperiments};
use super::searches::{Interest, Look, SPANS_LATE};
use crate::api::{Reason, WorkloadState};
use crate::controller::workload_key::WorkloadKey;
use crate::controller::{Context, Error, observe};
use crate::core::relay::report::{RelayReport, RelayRoute};
use crate::core::selection::kind::Kind;
use crate::core::status::{SILENCE_SECONDS, SILENCE_SECONDS_AFTER_END, stopped_at};
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
    /// The first pass found another database than the one that the status speaks of.
    distrusts_status: bool,
}

/// A workload's current wiring.
#[derive(Clone, Debug)]
struct Wired {
    seen: Timestamp,
    earlier: Earlier,
    /// From when on only pods with this wiring exist.
    since: Option<Timestamp>,
    received: Option<Timestamp>,
    /// The last trace, where the status of before a restart says that traces have stopped after it: only a newer one ends that.
    stopped_at: Option<Timestamp>,
    /// When the pods were asked last, and on account of which trace.
    last_look: Option<(Timestamp, Option<Timestamp>)>,
    /// Whether pods of an earlier wiring were there then.
    beside_earlier: bool,
    /// Where its traces were looked for.
    experiment: Option<ExperimentRef>,
}

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    /// By uid of the workload.
    pub evidence: BTreeMap<String, Evidence>,
    /// Whether the traces of some workload have stopped.
    pub have_stopped: bool,
    /// The experiment of the first of them, where it is known.
    pub stopped_in: Option<String>,
    /// When it is to be looked again without an event.
    pub look_again: Option<Duration>,
}

impl EvidenceState {
    /// Another database: nothing counts that the one before said, nor what the status of before a restart says of it.
    pub fn forget_answers(&mut self, now: Timestamp) {
        self.distrusts_status = true;
        for wired in self.wired.values_mut() {
            wired.forget_traces(now);
        }
    }

    /// In which experiments traces are to be looked for, and how eagerly.
    pub fn interests(
        &mut self,
        subject: Subject<'_>,
        known: &KnownExperiments,
        now: Timestamp,
    ) -> BTreeMap<String, Interest> {
        let current: Vec<_> = current(subject.workloads).collect();
        remember(self, subject, &current, now);
        let mut interests: BTreeMap<String, Interest> = BTreeMap::new();
        for workload in current {
            let wired = self.wired.get(&WorkloadKey::of_wiring(workload));
            let (Some(wired), Some(place)) = (wired, place(workload, known)) else { continue };
            // MLflow is not asked what the relay knows.
            if relay_look(workload, subject.report).is_some() {
                continue;
            }
            let interest = interests.entry(place.id).or_default();
            interest.awaited |= wired.is_awaited(workload, now);
            // One without pods sends nothing that could prove it.
            let sends = !workload.kind.rolls() || workload.rollout.wanted > 0;
            interest.unproven |= wired.received.is_none() && sends;
            interest.stopped |= wired.stopped_at.is_some();
            interest.rhythmic |= wired.received.is_some() && should_send(workload);
        }
        interests
    }

    /// What the answers say of each workload. Its pods are looked at where that depends on them.
    pub async fn find(
        &mut self,
        ctx: &Context,
        subject: Subject<'_>,
        known: &KnownExperiments,
        looks: &BTreeMap<String, Look>,
        now: Timestamp,
    ) -> Result<Found, Error> {
        let places: BTreeMap<&str, ExperimentRef> =
            current(subject.workloads).filter_map(|j| Some((j.uid.as_str(), place(j, known)?))).collect();
        let searched = |workload: &Assessment| places.get(workload.uid.as_str()).and_then(|known| looks.get(&known.id));
        let answer = |workload: &Assessment| match relay_look(workload, subject.report) {
            Some(look) => Some(Cow::Owned(look)),
            None => searched(workload).map(Cow::Borrowed),
        };
        for workload in current(subject.workloads) {
            if let Some(wired) = self.wired.get_mut(&WorkloadKey::of_wiring(workload)) {
                wired.note_place(places.get(workload.uid.as_str()), now);
            }
        }
        let trace = |workload: &Assessment| answer(workload).and_then(|look| look.trace);
        let more = self.find_starts(ctx, subject, trace, now).await?; // IO
        let mut found = Found { look_again: more.then_some(FAST_POLL), ..Found::default() };
        for workload in current(subject.workloads) {
            let Some(wired) = self.wired.get_mut(&WorkloadKey::of_wiring(workload)) else { continue };
            let look = answer(workload);
            let waits = relayed(workload, subject.report).and_then(|(route, report)| report.waits(route));
            let evidence = match waits {
                None if is_lost(workload, known) => wired.lose(),
                None => wired.assess(workload, look.as_deref(), now),
                Some(cause) => wired.assess(workload, look.as_deref(), now).of_held(cause),
            };
            if matches!(evidence, Evidence::Stopped(_)) {
                found.have_stopped = true;
                let place = || places.get(workload.uid.as_str()).map(|known| known.id.clone());
                found.stopped_in = found.stopped_in.or_else(place);
            }
            let goes = wired.goes(workload).then_some(FAST_POLL);
            // Spans that are late are told after a minute.
            let bare = look.and_then(|look| look.trace).filter(|trace| !trace.has_spans);
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
fn place(workload: &Assessment, known: &KnownExperiments) -> Option<ExperimentRef> {
    match &workload.experiment {
        TraceDestination::Name(name) => known.verified.get(name).cloned(),
        TraceDestination::Id(id) => Some(ExperimentRef::by_id(id)),
        TraceDestination::Unknown => None,
    }
}

/// The way of a workload to a relay that answers.
fn relayed<'s>(workload: &'s Assessment, report: Option<&'s RelayReport>) -> Option<(&'s RelayRoute, &'s RelayReport)> {
    workload.relay.as_deref().zip(report)
}

/// What the relay knows of a workload's traces, where it is the one to know.
fn relay_look(workload: &Assessment, report: Option<&RelayReport>) -> Option<Look> {
    let (route, report) = relayed(workload, report)?;
    report.answer(route).map(|known| Look::of_relay(&known, report.at))
}

fn is_lost(workload: &Assessment, known: &KnownExperiments) -> bool {
    let TraceDestination::Name(name) = &workload.experiment else { return false };
    known.experiments.problems.get(name).is_some_and(|(reason, _)| *reason == Reason::ExperimentDeleted)
}

/// Keeps one entry per current wiring; a changed one starts over.
fn remember(state: &mut EvidenceState, subject: Subject<'_>, current: &[&Assessment], now: Timestamp) {
    let Subject { workloads, old, .. } = subject;
    let first = !std::mem::replace(&mut state.seeded, true);
    let keys: BTreeSet<WorkloadKey> = current.iter().map(|j| WorkloadKey::of_wiring(j)).collect();
    state.wired.retain(|key, _| keys.contains(key));
    let exist: BTreeSet<WorkloadKey> = workloads.iter().map(|j| WorkloadKey::of(&j.uid)).collect();
    state.known.retain(|key| exist.contains(key));
    for workload in current {
        let key = WorkloadKey::of_wiring(workload);
        let was_known = !state.known.insert(WorkloadKey::of(&workload.uid));
        if state.wired.contains_key(&key) {
            continue;
        }
        // After a restart the status tells what was seen of this wiring; the pods that sent it may be gone.
        let row = old
            .workloads
            .iter()
            .filter(|row| {
                first && !state.distrusts_status && workload.rollout.complete && row.state == WorkloadState::Injected
            })
            .find(|row| row.kind == workload.listed_kind() && row.name == workload.name);
        let stopped_at = row.and_then(stopped_at);
        // Newer times are not written at once.
        let received = row.and_then(|w| w.last_trace_time.as_deref()?.parse().ok()).max(stopped_at);
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
            stopped_at,
            last_look: None,
            beside_earlier: false,
            experiment: None,
        };
        state.wired.insert(key, wired);
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
            self.forget_traces(now);
        }
        self.experiment = Some(place.clone());
    }

    /// Traces of before are no evidence any more.
    fn forget_traces(&mut self, now: Timestamp) {
        (self.since, self.received, self.stopped_at) = (self.since.map(|since| since.max(now)), None, None);
    }

    /// The pods are asked when there is something to compare them with, and while those of an earlier wiring go: nobody tells
    /// afterwards when they went.
    fn needs_start(&self, workload: &Assessment, trace: Option<Trace>, now: Timestamp) -> bool {
        if self.since.is_some() {
            return false;
        }
        let newer = trace.is_some_and(|trace| self.last_look.is_none_or(|(_, of)| of.is_none_or(|of| trace.time > of)));
        let again =
            |(at, _): (Timestamp, _)| now.duration_since(at).unsigned_abs() + Duration::from_secs(1) >= FAST_POLL;
        newer || (self.goes(workload) && self.last_look.is_none_or(again))
    }

    fn note_pods(&mut self, workload: &Assessment, pods: PodAges, trace: Option<Trace>, now: Timestamp) {
        self.last_look = Some((now, trace.map(|trace| trace.time)));
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

    fn assess(&mut self, workload: &Assessment, look: Option<&Look>, now: Timestamp) -> Evidence {
        let trace = look.and_then(|look| look.trace);
        let of_this_wiring = |trace: &Trace| self.since.is_some_and(|since| trace.time >= since);
        if let Some(trace) = trace.filter(|trace| trace.has_spans && of_this_wiring(trace)) {
            self.received = self.received.max(Some(trace.time));
        }
        self.stopped_at.take_if(|at| self.received.is_some_and(|last| last > *at));
        match (self.received, look) {
            (Some(last), _) if should_send(workload) && self.stopped_at.is_some() => Evidence::Stopped(last),
            (Some(last), Some(look)) if should_send(workload) && look.has_stopped(last) => Evidence::Stopped(last),
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
        (self.received, self.stopped_at, self.experiment) = (None, None, None);
        Evidence::NoExperiment
    }
}

fn is_spanless(trace: &Trace, now: Timestamp) -> bool {
    !trace.has_spans && trace.finished && now.duration_since(trace.time) > SPANS_LATE
}

#[cfg(test)]
mod tests;
