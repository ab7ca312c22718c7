//! The requests of one trace, put in their order before they are in a lane. What has to wait for another is on the disk meanwhile, and
//! answered.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::forward::{Forwarder, NotTaken, parse_lane};
use super::otlp::Seen;
use super::request::StoredRequest;
use super::spool::Ticket;
use crate::core::relay::lanes::{LaneId, Queue};
use crate::core::relay::sender::{ExperimentRef, Sender};
use crate::core::relay::traces::{Key, Rank, Release};

impl Forwarder {
    /// Takes spans of these traces.
    pub async fn accept_spans(
        self: &Arc<Self>,
        sender: &Sender,
        experiment: ExperimentRef,
        request: StoredRequest,
        seen: Vec<Seen>,
    ) -> Result<(), NotTaken> {
        let lane = self.lane(sender, &experiment).await?;
        self.accept(lane, sender, experiment, request).await?;
        let now = self.now();
        for Seen { trace, is_root } in seen {
            let release = self.traces().spans((sender.to_string(), trace), lane, is_root, now);
            if let Some(release) = release {
                // Nobody has to wait for it.
                tokio::spawn(self.clone().line_up(release));
            }
        }
        self.rooted.notify_waiters();
        Ok(())
    }

    /// Takes a trace's row, and says whether its spans were seen. It waits for its root span, in memory for a moment.
    pub async fn accept_start(
        self: Arc<Self>,
        sender: Sender,
        experiment: ExperimentRef,
        request: StoredRequest,
        needs_spans: bool,
    ) -> Result<bool, NotTaken> {
        let key = (sender.to_string(), request.trace.clone());
        let lane = self.lane(&sender, &experiment).await?;
        let goes = self.traces().start(&key, lane, needs_spans, self.now());
        if goes || self.root_comes(&key).await {
            if let Err(error) = self.accept(lane, &sender, experiment, request).await {
                self.traces().refused(&key);
                return Err(error);
            }
            let release = self.traces().taken(&key);
            if let Some(release) = release {
                self.clone().line_up(release).await;
            }
        } else if let Err(error) = self.clone().keep_waiting(&key, Rank::Start, lane, request).await {
            self.traces().refused(&key);
            return Err(error);
        }
        Ok(self.traces().has_spans(&key))
    }

    /// Takes what comes after a trace's row; without a trace that is known it goes to the experiment of the workload.
    pub async fn accept_follower(
        self: Arc<Self>,
        sender: Sender,
        of_workload: ExperimentRef,
        rank: Rank,
        request: StoredRequest,
    ) -> Result<(), NotTaken> {
        let key = (sender.to_string(), request.trace.clone());
        let (goes, lane) = {
            let mut traces = self.traces();
            (traces.may_follow(&key, self.now()), traces.lane(&key))
        };
        let lane = match lane {
            Some(lane) => lane,
            None => self.lane(&sender, &of_workload).await?,
        };
        if !goes {
            return self.keep_waiting(&key, rank, lane, request).await;
        }
        let named = self.spool.name(lane).as_deref().and_then(parse_lane);
        let experiment = named.map_or(of_workload, |(_, experiment)| experiment);
        self.accept(lane, &sender, experiment, request).await
    }

    /// Lines up what has waited long enough, and says when the next will have.
    pub(super) fn release_overdue(self: &Arc<Self>) -> Option<Duration> {
        let (overdue, next) = {
            let mut traces = self.traces();
            (traces.due(self.now()), traces.next_due())
        };
        for release in overdue {
            tokio::spawn(self.clone().line_up(release));
        }
        next
    }

    async fn root_comes(&self, key: &Key) -> bool {
        let comes = async {
            loop {
                let rooted = self.rooted.notified();
                if self.traces().has_root(key) {
                    return;
                }
                rooted.await;
            }
        };
        timeout(ROOT_PATIENCE, comes).await.is_ok()
    }

    async fn keep_waiting(
        self: Arc<Self>,
        key: &Key,
        rank: Rank,
        lane: LaneId,
        request: StoredRequest,
    ) -> Result<(), NotTaken> {
        let ticket = self.spool.put(lane, Queue::Waiting, self.spool.reserve(), request.to_bytes()).await?;
        self.tally.held(&key.0, 1);
        self.tally.accepted(&key.0);
        let release = self.traces().wait(key, rank, ticket, self.now());
        match release {
            Some(release) => self.line_up(release).await,
            None => self.wake.notify_one(),
        }
        Ok(())
    }

    async fn line_up(self: Arc<Self>, release: Release<Ticket>) {
        let mut next = Some(release);
        while let Some(Release { key, lane, waiting }) = next {
            match self.spool.line_up(&waiting, lane).await {
                Ok(lanes) => {
                    let mut all = self.lanes();
                    lanes.into_iter().for_each(|lane| all.arrived(lane));
                    drop(all);
                    self.wake.notify_one();
                }
                Err(error) => tracing::error!(%error, "what waited is sent only after a new start"),
            }
            next = self.traces().taken(&key);
        }
    }
}

/// Most root spans come within this time after their trace's row, and then nothing has to be written to the disk.
const ROOT_PATIENCE: Duration = Duration::from_millis(200);
