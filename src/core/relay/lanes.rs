//! Which of the held requests is sent next.
//!
//! A lane holds what one workload sends to one experiment, in the order in which it came; one request of a lane is under way at a time.
//! What MLflow refuses because of one lane or one request pauses that lane or sets that request aside; what it refuses to everybody pauses all, and one request then
//! tries, for all of them, whether it still is so.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use super::cause::{Cause, Scope};

/// A lane, by the number that the spool gave it.
pub type LaneId = u64;

/// Which of a lane's two queues in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Queue {
    /// In the order in which it came.
    Ready,
    /// What MLflow refused because of the request itself, while others of the lane went through.
    Aside,
    /// It comes after another request of its trace that has not come yet, and is in no lane meanwhile.
    Waiting,
}

/// Where a request is that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere but in memory: it came just now, and is not answered yet.
    Direct,
    /// In a queue of the spool.
    Spooled(Queue),
}

/// What became of a request that was under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// MLflow has it, or will never take it.
    Gone,
    /// It stays.
    Held(Cause),
    /// It was not sent, and is set aside: another request of its trace that goes before it is there.
    Behind,
}

/// What is waiting, and what holds it up. Times are on any clock that only goes forward.
#[derive(Debug)]
pub struct Lanes {
    lanes: BTreeMap<LaneId, Lane>,
    /// What holds up everybody.
    server: Pause,
    /// How many may be under way at a time.
    concurrency: usize,
    under_way: usize,
    /// Which lane was served last.
    last: LaneId,
    /// Refusals since MLflow took something, each of one request, as it seemed.
    refusals: u32,
    /// So many want a place to ask MLflow something for an agent that waits.
    asking: usize,
    /// Such a one had the last place.
    was_asking: bool,
}

#[derive(Debug, Default)]
struct Lane {
    ready: u64,
    aside: u64,
    is_busy: bool,
    /// The last one was of those set aside.
    was_aside: bool,
    pause: Pause,
    aside_pause: Pause,
}

/// A pause that grows with each failure.
#[derive(Clone, Copy, Debug, Default)]
struct Pause {
    failures: u32,
    until: Duration,
    cause: Option<Cause>,
}

/// Why something is held, and since which number of failures; for the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The last cause.
    pub cause: Cause,
    /// How often in a row.
    pub failures: u32,
}

impl Lanes {
    /// Nothing waits; so many are sent at a time.
    pub fn new(concurrency: usize) -> Self {
        let (lanes, server) = (BTreeMap::new(), Pause::default());
        Self { lanes, server, concurrency, under_way: 0, last: 0, refusals: 0, asking: 0, was_asking: false }
    }

    /// Changes how many are sent at a time.
    pub fn set_concurrency(&mut self, concurrency: usize) {
        self.concurrency = concurrency;
    }

    /// So many requests were found in the spool at its start.
    pub fn found(&mut self, lane: LaneId, queue: Queue, count: u64) {
        let lane = self.lanes.entry(lane).or_default();
        match queue {
            Queue::Ready => lane.ready += count,
            Queue::Aside => lane.aside += count,
            Queue::Waiting => {}
        }
    }

    /// A request was put at the end of a lane.
    pub fn arrived(&mut self, lane: LaneId) {
        self.found(lane, Queue::Ready, 1);
    }

    /// Whether a request of this lane that has just come may be sent at once, past the spool: nothing waits before it, nothing holds
    /// it up, and a place is free. The place is taken.
    pub fn take_direct(&mut self, id: LaneId, now: Duration) -> bool {
        let is_calm = self.server.is_over(now) && self.server.failures == 0;
        let is_free = is_calm && self.under_way < self.concurrency && !self.is_turn_to_ask();
        let lane = self.lanes.entry(id).or_default();
        let goes = is_free && !lane.is_busy && lane.ready == 0 && lane.pause.failures == 0;
        if goes {
            (lane.is_busy, self.was_asking) = (true, false);
            self.under_way += 1;
        } else {
            self.forget_if_empty(id);
        }
        goes
    }

    /// The next request to send: the first of this queue of this lane. The place is taken until [`Self::ended`].
    pub fn take_next(&mut self, now: Duration) -> Option<(LaneId, Queue)> {
        if self.under_way >= self.places() || !self.server.is_over(now) || self.is_turn_to_ask() {
            return None;
        }
        let after = self.lanes.range((Bound::Excluded(self.last), Bound::Unbounded));
        let (&id, queue) =
            after.chain(self.lanes.range(..=self.last)).find_map(|(id, lane)| Some((id, lane.due(now)?)))?;
        let lane = self.lanes.get_mut(&id)?;
        (lane.is_busy, lane.was_aside) = (true, queue == Queue::Aside);
        (self.last, self.was_asking) = (id, false);
        self.under_way += 1;
        Some((id, queue))
    }

    /// Somebody wants a place to ask MLflow something, until [`Self::take_to_ask`] says yes or [`Self::give_up_asking`].
    pub fn want_to_ask(&mut self) {
        self.asking += 1;
    }

    /// Somebody wants it no more.
    pub fn give_up_asking(&mut self) {
        self.asking = self.asking.saturating_sub(1);
    }

    /// Whether a place is free to ask MLflow something; it is taken until [`Self::asked`]. Where there is much of both, questions and
    /// what is forwarded take turns.
    pub fn take_to_ask(&mut self, now: Duration) -> bool {
        let is_others_turn = self.was_asking && self.under_way < self.places() && self.is_due(now);
        let goes = self.under_way < self.concurrency && !is_others_turn;
        if goes {
            (self.asking, self.was_asking) = (self.asking.saturating_sub(1), true);
            self.under_way += 1;
        }
        goes
    }

