//! What all AgentTracings share, so that the cluster stays calm and nobody takes from the others: how many workloads roll, and
//! how fast they are changed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Time between two changes of workloads: twenty a second, whatever happens.
const SPACING: Duration = Duration::from_millis(50);
/// Who waits asks again at each pass. Whoever has not asked for so long waits no more, and nothing is kept free for it.
const WAITING_TTL: Duration = Duration::from_secs(120);
/// How long places are held by someone who says no more how many: a pass that fails again and again, or one that is suspended.
const MAX_HOLD: Duration = Duration::from_secs(600);

/// Places for workloads that roll, and turns in changing them.
#[derive(Debug)]
pub(super) struct RolloutBudget {
    /// Most workloads that may roll at a time.
    limit: usize,
    places: Mutex<Places>,
    /// When the next workload may be changed.
    next: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Places {
    /// How many roll because of us, by whoever changes them, and when that was said.
    holders: HashMap<String, (usize, Instant)>,
    /// Who got less than it wanted, the one whose turn it is first.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    namespace: String,
    of: String,
    asked_at: Instant,
}

impl RolloutBudget {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, places: Mutex::default(), next: tokio::sync::Mutex::default() }
    }

    /// As many places as are free, of those wanted by someone who holds so many already. They are taken before anybody else
    /// can, until the next call for the same one. An AgentTracing, named by what stands before the first `/`, gets no more
    /// than half of all places, and a place is kept free for each namespace that has waited longer.
    pub(super) fn reserve(&self, namespace: &str, of: &str, holding: usize, wanted: usize) -> usize {
        let now = Instant::now();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.waiting.retain(|one| now.duration_since(one.asked_at) < WAITING_TTL);
        places.holders.retain(|_, (_, noted_at)| now.duration_since(*noted_at) < MAX_HOLD);
        let others = |test: &dyn Fn(&str) -> bool| -> usize {
            places.holders.iter().filter(|(other, _)| *other != of && test(other)).map(|(_, (places, _))| places).sum()
        };
        let free = self.limit.saturating_sub(holding + others(&|_| true));
        let share = self.limit.div_ceil(2).saturating_sub(holding + others(&|other| owner(other) == owner(of)));
        let wanted = wanted.min(share);
        let grant = wanted.min(free.saturating_sub(places.ahead_of(namespace, of)));
        places.note(namespace, of, grant, wanted > grant, now);
        places.take(of, holding + grant, now);
        grant
    }

    /// Notes how many places someone holds; whether it waits for more stays as it is.
    pub(super) fn hold(&self, of: &str, holding: usize) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).take(of, holding, Instant::now());
    }

    /// Gives the places of those back that are gone.
    pub(super) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.holders.retain(|of, _| is_there(of));
        places.waiting.retain(|one| is_there(&one.of));
    }

    /// Waits until a workload may be changed.
    pub(super) async fn wait_for_write(&self) {
        let mut next = self.next.lock().await;
        if let Some(at) = *next {
            tokio::time::sleep_until(at).await;
        }
        *next = Some(Instant::now() + SPACING);
    }
}

impl Places {
    fn take(&mut self, of: &str, holding: usize, now: Instant) {
        match holding {
            0 => self.holders.remove(of),
            holding => self.holders.insert(of.to_owned(), (holding, now)),
        };
    }

    /// How many other namespaces have waited longer.
    fn ahead_of(&self, namespace: &str, of: &str) -> usize {
        let in_front = self.waiting.iter().take_while(|one| one.of != of);
        let namespaces: HashSet<_> = in_front.map(|one| one.namespace.as_str()).collect();
        namespaces.len() - usize::from(namespaces.contains(namespace))
    }

