//! Namespaces to be swept, each once, however often it is said.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Suspect;

/// Most suspects that are remembered: users choose the labels that name them. The daily look finds the others.
const MAX_SUSPECTS: usize = 10_000;

/// AgentTracings of which something may carry the wiring although they are gone.
#[derive(Debug, Default)]
pub(in crate::controller) struct Suspects {
    all: Mutex<HashSet<Suspect>>,
    added: Notify,
}

impl Suspects {
    pub(in crate::controller) fn add(&self, suspect: Suspect) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < MAX_SUSPECTS && all.insert(suspect) {
            self.added.notify_one();
        }
    }

    /// All that were added within this time after the first.
    pub(super) async fn gathered(&self, window: Duration) -> HashSet<Suspect> {
        loop {
            self.added.notified().await;
            tokio::time::sleep(window).await;
            let all = std::mem::take(&mut *self.all.lock().unwrap_or_else(PoisonError::into_inner));
            if !all.is_empty() {
                return all;
            }
        }
    }
}

/// Namespaces, and from when on each is to be swept.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    due: BTreeMap<String, Instant>,
    /// Those that are being swept.
    busy: HashSet<String>,
}

impl Queue {
    /// To be swept now.
    pub(super) fn add(&self, namespace: &str) {
        self.inner().due.insert(namespace.to_owned(), Instant::now());
        self.changed.notify_one();
    }

    /// The one that is due first, as soon as it is. Nobody else gets it until it is done.
    pub(super) async fn next(&self) -> String {
        loop {
            let first = {
                let mut inner = self.inner();
                let Inner { due, busy } = &mut *inner;
                let free = due.iter().filter(|(namespace, _)| !busy.contains(*namespace));
                let first = free.min_by_key(|(_, at)| **at).map(|(namespace, at)| (namespace.clone(), *at));
                if let Some((namespace, at)) = &first
                    && *at <= Instant::now()
                {
                    due.remove(namespace);
                    busy.insert(namespace.clone());
                    if !due.is_empty() {
                        self.changed.notify_one();
                    }
                    return namespace.clone();
                }
                first
            };
            match first {
                Some((_, at)) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    /// It has had its turn; it comes again after this time, unless it was added meanwhile.
    pub(super) fn done(&self, namespace: &str, again: Option<Duration>) {
        let mut inner = self.inner();
        inner.busy.remove(namespace);
        if let Some(after) = again {
            inner.due.entry(namespace.to_owned()).or_insert_with(|| Instant::now() + after);
        }
        self.changed.notify_one();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suspect(n: usize) -> Suspect {
        Suspect { namespace: format!("n{n}"), tracing: "tracing".to_owned() }
    }

    /// Review B3: a channel that nobody read while four namespaces were swept grew for as long.
    #[tokio::test(start_paused = true)]
    async fn suspects_are_remembered_once_and_not_without_end() {
        let suspects = Suspects::default();
        for n in 0..2 * MAX_SUSPECTS {
            suspects.add(suspect(n));
            suspects.add(suspect(0));
        }
        assert_eq!(suspects.gathered(Duration::from_secs(5)).await.len(), MAX_SUSPECTS);
        suspects.add(suspect(1));
        assert_eq!(suspects.gathered(Duration::from_secs(5)).await, HashSet::from([suspect(1)]));
    }

    /// Review C3: four namespaces under a change freeze kept all others from being swept.
    #[tokio::test(start_paused = true)]
    async fn one_that_comes_again_later_makes_room_for_the_others() {
        let queue = Queue::default();
        queue.add("frozen");
        assert_eq!(queue.next().await, "frozen");
        queue.add("frozen");
        queue.add("other");
        assert_eq!(queue.next().await, "other", "nobody gets one twice at a time");
        queue.done("frozen", Some(Duration::from_secs(30)));
        assert_eq!(queue.next().await, "frozen", "it was added meanwhile");
        queue.done("frozen", Some(Duration::from_secs(30)));
        let began = Instant::now();
        assert_eq!(queue.next().await, "frozen");
        assert_eq!(began.elapsed(), Duration::from_secs(30));
        queue.done("frozen", None);
        queue.done("other", None);
        assert!(tokio::time::timeout(Duration::from_secs(3600), queue.next()).await.is_err(), "nothing is left");
    }
}
