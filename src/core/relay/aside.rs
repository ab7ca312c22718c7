//! Requests that were set aside, because MLflow refused them or because they come after such a one of their trace: which is tried next.

use std::collections::BTreeMap;

use super::lanes::LaneId;

/// By lane.
#[derive(Debug, Default)]
pub struct Aside {
    lanes: BTreeMap<LaneId, Lane>,
}

#[derive(Debug, Default)]
struct Lane {
    /// By number, which grows in the order in which they go: the traces that they are about.
    requests: BTreeMap<u64, Vec<String>>,
    /// Which was tried last.
    last: u64,
}

impl Aside {
    /// A request is there.
    pub fn add(&mut self, lane: LaneId, number: u64, traces: Vec<String>) {
        self.lanes.entry(lane).or_default().requests.insert(number, traces);
    }

    /// It is gone.
    pub fn remove(&mut self, lane: LaneId, number: u64) {
        let Some(requests) = self.lanes.get_mut(&lane).map(|lane| &mut lane.requests) else { return };
        requests.remove(&number);
        if requests.is_empty() {
            self.lanes.remove(&lane);
        }
    }

    /// Whether nothing of this lane is there.
    pub fn is_empty(&self, lane: LaneId) -> bool {
        !self.lanes.contains_key(&lane)
    }

    /// Whether something about one of these traces is there, so that what comes after it has to go there too.
    pub fn holds(&self, lane: LaneId, traces: &[String]) -> bool {
        self.lanes.get(&lane).is_some_and(|lane| lane.requests.values().any(|other| shares(other, traces)))
    }

    /// The number of the one to try: in turns, so that one that MLflow never takes does not keep the others, and of each trace the first.
    pub fn next(&mut self, lane: LaneId) -> Option<u64> {
        let lane = self.lanes.get_mut(&lane)?;
        let is_first =
            |number: u64, traces: &[String]| !lane.requests.range(..number).any(|(_, other)| shares(other, traces));
        let in_turn = lane.requests.range(lane.last + 1..).chain(lane.requests.range(..=lane.last));
        let next =
            in_turn.into_iter().find(|(number, traces)| is_first(**number, traces)).map(|(number, _)| *number)?;
        lane.last = next;
        Some(next)
    }
}

fn shares(one: &[String], other: &[String]) -> bool {
    one.iter().any(|trace| other.contains(trace))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn each_has_its_turn_and_of_a_trace_the_first() {
        let mut aside = Aside::default();
        assert!(aside.is_empty(1) && aside.next(1).is_none());
        for (number, traces) in [(3, &["tr-1", "tr-2"][..]), (4, &["tr-2"]), (5, &["tr-3"]), (6, &[])] {
            aside.add(1, number, of(traces));
        }
        assert!(aside.holds(1, &of(&["tr-2"])) && !aside.holds(1, &of(&["tr-4"])) && !aside.holds(2, &of(&["tr-2"])));
        let order: Vec<_> = (0..4).filter_map(|_| aside.next(1)).collect();
        assert_eq!(order, [3, 5, 6, 3], "4 comes after 3");
        aside.remove(1, 3);
        assert_eq!(aside.next(1), Some(4));
        for number in [4, 5, 6] {
            aside.remove(1, number);
        }
        assert!(aside.is_empty(1));
    }
}
