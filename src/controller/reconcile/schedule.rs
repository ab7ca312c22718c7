//! When the next pass is, if nothing happens before.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::ReconcileState;
use crate::api::AgentTracing;
use crate::core::status::Settling;

/// How soon it is looked again at what changes without an event: at first, after a while, and after a long while.
const REQUEUE_PENDING: Duration = Duration::from_secs(5);
const REQUEUE_LATER: Duration = Duration::from_secs(15);
pub(super) const REQUEUE_AT_LAST: Duration = Duration::from_secs(60);
/// The same where workloads do not come back and nothing else is wrong: a large namespace was read every minute for days.
const REQUEUE_HALTED: Duration = Duration::from_secs(300);
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
    /// When the next pass is: soon while something is not settled that no event tells of, else when something is to be looked at
    /// `again`, and after a long while in any case.
    pub(super) fn next_pass(
        &mut self,
        tracing: &AgentTracing,
        settling: Settling,
        again: Option<Duration>,
        now: Timestamp,
    ) -> Duration {
        if settling == Settling::Settled {
            self.unsettled = None;
            return again.unwrap_or_else(|| rest(tracing));
        }
        let since = now.duration_since(*self.unsettled.get_or_insert(now));
        let interval = match () {
            () if since < RECENT => REQUEUE_PENDING,
            () if since < LASTING => REQUEUE_LATER,
            () if settling == Settling::Halted => REQUEUE_HALTED,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tracing() -> AgentTracing {
        serde_json::from_value(
            serde_json::json!({"metadata": {"name": "t", "uid": "u"}, "spec": {"mlflow": {"mode": "CR"}}}),
        )
        .unwrap()
    }

    #[test]
    fn what_lasts_is_looked_at_less_and_a_halt_that_lasts_every_five_minutes() {
        let at = |minutes: i64| Timestamp::from_second(1_800_000_000 + 60 * minutes).unwrap();
        for (settling, at_last) in [(Settling::Unsettled, 60), (Settling::Halted, 300)] {
            let mut state = ReconcileState::default();
            let mut next = |minutes| state.next_pass(&tracing(), settling, None, at(minutes)).as_secs();
            assert_eq!([0, 2, 5, 11, 600].map(&mut next), [5, 5, 15, at_last, at_last]);
        }
        let mut state = ReconcileState::default();
        state.next_pass(&tracing(), Settling::Halted, None, at(0));
        let again = Some(Duration::from_secs(60));
        assert_eq!(state.next_pass(&tracing(), Settling::Halted, again, at(20)).as_secs(), 60, "something else is due");
        assert!(state.next_pass(&tracing(), Settling::Settled, None, at(20)) >= REST);
        assert_eq!(state.next_pass(&tracing(), Settling::Halted, None, at(21)).as_secs(), 5, "another halt");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_reading_is_followed_by_a_pause() {
        let mut state = ReconcileState::default();
        state.note_reading(LONG_READING);
        assert_eq!(state.pause(), None);
        state.note_reading(Duration::from_secs(2));
        assert_eq!(state.pause(), Some(Duration::from_secs(8)));
        tokio::time::advance(Duration::from_secs(8)).await;
        assert_eq!(state.pause(), None);
        state.note_reading(Duration::from_secs(60));
        assert_eq!(state.pause(), Some(LONGEST_PAUSE));
    }
}
