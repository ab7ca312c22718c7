//! A process that stood still, stopped by a signal or starved, does not know how late it is.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::interval;

/// After a standstill of this length work of the leader is given up: another one may lead. Below the time between the moment
/// at which a leader that cannot renew its lease gives up and the moment at which the lease ends.
pub const STALL_LIMIT: Duration = Duration::from_secs(4);

/// Works on unless the process stood still for longer than `limit`, and does not take one more step then. The lease alone
/// does not see to that: a process that was stopped and goes on finds its work due at once, and the lease's renewal beside it,
/// and whatever the work does first is done by a leader that is none any more.
pub async fn unless_stalled<F: Future>(limit: Duration, work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    // Work that waits for long is no standstill.
    let mut pulse = interval(limit / 4);
    let mut seen = Instant::now();
    poll_fn(|context| {
        if seen.elapsed() > limit {
            return Poll::Ready(None);
        }
        seen = Instant::now();
        while pulse.poll_tick(context).is_ready() {}
        work.as_mut().poll(context).map(Some)
    })
    .await
}

/// The same in a task of its own, so that it keeps nothing else waiting. It ends with the future that waits for it, which a panic
/// goes through.
pub async fn spawned<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Option<T> {
    let mut tasks = JoinSet::new();
    tasks.spawn(unless_stalled(STALL_LIMIT, work));
    match tasks.join_next().await? {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn work_that_stood_still_takes_no_further_step() {
        let mut steps = 0;
        let work = async {
            loop {
                steps += 1;
                sleep(Duration::from_millis(5)).await;
            }
        };
        let stopped = async { std::thread::sleep(Duration::from_millis(300)) };
        let (worked, ()) = tokio::join!(unless_stalled(Duration::from_millis(100), work), stopped);
        let ended: Option<Infallible> = worked;
        assert!(ended.is_none());
        assert_eq!(steps, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_waits_for_long_goes_on() {
        let work = async {
            sleep(Duration::from_secs(3600)).await;
            "done"
        };
        assert_eq!(unless_stalled(STALL_LIMIT, work).await, Some("done"));
    }

    #[tokio::test]
    async fn work_in_a_task_of_its_own_ends_with_whoever_waits_for_it() {
        let (alive, mut ended) = tokio::sync::oneshot::channel::<()>();
        let work = async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        };
        assert!(tokio::time::timeout(Duration::from_millis(50), spawned(work)).await.is_err());
        assert!(tokio::time::timeout(Duration::from_secs(5), &mut ended).await.unwrap().is_err());
        assert_eq!(spawned(async { 7 }).await, Some(7));
    }
}
