//! The newest traces of experiments, asked for many experiments at a time. Those that somebody waits for come first, and often;
//! where traces came, it is looked again every five minutes.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::Question;
use crate::core::relay::report::SenderReport;
use crate::core::workloads::rhythm::{MIN_SILENCE, has_stopped, usual_gap};
use crate::mlflow::{self, MlflowClient, Trace};

/// How often it is looked: where a first trace is awaited, where none came for long, where they stopped, where they come.
const AWAITED: SignedDuration = SignedDuration::from_secs(5);
const SILENT: SignedDuration = SignedDuration::from_secs(30);
const STOPPED: SignedDuration = SignedDuration::from_secs(60);
const RECEIVED: SignedDuration = SignedDuration::from_mins(5);
/// How long spans may come after their trace.
pub(super) const SPANS_LATE: SignedDuration = SignedDuration::from_mins(1);
/// A trace is stored when it has ended, and found by when it began: one that takes longer than this is found late.
const LONGEST_TRACE: SignedDuration = SignedDuration::from_hours(6);
/// After so long a silence nobody asks whether it is strange.
const LONGEST_SILENCE: SignedDuration = SignedDuration::from_hours(24);
/// How long an experiment without a rhythm is not asked for one again.
const IRREGULAR: SignedDuration = SignedDuration::from_hours(1);
/// Experiments of one question, and traces of one answer: one is some kilobytes.
const MOST_EXPERIMENTS: usize = 100;
const MOST_ROWS: usize = 50;
/// Times of traces that are kept of the looks, and how far they are apart.
const SAMPLES: usize = 8;
const SAMPLED: SignedDuration = SignedDuration::from_secs(20);

/// What is wanted of an experiment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Interest {
    /// Some workload waits for its first trace, and has not done so for long.
    pub awaited: bool,
    /// Some workload has none with spans yet.
    pub unproven: bool,
    /// Silence would be strange.
    pub rhythmic: bool,
    /// The status of before a restart says that traces have stopped.
    pub stopped: bool,
}

/// The last answer about an experiment. It counts until there is a newer one.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub at: Timestamp,
    pub trace: Option<Trace>,
    /// When the newest trace began, whether or not its spans were looked for.
    newest: Option<Timestamp>,
    /// Whether it is still to be asked for the spans of the newest trace.
    spans_due: bool,
    /// When it was found that no rhythm is there.
    irregular_at: Option<Timestamp>,
    /// When traces began that were the newest at earlier looks.
    samples: Vec<Timestamp>,
    /// The trace after which the rhythm was asked for, and the gap between those before it.
    rhythm: Option<(Timestamp, Option<SignedDuration>)>,
}

impl Look {
    fn new(at: Timestamp) -> Self {
        Self { at, trace: None, newest: None, spans_due: false, irregular_at: None, samples: Vec::new(), rhythm: None }
    }

    /// What the relay knows of a workload, in place of a search.
    pub fn of_relay(known: &SenderReport, at: Timestamp) -> Self {
        // The relay answers an agent once its spans are safe, so that what MLflow took has them.
        let trace = known.last_forwarded.map(|time| Trace { time, has_spans: true, finished: true });
        let rhythm = known.last_forwarded.map(|time| (time, known.usual_gap));
        Self { trace, newest: known.last_forwarded, rhythm, ..Self::new(at) }
    }

    /// For tests: one that found this trace.
    #[cfg(test)]
    pub fn found(trace: Trace) -> Self {
        Self { trace: Some(trace), newest: Some(trace.time), ..Self::new(trace.time) }
    }

    /// Whether traces have stopped, of which the last began then.
    pub fn has_stopped(&self, last: Timestamp) -> bool {
        let newest = self.trace.map(|trace| trace.time);
        let of_newest = self.rhythm.filter(|(of, _)| Some(*of) == newest && *of == last);
        of_newest.and_then(|(_, gap)| gap).is_some_and(|gap| has_stopped(last, gap, self.at))
    }

    fn is_stopped(&self) -> bool {
        self.trace.is_some_and(|trace| self.has_stopped(trace.time))
    }

    /// Whether nothing will be learnt any more by asking for the spans of this trace.
    fn is_settled(&self) -> bool {
        self.trace.is_none_or(|t| t.has_spans || (t.finished && self.at.duration_since(t.time) > SPANS_LATE))
    }

