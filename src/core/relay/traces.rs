//! In which order the requests of one trace go to MLflow: spans, then the trace's row, then its spans as a file, then assessments and
//! tags. SDKs send them at the same time from several threads, and MLflow 3.10.1 counts tokens twice or loses tags in any other order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::lanes::LaneId;

/// A trace, by whose it is and its id.
pub type Key = (String, String);

/// What comes after what, of what waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The trace's row.
    Start,
    /// Its spans as a file.
    File,
    /// Assessments, tags, the end of a trace of SDK 2.x.
    Rest,
}

/// Traces of late, and what of them waits for what has to go before it. `W` is where something waits.
#[derive(Debug)]
pub struct Traces<W> {
    traces: BTreeMap<Key, Trace<W>>,
    /// Those of which something waits.
    waiting: BTreeSet<Key>,
}

#[derive(Debug)]
struct Trace<W> {
    lane: Option<LaneId>,
    has_spans: bool,
    has_root: bool,
    start: Start,
    waiting: Vec<(Rank, W)>,
    touched: Duration,
    /// When what waits goes without that for which it waits.
    until: Duration,
}

/// How far the trace's row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// It has not come.
    Absent,
    /// It has come, and is being taken.
    Coming,
    /// What waited is being put in order.
    Releasing,
    /// In MLflow, or before everything that comes now.
    Taken,
}

/// What goes now.
#[derive(Debug, PartialEq, Eq)]
pub struct Release<W> {
    /// Of this trace.
    pub key: Key,
    /// To this lane, else to the one where it waits.
    pub lane: Option<LaneId>,
    /// In this order.
    pub waiting: Vec<W>,
}

impl<W> Default for Traces<W> {
    fn default() -> Self {
        Self { traces: BTreeMap::new(), waiting: BTreeSet::new() }
    }
}

impl<W> Traces<W> {
    /// Spans of a trace were taken, among them its root or not. What waited for them goes.
    pub fn spans(&mut self, key: Key, lane: LaneId, is_root: bool, now: Duration) -> Option<Release<W>> {
        let trace = self.touch(&key, now);
        trace.lane = Some(lane);
        trace.has_spans = true;
        if is_root && !trace.has_root {
            trace.has_root = true;
            trace.until = now + START_WAITS;
        }
        let goes = trace.has_root && trace.waits_for_spans();
        if goes { self.release(&key) } else { None }
    }

    /// A trace's row has come; whether it may go at once. One of SDK 2.x, which sends no spans of this kind, may.
    pub fn start(&mut self, key: &Key, lane: LaneId, needs_spans: bool, now: Duration) -> bool {
        let trace = self.touch(key, now);
        trace.lane = Some(lane);
        if matches!(trace.start, Start::Absent) {
            trace.start = Start::Coming;
        }
        trace.has_root = trace.has_root || !needs_spans;
        trace.has_root
    }

    /// Whether the root span of a trace was taken.
    pub fn has_root(&self, key: &Key) -> bool {
        self.traces.get(key).is_some_and(|trace| trace.has_root)
    }

    /// Whether spans of a trace were taken.
    pub fn has_spans(&self, key: &Key) -> bool {
        self.traces.get(key).is_some_and(|trace| trace.has_spans)
    }

    /// The lane of a trace.
    pub fn lane(&self, key: &Key) -> Option<LaneId> {
        self.traces.get(key)?.lane
    }

    /// The trace's row was taken; what waited for it goes. Again, until nothing waits.
    pub fn taken(&mut self, key: &Key) -> Option<Release<W>> {
        let trace = self.traces.get_mut(key)?;
        if trace.waiting.is_empty() {
            trace.start = Start::Taken;
            return None;
        }
        self.release(key)
    }

    /// The trace's row could not be taken: it comes again.
    pub fn refused(&mut self, key: &Key) {
        if let Some(trace) = self.traces.get_mut(key).filter(|trace| trace.start == Start::Coming) {
            trace.start = Start::Absent;
        }
    }

