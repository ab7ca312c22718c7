//! What the status says of a relay. It is coarse: a status that counted each request would be written with each of them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::cause::Cause;
use crate::core::workloads::rhythm::has_stopped;

/// What is known of a relay that answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelayReport {
    /// When it answered.
    pub at: Timestamp,
    /// Whether all of its pods did: only then can nobody else know of a trace.
    pub complete: bool,
    /// By workload, as `deployment/teller`.
    pub senders: BTreeMap<String, SenderReport>,
    /// What waits, where it has waited for a while.
    pub held: Option<Held>,
    /// MLflow refuses the relay itself.
    pub refused: Option<Cause>,
    /// How full the spool is, in steps, once that has to be told.
    pub spool_percent: Option<u8>,
}

/// Of one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SenderReport {
    /// When MLflow took its last request.
    pub last_forwarded: Option<Timestamp>,
    /// Whether some of its requests wait.
    pub holds: bool,
    /// Why they wait, where they have waited for a while.
    pub cause: Option<Cause>,
    /// The longest gap between its traces, where they come regularly.
    pub usual_gap: Option<SignedDuration>,
}

/// What waits in the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Why.
    pub cause: Cause,
    /// Since when.
    pub since: Timestamp,
    /// At least so many requests.
    pub requests: u64,
    /// Of whom, the most first: a few, with at least so many requests.
    pub senders: Vec<(String, u64)>,
    /// How many more workloads.
    pub others: usize,
}

/// How a workload comes to the relay, as its environment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayRoute {
    /// Its name there: `deployment/teller`.
    pub sender: String,
    /// Whether nothing of it goes elsewhere.
    pub all: bool,
}

impl RelayReport {
    /// What is known of a workload's traces; `None` where the relay is not the one to know.
    pub fn answer(&self, route: &RelayRoute) -> Option<SenderReport> {
        let RelayRoute { sender, all } = route;
        match self.senders.get(sender).filter(|_| self.complete) {
            Some(known) if *all => Some(known.clone()),
            // What it sends past the relay has a rhythm of its own.
            Some(known) => Some(SenderReport { usual_gap: None, ..known.clone() }),
            None => (self.complete && *all).then(SenderReport::default),
        }
    }

    /// Whether requests of a workload wait, and why, where they have waited for a while.
    pub fn waits(&self, route: &RelayRoute) -> Option<Option<Cause>> {
        self.senders.get(&route.sender).filter(|known| known.holds).map(|known| known.cause)
    }
}

impl SenderReport {
    fn is_stopped(&self, at: Timestamp) -> bool {
        let rhythm = self.last_forwarded.zip(self.usual_gap).filter(|_| !self.holds);
        rhythm.is_some_and(|(last, gap)| has_stopped(last, gap, at))
    }
}

/// Whether the status would say something else now than it said of what was known before. `awaited` are the workloads whose next
/// trace is news.
pub fn is_news(before: Option<&RelayReport>, now: Option<&RelayReport>, awaited: &BTreeSet<String>) -> bool {
    let (Some(before), Some(now)) = (before, now) else { return before.is_some() != now.is_some() };
    let RelayReport { at, complete, senders, held, refused, spool_percent } = now;
    if (complete, held, refused, spool_percent)
        != (&before.complete, &before.held, &before.refused, &before.spool_percent)
    {
        return true;
    }
    let known = SenderReport::default();
    let all: BTreeSet<_> = senders.keys().chain(before.senders.keys()).collect();
    all.into_iter().any(|name| {
        let [now, was] = [senders, &before.senders].map(|of| of.get(name).unwrap_or(&known));
        let first = (was.last_forwarded, was.holds) != (now.last_forwarded, now.holds) && awaited.contains(name);
        first || was.cause != now.cause || was.is_stopped(before.at) != now.is_stopped(*at)
    })
}

/// Whether a trace came since that is not in what was known before.
pub fn has_newer_traces(before: Option<&RelayReport>, now: Option<&RelayReport>) -> bool {
    let last =
        |report: Option<&RelayReport>| report.and_then(|r| r.senders.values().map(|s| s.last_forwarded).max()?);
    last(now) > last(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn teller(last: Option<i64>) -> RelayReport {
        let known = SenderReport { last_forwarded: last.map(at), ..SenderReport::default() };
        let senders = BTreeMap::from([("deployment/teller".to_owned(), known)]);
        RelayReport { at: at(0), complete: true, senders, ..RelayReport::default() }
    }

    fn is_news_of(before: &RelayReport, now: &RelayReport, awaited: &[&str]) -> bool {
        is_news(Some(before), Some(now), &awaited.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn news_is_what_the_status_would_say_anew_and_no_single_trace() {
        let calm = teller(Some(1));
        assert!(!is_news_of(&calm, &teller(Some(9)), &[]), "lastTraceTime has time");
        assert!(has_newer_traces(Some(&calm), Some(&teller(Some(9)))) && has_newer_traces(None, Some(&calm)));
        assert!(!has_newer_traces(Some(&calm), Some(&calm)) && !has_newer_traces(Some(&calm), None));
        assert!(is_news_of(&calm, &teller(Some(9)), &["deployment/teller"]), "somebody waits for it");
        assert!(is_news_of(&teller(None), &calm, &["deployment/teller"]));
        let held = Held { cause: Cause::Busy, since: at(0), requests: 1, senders: Vec::new(), others: 0 };
        for other in [
            RelayReport { held: Some(held), ..calm.clone() },
            RelayReport { refused: Some(Cause::Forbidden), ..calm.clone() },
            RelayReport { spool_percent: Some(80), ..calm.clone() },
            RelayReport { complete: false, ..calm.clone() },
        ] {
            assert!(is_news_of(&calm, &other, &[]) && is_news_of(&other, &calm, &[]), "{other:?}");
        }
        assert!(is_news(Some(&calm), None, &BTreeSet::new()) && !is_news(None, None, &BTreeSet::new()));
        assert!(!is_news_of(&calm, &RelayReport { at: at(10), ..calm.clone() }, &["deployment/teller"]));
    }

    #[test]
    fn a_regular_agent_that_falls_silent_is_news_once() {
        let silent_at = |second| {
            let mut report = RelayReport { at: at(second), ..teller(Some(0)) };
            let known = report.senders.get_mut("deployment/teller").unwrap();
            known.usual_gap = Some(SignedDuration::from_secs(10));
            report
        };
        assert!(is_news_of(&silent_at(60), &silent_at(130), &[]));
        assert!(!is_news_of(&silent_at(130), &silent_at(200), &[]));
    }

    #[test]
    fn the_relay_answers_for_who_sends_by_it() {
        let route = |sender: &str, all| RelayRoute { sender: sender.to_owned(), all };
        let report = teller(Some(5));
        let last = |report: &RelayReport, route| report.answer(&route).map(|known| known.last_forwarded);
        assert_eq!(last(&report, route("deployment/teller", false)), Some(Some(at(5))));
        assert_eq!(
            last(&report, route("deployment/rag", true)),
            Some(None),
            "nothing came, and nothing can come elsewhere"
        );
        assert_eq!(last(&report, route("deployment/rag", false)), None, "it may send to MLflow itself");
        let partial = RelayReport { complete: false, ..report };
        assert_eq!(last(&partial, route("deployment/teller", true)), None, "another pod may have it");
    }
}
