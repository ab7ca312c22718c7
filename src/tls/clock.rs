//! Time as a parameter of what lives for a year, so that a test can walk through it.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;

/// Tells the time, and waits.
pub trait Clock: Send + Sync {
    /// What the wall clock shows: it may jump, in both directions.
    fn now(&self) -> Timestamp;

    /// Ready after `time`. Not longer than minutes: a timer does not count the time that a machine sleeps, so whoever waits
    /// for an hour of the day looks at [`Clock::now`] again and again.
    fn wait(&self, time: Duration) -> BoxFuture<'static, ()>;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn wait(&self, time: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(time).boxed()
    }
}