    fn sample(&mut self, time: Timestamp) {
        if self.samples.last().is_none_or(|last| time.duration_since(*last) >= SAMPLED) {
            self.samples.push(time);
            let surplus = self.samples.len().saturating_sub(SAMPLES);
            self.samples.drain(..surplus);
        }
    }
}

/// All experiments of an AgentTracing in which traces are looked for, by id.
#[derive(Debug, Default)]
pub(super) struct Searches {
    wanted: BTreeMap<String, Interest>,
    /// Passes read it while it changes: a copy is made only then.
    looks: Arc<BTreeMap<String, Look>>,
    /// Experiments of one question, where those of [`MOST_EXPERIMENTS`] fail.
    at_once: Option<usize>,
}

impl Searches {
    pub fn want(&mut self, wanted: BTreeMap<String, Interest>) {
        if self.looks.keys().any(|id| !wanted.contains_key(id)) {
            Arc::make_mut(&mut self.looks).retain(|id, _| wanted.contains_key(id));
        }
        self.wanted = wanted;
    }

    pub fn looks(&self) -> Arc<BTreeMap<String, Look>> {
        self.looks.clone()
    }

    /// No answer counts any more.
    pub fn forget(&mut self) {
        self.looks = Arc::default();
    }

    /// What is to be asked next. Urgent is what nobody has looked for yet, the proof of a trace that came, and what is awaited.
    pub fn next(&self, urgent: bool, now: Timestamp) -> Option<Question> {
        let of_class = || self.wanted.iter().filter(move |(_, interest)| interest.awaited == urgent);
        let known = |(id, interest)| Some((id, interest, self.looks.get(id)?));
        let spans = || self.looks.iter().find(|(_, look)| look.spans_due);
        if let Some((id, _)) = urgent.then(spans).flatten() {
            return Some(Question::Spans(id.clone()));
        }
        let at_once = self.at_once.unwrap_or(MOST_EXPERIMENTS);
        if urgent {
            let new = self.wanted.keys().filter(|id| !self.looks.contains_key(*id));
            let ids: Vec<_> = new.take(at_once).cloned().collect();
            if !ids.is_empty() {
                return Some(Question::Newest { ids, since: None });
            }
        }
        let is_due = |(_, interest, look): &(&String, &Interest, &Look)| {
            // The clock that wakes us is no better than a second.
            now.duration_since(look.at) + SignedDuration::from_secs(1) >= interval(interest, look)
        };
        let mut due: Vec<_> = of_class().filter_map(known).filter(is_due).collect();
        due.sort_by_key(|(_, _, look)| look.at);
        due.truncate(at_once);
        let Some(since) = due.first().map(|(_, _, look)| look.at - LONGEST_TRACE) else {
            return if urgent { None } else { self.rhythm(now) };
        };
        Some(Question::Newest { ids: due.into_iter().map(|(id, ..)| id.clone()).collect(), since: Some(since) })
    }

    /// An experiment whose silence may be strange, once for each silence, and not where there was no rhythm lately.
    fn rhythm(&self, now: Timestamp) -> Option<Question> {
        let is_due = |(id, interest): &(&String, &Interest)| {
            let Some(look) = self.looks.get(*id).filter(|_| interest.rhythmic) else { return false };
            let silence = |trace: &Trace| look.at.duration_since(trace.time);
            let quiet = look.trace.filter(|t| silence(t) > MIN_SILENCE && silence(t) < LONGEST_SILENCE);
            let was_irregular = look.irregular_at.is_some_and(|at| now.duration_since(at) < IRREGULAR);
            quiet.is_some_and(|trace| look.rhythm.is_none_or(|(of, _)| of != trace.time)) && !was_irregular
        };
        self.wanted.iter().find(is_due).map(|(id, _)| Question::Rhythm(id.clone()))
    }

    /// Notes that a search failed: half as many are asked for at once, so that one that cannot be searched is alone in the end.
    pub fn note_failure(&mut self, ids: &[String], now: Timestamp) {
        match ids {
            [only] => Arc::make_mut(&mut self.looks).entry(only.clone()).or_insert_with(|| Look::new(now)).at = now,
            _ => self.at_once = Some(ids.len().div_ceil(2)),
        }
    }

    /// The spans of an experiment's newest trace are asked for with the next look.
    pub fn put_off_spans(&mut self, id: &str) {
        if let Some(look) = Arc::make_mut(&mut self.looks).get_mut(id) {
            (look.spans_due, look.newest) = (false, None);
        }
    }