    /// The answer is there.
    pub fn asked(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    fn is_turn_to_ask(&self) -> bool {
        self.asking > 0 && !self.was_asking
    }

    fn is_due(&self, now: Duration) -> bool {
        self.server.is_over(now) && self.lanes.values().any(|lane| lane.due(now).is_some())
    }

    /// What was taken has ended. What was sent past the spool and stays held was put into the spool before.
    pub fn ended(&mut self, id: LaneId, place: Place, ended: Ended, now: Duration) {
        self.under_way = self.under_way.saturating_sub(1);
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.is_busy = false;
        match ended {
            Ended::Gone => {
                (self.server, self.refusals) = (Pause::default(), 0);
                lane.pause = Pause::default();
                match place {
                    Place::Direct => {}
                    Place::Spooled(Queue::Ready) => lane.ready = lane.ready.saturating_sub(1),
                    Place::Spooled(Queue::Waiting) => {}
                    Place::Spooled(Queue::Aside) => {
                        lane.aside = lane.aside.saturating_sub(1);
                        // MLflow takes such requests again: the others are tried at once.
                        lane.aside_pause = Pause::default();
                    }
                }
            }
            Ended::Behind => {
                lane.ready = lane.ready.saturating_sub(1);
                lane.aside += 1;
            }
            Ended::Held(cause) => {
                match cause.scope() {
                    Scope::Server => self.server.fail(cause, now, SERVER_LIMIT),
                    Scope::Lane => lane.pause.fail(cause, now, LANE_LIMIT),
                    Scope::Request => {
                        // One that was refused before says nothing new.
                        self.refusals += u32::from(place != Place::Spooled(Queue::Aside));
                        lane.aside_pause.fail(cause, now, ASIDE_LIMIT);
                        if place == Place::Spooled(Queue::Ready) {
                            lane.ready = lane.ready.saturating_sub(1);
                            lane.aside += 1;
                        }
                    }
                }
                // So many in a row are no matter of single requests.
                if self.refusals >= REFUSALS_OF_ALL && cause.scope() == Scope::Request {
                    self.server.fail(cause, now, SERVER_LIMIT);
                }
            }
        }
        self.forget_if_empty(id);
    }

    /// Everything that holds up all is tried at once: the address, the token or the trust changed.
    pub fn retry_all(&mut self) {
        self.server.until = Duration::ZERO;
        for lane in self.lanes.values_mut() {
            lane.pause.until = Duration::ZERO;
        }
    }

    /// When the next request is due; none: only an arrival or an end changes anything.
    pub fn next_due(&self, now: Duration) -> Option<Duration> {
        if self.under_way >= self.places() || self.is_turn_to_ask() {
            return None;
        }
        let waiting = self.lanes.values().filter(|lane| !lane.is_busy);
        let due = waiting.filter_map(|lane| lane.due_at()).min()?;
        Some(due.max(self.server.until).max(now))
    }

    /// What holds up everybody.
    pub fn server_hold(&self) -> Option<Hold> {
        self.server.hold()
    }

    /// What holds up a lane, and how many of its requests wait.
    pub fn lane_hold(&self, id: LaneId) -> (u64, Option<Hold>) {
        let Some(lane) = self.lanes.get(&id) else { return (0, None) };
        (lane.ready + lane.aside, lane.pause.hold().or(lane.aside_pause.hold()))
    }

    /// What holds up single lanes, or single requests of them.
    pub fn holds(&self) -> impl Iterator<Item = (LaneId, Cause)> + '_ {
        self.lanes.keys().filter_map(|id| Some((*id, self.lane_hold(*id).1?.cause)))
    }

    /// While everybody is held up, one request tries for all.
    fn places(&self) -> usize {
        if self.server.failures > 0 { 1 } else { self.concurrency }
    }

    fn forget_if_empty(&mut self, id: LaneId) {
        if self.lanes.get(&id).is_some_and(|lane| lane.ready + lane.aside == 0 && !lane.is_busy) {
            self.lanes.remove(&id);
        }
    }
}

impl Lane {
    fn due(&self, now: Duration) -> Option<Queue> {
        if self.is_busy {
            return None;
        }
        let ready = self.ready > 0 && self.pause.is_over(now);
        let aside = self.aside > 0 && self.aside_pause.is_over(now);
        // In turns, or one of the two would starve the other.
        match (ready, aside) {
            (true, true) if self.was_aside => Some(Queue::Ready),
            (_, true) => Some(Queue::Aside),
            (true, false) => Some(Queue::Ready),
            (false, false) => None,
        }
    }

    fn due_at(&self) -> Option<Duration> {
        let ready = (self.ready > 0).then_some(self.pause.until);
        let aside = (self.aside > 0).then_some(self.aside_pause.until);
        ready.into_iter().chain(aside).min()
    }
}

impl Pause {
    fn is_over(&self, now: Duration) -> bool {
        now >= self.until
    }

    fn fail(&mut self, cause: Cause, now: Duration, limit: Duration) {
        let pause = FIRST_PAUSE * 2_u32.pow(self.failures.min(10));
        self.failures += 1;
        self.until = now + pause.min(limit);
        self.cause = Some(cause);
    }

    fn hold(&self) -> Option<Hold> {
        self.cause.map(|cause| Hold { cause, failures: self.failures })
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// An MLflow that is back is noticed within this time.
const SERVER_LIMIT: Duration = Duration::from_secs(10);
/// From so many refused requests in a row, with none taken in between, MLflow is taken to refuse everything.
const REFUSALS_OF_ALL: u32 = 3;
const LANE_LIMIT: Duration = Duration::from_secs(30);
const ASIDE_LIMIT: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests;