    /// Whether something that comes after the trace's row may go at once.
    pub fn may_follow(&mut self, key: &Key, now: Duration) -> bool {
        let trace = self.touch(key, now);
        if trace.start == Start::Absent && !trace.has_spans {
            // Of a trace of long ago, or the first that comes of a new one.
            trace.until = trace.until.max(now + START_WAITS);
        }
        trace.start == Start::Taken
    }

    /// Something waits there now. It goes at once if meanwhile that has come for which it waits.
    pub fn wait(&mut self, key: &Key, rank: Rank, place: W, now: Duration) -> Option<Release<W>> {
        let trace = self.touch(key, now);
        trace.waiting.push((rank, place));
        self.waiting.insert(key.clone());
        let trace = self.traces.get_mut(key)?;
        if rank == Rank::Start {
            trace.until = now + START_WAITS;
        }
        let goes = match trace.start {
            Start::Taken => true,
            Start::Coming => rank == Rank::Start && trace.has_root,
            Start::Absent | Start::Releasing => false,
        };
        if goes { self.release(key) } else { None }
    }

    /// What has waited long enough.
    pub fn due(&mut self, now: Duration) -> Vec<Release<W>> {
        let due: Vec<Key> = self.dues().filter(|(_, due)| *due <= now).map(|(key, _)| key.clone()).collect();
        due.iter().filter_map(|key| self.release(key)).collect()
    }

    /// When something has waited long enough.
    pub fn next_due(&self) -> Option<Duration> {
        self.dues().map(|(_, due)| due).min()
    }

    fn dues(&self) -> impl Iterator<Item = (&Key, Duration)> {
        self.waiting.iter().filter_map(|key| Some((key, self.traces.get(key)?.due_at()?)))
    }

    fn release(&mut self, key: &Key) -> Option<Release<W>> {
        self.waiting.remove(key);
        let trace = self.traces.get_mut(key)?;
        trace.start = Start::Releasing;
        trace.waiting.sort_by_key(|(rank, _)| *rank);
        let waiting = std::mem::take(&mut trace.waiting).into_iter().map(|(_, place)| place).collect();
        Some(Release { key: key.clone(), lane: trace.lane, waiting })
    }

    fn touch(&mut self, key: &Key, now: Duration) -> &mut Trace<W> {
        if self.traces.len() >= MOST && !self.traces.contains_key(key) {
            self.forget_old();
        }
        let trace = self.traces.entry(key.clone()).or_insert_with(|| Trace {
            lane: None,
            has_spans: false,
            has_root: false,
            start: Start::Absent,
            waiting: Vec::new(),
            touched: now,
            until: now + START_WAITS,
        });
        trace.touched = now;
        if trace.start == Start::Absent && trace.has_spans && !trace.has_root {
            trace.until = now + OPEN_WAITS;
        }
        trace
    }

    /// The older half of those of which nothing waits.
    fn forget_old(&mut self) {
        let mut times: Vec<_> = self.traces.values().map(|trace| trace.touched).collect();
        times.sort_unstable();
        let middle = times.get(times.len() / 2).copied().unwrap_or_default();
        self.traces
            .retain(|_, trace| trace.touched > middle || !trace.waiting.is_empty() || trace.start == Start::Releasing);
    }
}

impl<W> Trace<W> {
    fn waits_for_spans(&self) -> bool {
        self.start == Start::Coming && self.waiting.iter().any(|(rank, _)| *rank == Rank::Start)
    }

    fn due_at(&self) -> Option<Duration> {
        let has_row = self.waiting.iter().any(|(rank, _)| *rank == Rank::Start);
        let waits = match self.start {
            Start::Absent => true,
            // What comes after a row that is being taken has no other way than behind it.
            Start::Coming => has_row,
            Start::Releasing | Start::Taken => false,
        };
        (waits && !self.waiting.is_empty()).then_some(self.until)
    }
}

/// SDKs send a trace's row up to half a second before its last spans, a second where one of them is sent again.
const START_WAITS: Duration = Duration::from_secs(2);
/// A trace whose root span has not come goes on; tags may be set meanwhile.
const OPEN_WAITS: Duration = Duration::from_secs(600);
/// Traces that are remembered.
const MOST: usize = 4096;

#[cfg(test)]
mod tests;
