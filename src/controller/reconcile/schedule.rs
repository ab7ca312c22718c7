//! When the next pass is, if nothing happens before.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::ReconcileState;
use crate::api::AgentTracing;

/// How soon it is looked again at what changes without an event: at first, after a while, and after a long while.
const REQUEUE_PENDING: Duration = Duration::from_secs(5);
const REQUEUE_LATER: Duration = Duration::from_secs(15);
pub(super) const REQUEUE_AT_LAST: Duration = Duration::from_secs(60);
const RECENT: SignedDuration = SignedDuration::from_mins(3);
const LASTING: SignedDuration = SignedDuration::from_mins(10);
/// How often everything is looked at without any event, and how far the passes of different AgentTracings are spread.
const REST: Duration = Duration::from_secs(600);
const SPREAD: u64 = 300;
/// Reading the workloads of a namespace for so long is followed by a pause of so many times the length.
const LONG_READING: Duration = Duration::from_millis(250);
const PAUSE: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

impl ReconcileState {
    /// When the next pass is: soon while something `is_unsettled` that no event tells of, else when something is to be looked at
    /// `again`, and after a long while in any case.
    pub(super) fn next_pass(
        &mut self,
        tracing: &AgentTracing,
        is_unsettled: bool,
        again: Option<Duration>,
        now: Timestamp,
    ) -> Duration {
        if !is_unsettled {
            self.unsettled = None;
            return again.unwrap_or_else(|| rest(tracing));
        }
        let since = now.duration_since(*self.unsettled.get_or_insert(now));
        let interval = match () {
            () if since < RECENT => REQUEUE_PENDING,
            () if since < LASTING => REQUEUE_LATER,
            () => REQUEUE_AT_LAST,
        };
        again.map_or(interval, |again| again.min(interval))
    }

    /// How long this pass has to wait, because the one before read for long.
    pub(super) fn pause(&self) -> Option<Duration> {
        self.not_before.map(|at| at.saturating_duration_since(Instant::now())).filter(|pause| !pause.is_zero())
    }

    /// Notes how long the workloads of the namespace took to read.
    pub(super) fn note_reading(&mut self, reading: Duration) {
        self.not_before = (reading > LONG_READING).then(|| Instant::now() + (reading * PAUSE).min(LONGEST_PAUSE));
    }
}

/// The passes of different AgentTracings are spread.
fn rest(tracing: &AgentTracing) -> Duration {
    let mut hasher = DefaultHasher::new();
    tracing.metadata.uid.hash(&mut hasher);
    REST + Duration::from_secs(hasher.finish() % SPREAD)
}
