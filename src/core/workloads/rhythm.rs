//! Whether traces that used to come have stopped, judged by their own rhythm.
//!
//! Only what comes regularly can be missed: an agent that people use is silent whenever nobody asks it.

use jiff::{SignedDuration, Timestamp};

/// Traces that are looked at.
pub const MAX_TRACES: usize = 20;
/// Gaps between traces that make a rhythm.
const MIN_GAPS: usize = 5;
/// The traces that are known have to cover this much: a burst is no rhythm.
const MIN_SPAN: SignedDuration = SignedDuration::from_mins(1);
/// The longest gap of a rhythm is at most this many times the middle one.
const REGULAR: i32 = 4;
/// Silence counts from this many gaps on, and never before [`MIN_SILENCE`].
const GAPS_OF_SILENCE: i32 = 10;
/// No silence is told before.
pub const MIN_SILENCE: SignedDuration = SignedDuration::from_mins(2);

/// The longest gap between traces that come regularly; `None` where they do not, or too few are known. In any order.
pub fn usual_gap(times: &[Timestamp]) -> Option<SignedDuration> {
    let mut times = times.to_vec();
    times.sort_unstable();
    let (first, last) = (times.first()?, times.last()?);
    if last.duration_since(*first) < MIN_SPAN {
        return None;
    }
    let mut gaps: Vec<_> = times.windows(2).map(|pair| pair[1].duration_since(pair[0])).collect();
    gaps.sort_unstable();
    let (middle, longest) = (*gaps.get(gaps.len() / 2)?, *gaps.last()?);
    let regular = middle.checked_mul(REGULAR).is_some_and(|most| longest <= most);
    (gaps.len() >= MIN_GAPS && regular).then_some(longest)
}

/// Whether traces of this rhythm, the newest of which began at `last`, have stopped.
pub fn has_stopped(last: Timestamp, usual_gap: SignedDuration, now: Timestamp) -> bool {
    let tolerated = usual_gap.checked_mul(GAPS_OF_SILENCE).unwrap_or(SignedDuration::MAX).max(MIN_SILENCE);
    now.duration_since(last) > tolerated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(seconds: &[i64]) -> Vec<Timestamp> {
        seconds.iter().map(|s| Timestamp::from_second(*s).unwrap()).collect()
    }

    /// Every so many seconds.
    fn every(gap: i64, count: i64) -> Vec<Timestamp> {
        times(&(0..count).map(|n| n * gap).collect::<Vec<_>>())
    }

    // Section 3, point 2: MLflow's volume was full for five minutes and nobody said so.
    #[test]
    fn an_agent_that_sends_every_five_seconds_has_stopped_after_two_minutes() {
        let sent = every(5, 20);
        let (last, gap) = (sent[19], usual_gap(&sent).unwrap());
        assert_eq!(gap, SignedDuration::from_secs(5));
        assert!(!has_stopped(last, gap, last + SignedDuration::from_secs(120)));
        assert!(has_stopped(last, gap, last + SignedDuration::from_secs(121)));
    }

    #[test]
    fn a_slow_rhythm_is_given_ten_of_its_own_gaps() {
        let sent = every(60, 6);
        let (last, gap) = (sent[5], usual_gap(&sent).unwrap());
        assert!(!has_stopped(last, gap, last + SignedDuration::from_secs(600)));
        assert!(has_stopped(last, gap, last + SignedDuration::from_secs(601)));
    }

    #[test]
    fn what_people_ask_and_what_comes_in_a_burst_has_no_rhythm() {
        assert_eq!(usual_gap(&times(&[0, 7, 12, 19, 95, 101, 108])), None, "a question now and then");
        assert_eq!(usual_gap(&every(1, 20)), None, "an evaluation of twenty questions");
        assert_eq!(usual_gap(&every(30, 5)), None, "too few to tell");
        assert_eq!(usual_gap(&[]), None);
        assert_eq!(usual_gap(&times(&[0; 20])), None, "all at once");
    }
}