    /// Whoever got something goes to the end, with all of its namespace.
    fn note(&mut self, namespace: &str, of: &str, grant: usize, waits: bool, now: Instant) {
        if grant > 0 {
            let (had_its_turn, rest) = std::mem::take(&mut self.waiting)
                .into_iter()
                .partition::<VecDeque<_>, _>(|one| one.namespace == namespace);
            self.waiting = rest.into_iter().chain(had_its_turn).collect();
        }
        let known = self.waiting.iter_mut().find(|one| one.of == of);
        match (known, waits) {
            (Some(one), true) => one.asked_at = now,
            (None, true) => {
                self.waiting.push_back(Waiting { namespace: namespace.to_owned(), of: of.to_owned(), asked_at: now });
            }
            (_, false) => self.waiting.retain(|one| one.of != of),
        }
    }
}

/// The AgentTracing of those who hold places for it.
fn owner(of: &str) -> &str {
    of.split('/').next().unwrap_or(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_has_one_limit_for_all() {
        let budget = RolloutBudget::new(20);
        assert_eq!(budget.reserve("a", "a", 0, 5), 5);
        assert_eq!(budget.reserve("b", "b", 9, 5), 1, "half of them");
        assert_eq!(budget.reserve("c", "c", 0, 5), 5);
        assert_eq!(budget.reserve("d", "d", 0, 5), 0);
        budget.hold("a", 1);
        assert_eq!(budget.reserve("d", "d", 0, 5), 4, "four of a's have come back");
        budget.retain(|of| of == "d");
        assert_eq!(budget.reserve("a", "a", 0, 20), 10);
    }

    /// Review B2: one AgentTracing held all places of the cluster for as long as its workloads did not come back.
    #[test]
    fn an_agent_tracing_never_holds_more_than_half_of_the_places() {
        let budget = RolloutBudget::new(20);
        assert_eq!(budget.reserve("a", "uid", 0, 100), 10);
        assert_eq!(budget.reserve("a", "uid/out", 0, 100), 0, "what it takes out counts too");
        assert_eq!(budget.reserve("b", "other", 0, 100), 10);
        assert_eq!(RolloutBudget::new(1).reserve("a", "uid", 0, 5), 1);
    }

    #[test]
    fn turns_go_round_by_namespace_however_many_one_of_them_has() {
        let budget = RolloutBudget::new(4);
        assert_eq!(budget.reserve("full", "full", 0, 2), 2);
        assert_eq!(budget.reserve("full-too", "full-too", 0, 2), 2);
        for of in ["many-1", "many-2", "many-3"] {
            assert_eq!(budget.reserve("many", of, 0, 5), 0);
        }
        assert_eq!(budget.reserve("one", "one", 0, 5), 0);
        budget.hold("full", 1);
        assert_eq!(budget.reserve("one", "one", 0, 5), 0, "it is the turn of many");
        assert_eq!(budget.reserve("many", "many-2", 0, 5), 1, "any of them");
        budget.hold("full", 0);
        assert_eq!(budget.reserve("many", "many-1", 0, 5), 0, "it is the turn of one");
        assert_eq!(budget.reserve("one", "one", 0, 5), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_for_whoever_has_stopped_asking() {
        let budget = RolloutBudget::new(2);
        assert_eq!(budget.reserve("full", "full", 0, 1), 1);
        assert_eq!(budget.reserve("full-too", "full-too", 0, 1), 1);
        assert_eq!(budget.reserve("gone", "gone", 0, 1), 0);
        budget.hold("full", 0);
        assert_eq!(budget.reserve("one", "one", 0, 1), 0);
        tokio::time::sleep(WAITING_TTL).await;
        assert_eq!(budget.reserve("one", "one", 0, 1), 1);
        tokio::time::sleep(MAX_HOLD).await;
        assert_eq!(budget.reserve("late", "late", 0, 1), 1, "full-too has said nothing for ten minutes");
    }

    #[tokio::test(start_paused = true)]
    async fn twenty_changes_take_a_second() {
        let budget = RolloutBudget::new(1);
        let began = Instant::now();
        for _ in 0..21 {
            budget.wait_for_write().await;
        }
        assert_eq!(began.elapsed(), Duration::from_secs(1));
    }
}