    /// Notes the newest traces of these experiments, or what is new of them. Those of which none is among the rows are asked for
    /// again where there may be more. Says whether somebody waits for that.
    pub fn note_newest(
        &mut self,
        ids: &[String],
        is_update: bool,
        found: Vec<(String, Trace)>,
        now: Timestamp,
    ) -> bool {
        let is_whole = found.len() < rows(ids);
        self.at_once = self.at_once.map(|most| most * 2).filter(|most| *most < MOST_EXPERIMENTS);
        let mut first: BTreeMap<&str, Trace> = BTreeMap::new();
        for (id, trace) in &found {
            first.entry(id).or_insert(*trace);
        }
        let mut news = false;
        for id in ids {
            let trace = first.get(id.as_str()).copied();
            if trace.is_some() || is_whole {
                news |= self.note(id, trace, is_update, now);
            }
        }
        news
    }

    fn note(&mut self, id: &str, trace: Option<Trace>, is_update: bool, now: Timestamp) -> bool {
        let Some(interest) = self.wanted.get(id).copied() else { return false };
        let is_first = !self.looks.contains_key(id);
        let look = Arc::make_mut(&mut self.looks).entry(id.to_owned()).or_insert_with(|| Look::new(now));
        let was_stopped = look.is_stopped();
        look.at = now;
        let Some(trace) = trace else {
            if !is_update {
                (look.trace, look.newest) = (None, None);
            }
            return is_first || was_stopped != look.is_stopped();
        };
        let is_newer = look.newest != Some(trace.time);
        look.newest = Some(trace.time);
        look.sample(trace.time);
        // The proof is asked for once per wiring: where it was had, that traces come is enough.
        let has_spans = trace.has_spans || !interest.unproven;
        if has_spans {
            look.trace = Some(Trace { has_spans, ..trace });
        }
        look.spans_due = !has_spans && (is_newer || !look.is_settled());
        is_first || (interest.unproven && is_newer && has_spans) || was_stopped != look.is_stopped()
    }

    /// Notes the newest trace of one experiment, with its spans looked for.
    pub fn note_spans(&mut self, id: &str, trace: Option<Trace>, now: Timestamp) -> bool {
        let Some(look) = Arc::make_mut(&mut self.looks).get_mut(id) else { return false };
        let verdict =
            |trace: Option<Trace>| trace.map(|t| (t.has_spans, t.finished && now.duration_since(t.time) > SPANS_LATE));
        let before = std::mem::replace(&mut look.trace, trace);
        (look.at, look.spans_due) = (now, false);
        verdict(before) != verdict(trace) || trace.is_some_and(|t| t.has_spans && before != Some(t))
    }

    pub fn note_rhythm(&mut self, id: &str, times: &[Timestamp], now: Timestamp) -> bool {
        let Some(look) = Arc::make_mut(&mut self.looks).get_mut(id) else { return false };
        let Some(trace) = look.trace else { return false };
        let was_stopped = look.is_stopped();
        let gap = [usual_gap(times), usual_gap(&look.samples)].into_iter().flatten().min();
        look.rhythm = Some((trace.time, gap));
        look.irregular_at = gap.is_none().then_some(now);
        was_stopped != look.is_stopped()
    }
}

fn interval(interest: &Interest, look: &Look) -> SignedDuration {
    match interest {
        Interest { awaited: true, .. } => AWAITED,
        Interest { unproven: true, .. } => SILENT,
        _ if interest.stopped || look.is_stopped() => STOPPED,
        _ => RECEIVED,
    }
}

/// Traces that are asked for.
pub(super) fn rows(ids: &[String]) -> usize {
    if ids.len() == 1 { 1 } else { MOST_ROWS }
}

/// The newest trace or, where its spans may still be on their way, the newest of those that have had their time: of an agent
/// that is asked every few seconds the newest one is always too young to be told spanless.
pub(super) async fn newest(mlflow: &MlflowClient, id: &str, now: Timestamp) -> Result<Option<Trace>, mlflow::Error> {
    let newest = mlflow.latest_trace(id, None).await?;
    match newest {
        Some(Trace { time, has_spans: false, .. }) if now.duration_since(time) <= SPANS_LATE => {
            Ok(mlflow.latest_trace(id, Some(now - SPANS_LATE)).await?.or(newest))
        }
        _ => Ok(newest),
    }
}

#[cfg(test)]
mod tests;
