//! What the relay has seen of each workload.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::core::relay::cause::Cause;
use crate::core::relay::evidence::WorkloadEvidence;
use crate::core::relay::lanes::Hold;

/// Counts since the relay started.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    workloads: BTreeMap<String, WorkloadEvidence>,
    /// Since when everybody is held up.
    held_since: Option<Timestamp>,
}

impl Tally {
    /// Requests were answered with 200.
    pub fn accepted(&self, sender: &str) {
        self.of(sender, |workload| workload.accepted += 1);
    }

    /// So many requests wait in addition.
    pub fn held(&self, sender: &str, count: u64) {
        self.of(sender, |workload| workload.held += count);
    }

    /// One of those that wait is gone.
    pub fn released(&self, sender: &str) {
        self.of(sender, |workload| workload.held = workload.held.saturating_sub(1));
    }

    /// MLflow has answered, and this is what holds up everybody now.
    pub fn answered(&self, sender: &str, ended: Result<(), Cause>, hold: Option<Hold>) {
        let now = Timestamp::now();
        let mut counts = self.lock();
        match (hold, counts.held_since) {
            (Some(hold), None) => {
                tracing::warn!(cause = hold.cause.as_str(), "MLflow takes nothing; what comes is held");
                counts.held_since = Some(now);
            }
            (None, Some(since)) => {
                tracing::info!(seconds = now.duration_since(since).as_secs(), "MLflow takes traces again");
                counts.held_since = None;
            }
            _ => {}
        }
        let workload = counts.workloads.entry(sender.to_owned()).or_default();
        match ended {
            Ok(()) => {
                workload.forwarded += 1;
                (workload.last_forwarded, workload.cause) = (Some(now), None);
            }
            Err(cause) => workload.cause = Some(cause.as_str().to_owned()),
        }
    }

    /// By workload, and since when everybody is held up.
    pub fn all(&self) -> (BTreeMap<String, WorkloadEvidence>, Option<Timestamp>) {
        let counts = self.lock();
        (counts.workloads.clone(), counts.held_since)
    }

    fn of(&self, sender: &str, change: impl FnOnce(&mut WorkloadEvidence)) {
        change(self.lock().workloads.entry(sender.to_owned()).or_default());
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
