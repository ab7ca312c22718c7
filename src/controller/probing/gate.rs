//! How often one MLflow server is asked: one question at a time beside the prober's, and what is not urgent at a distance that
//! grows with the time that the server takes. MLflow 3.10.1 answers nobody while it is busy, so the operator must
//! not be what keeps it busy.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::core::url;

/// Questions to one server at a time. With the prober's there are two.
const AT_A_TIME: usize = 1;
/// Between two questions that are not urgent: 48 a minute at most.
const SPACING: Duration = Duration::from_millis(1250);
/// A server that took so long is left alone for so many times as long, and for no longer than [`LONGEST`].
const REST: u32 = 20;
const LONGEST: Duration = Duration::from_secs(15);

/// One server's gate.
#[derive(Debug)]
pub(in crate::controller) struct Gate {
    places: Semaphore,
    /// When the next question that is not urgent may be asked. Whoever waits holds it, in the order of their coming.
    next: tokio::sync::Mutex<Option<Instant>>,
    /// How long the last answer took.
    took: Mutex<Duration>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { places: Semaphore::new(AT_A_TIME), next: tokio::sync::Mutex::default(), took: Mutex::default() }
    }
}

impl Gate {
    /// Asks as soon as nobody else does.
    pub(in crate::controller) async fn ask<T>(&self, question: impl Future<Output = T>) -> T {
        let _place = self.place().await;
        let began = Instant::now();
        let answer = question.await;
        *self.took.lock().unwrap_or_else(PoisonError::into_inner) = began.elapsed();
        answer
    }

    /// Asks when it is calm.
    pub(in crate::controller) async fn ask_calmly<T>(&self, question: impl Future<Output = T>) -> T {
        {
            let mut next = self.next.lock().await;
            if let Some(at) = *next {
                tokio::time::sleep_until(at).await;
            }
            let took = *self.took.lock().unwrap_or_else(PoisonError::into_inner);
            *next = Some(Instant::now() + (took * REST).clamp(SPACING, LONGEST));
        }
        self.ask(question).await
    }

    /// The semaphore is never closed, so that there is always a place in the end.
    async fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.places.acquire().await.ok()
    }
}

/// The gates, by address. Behind one host, such as an ingress, there may be several servers that are told apart by their path, and
/// one that hangs must not delay those who use another. Whoever names one server by two addresses asks it twice as often.
#[derive(Debug, Default)]
pub(in crate::controller) struct Gates(Mutex<HashMap<String, Arc<Gate>>>);

impl Gates {
    pub(in crate::controller) fn of(&self, url: &str) -> Arc<Gate> {
        let address = url::address(url).unwrap_or_default();
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that nobody holds has nothing to remember but a moment.
        gates.retain(|of, gate| *of == address || Arc::strong_count(gate) > 1);
        gates.entry(address).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_and_no_more() {
        let (gate, now, most) = (Gate::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        let question = || async {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(100)).await;
            now.fetch_sub(1, Ordering::SeqCst);
        };
        join_all((0..20).map(|n| {
            let (gate, question) = (&gate, question());
            async move { if n % 2 == 0 { gate.ask(question).await } else { gate.ask_calmly(question).await } }
        }))
        .await;
        assert_eq!(most.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_urgent_comes_48_times_a_minute_and_less_often_to_a_slow_server() {
        for (takes, most) in [(10, 48), (500, 7), (5000, 5)] {
            let (gate, began, mut asked) = (Gate::default(), Instant::now(), 0);
            while began.elapsed() < Duration::from_secs(60) {
                gate.ask_calmly(async { tokio::time::sleep(Duration::from_millis(takes)).await }).await;
                asked += 1;
            }
            assert!((most - 2..=most + 1).contains(&asked), "{takes} ms: {asked}");
        }
    }

    /// Behind one ingress a server that hung delayed the questions to all others.
    #[tokio::test(start_paused = true)]
    async fn each_server_behind_one_host_has_a_gate_of_its_own() {
        let gates = Gates::default();
        let [bank, shop] = ["bank", "shop"].map(|path| gates.of(&format!("https://mlflow.example.com:8443/{path}")));
        let hangs = bank.ask(std::future::pending::<()>());
        let other = tokio::time::timeout(SPACING, shop.ask(async {}));
        tokio::select! {
            () = hangs => panic!("it hangs"),
            asked = other => asked.unwrap(),
        }
        assert!(Arc::ptr_eq(&bank, &gates.of("https://MLflow.example.com:8443/bank/")), "however it is written");
    }
}
