//! Work beside the passes that must not outlive the leadership under which it began.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinSet;

/// Tasks that end with this.
#[derive(Debug, Default)]
pub(in crate::controller) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    pub(in crate::controller) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }

    /// Waits for it, but not for long: it goes on then.
    pub(in crate::controller) async fn spawn_and_wait(
        &self,
        work: impl Future<Output = ()> + Send + 'static,
        patience: Duration,
    ) {
        let (work, mut done) = work.remote_handle();
        self.spawn(work);
        if tokio::time::timeout(patience, &mut done).await.is_err() {
            done.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_takes_longer_goes_on_and_ends_with_the_leadership() {
        let (tasks, steps) = (Tasks::default(), Arc::new(AtomicUsize::new(0)));
        let seen = steps.clone();
        let work = async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                seen.fetch_add(1, Ordering::SeqCst);
            }
        };
        tasks.spawn_and_wait(work, Duration::from_millis(2500)).await;
        assert_eq!(steps.load(Ordering::SeqCst), 2);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(steps.load(Ordering::SeqCst), 4);
        drop(tasks);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(steps.load(Ordering::SeqCst), 4);
    }
}
