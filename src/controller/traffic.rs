//! What all AgentTracings share, so that the cluster stays calm: how many workloads roll, and how fast they are changed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Time between two changes of workloads: twenty a second, whatever happens.
const SPACING: Duration = Duration::from_millis(50);

/// Places for workloads that roll, and turns in changing them.
#[derive(Debug)]
pub(super) struct Traffic {
    /// Most workloads that may roll at a time.
    limit: usize,
    /// How many roll because of us, by whoever changes them.
    rolling: Mutex<HashMap<String, usize>>,
    /// When the next workload may be changed.
    next: tokio::sync::Mutex<Option<Instant>>,
}

impl Traffic {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, rolling: Mutex::default(), next: tokio::sync::Mutex::default() }
    }

    /// As many places as are free, of those wanted by someone who rolls so many already. They are taken before anybody else
    /// can, until the next call for the same one.
    pub(super) fn places(&self, of: &str, rolling: usize, wanted: usize) -> usize {
        let mut all = self.rolling.lock().unwrap_or_else(PoisonError::into_inner);
        let others: usize = all.iter().filter(|(other, _)| *other != of).map(|(_, rolling)| rolling).sum();
        let free = wanted.min(self.limit.saturating_sub(others + rolling));
        match rolling + free {
            0 => all.remove(of),
            taken => all.insert(of.to_owned(), taken),
        };
        free
    }

    /// Gives the places of those back that are gone.
    pub(super) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.rolling.lock().unwrap_or_else(PoisonError::into_inner).retain(|of, _| is_there(of));
    }

    /// Waits until a workload may be changed.
    pub(super) async fn turn(&self) {
        let mut next = self.next.lock().await;
        if let Some(at) = *next {
            tokio::time::sleep_until(at).await;
        }
        *next = Some(Instant::now() + SPACING);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_has_one_limit_for_all() {
        let traffic = Traffic::new(20);
        assert_eq!(traffic.places("a", 0, 5), 5);
        assert_eq!(traffic.places("b", 13, 5), 2, "20 in all");
        assert_eq!(traffic.places("c", 0, 5), 0);
        assert_eq!(traffic.places("a", 1, 0), 0, "four of a's have come back");
        assert_eq!(traffic.places("c", 0, 5), 4);
        traffic.retain(|of| of == "c");
        assert_eq!(traffic.places("a", 0, 20), 16);
    }

    #[tokio::test(start_paused = true)]
    async fn twenty_changes_take_a_second() {
        let traffic = Traffic::new(1);
        let began = Instant::now();
        for _ in 0..21 {
            traffic.turn().await;
        }
        assert_eq!(began.elapsed(), Duration::from_secs(1));
    }
}
