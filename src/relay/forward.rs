//! Store and forward: what an agent sends goes straight to MLflow where MLflow takes it at once, else into the spool, and from there to
//! MLflow as soon as it takes it. An agent is answered when its request is in one of the two.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::otlp;
use super::request::SpanRequest;
use super::spool::{self, Found, Spool, Ticket};
use super::target::Target;
use crate::core::relay::cause::{Cause, Scope};
use crate::core::relay::evidence::{Evidence, HeldEvidence, SpoolEvidence, WorkloadEvidence};
use crate::core::relay::lanes::{Ended, LaneId, Lanes, Place, Queue};
use crate::core::relay::sender::{ExperimentRef, Sender};
use crate::mlflow::Http;

/// Takes requests and forwards them.
#[derive(Debug)]
pub struct Forwarder {
    spool: Spool,
    lanes: Mutex<Lanes>,
    tally: Mutex<Tally>,
    /// Something arrived, ended or changed.
    wake: Notify,
    targets: watch::Receiver<Option<Arc<Target>>>,
    http: watch::Receiver<Http>,
    started: Instant,
}

#[derive(Debug, Default)]
struct Tally {
    workloads: BTreeMap<String, WorkloadEvidence>,
    /// Since when everybody is held up.
    held_since: Option<Timestamp>,
}

/// Why a request is not taken now. Whoever sent it keeps it and comes again.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// It cannot be kept.
    #[error("{0}")]
    Spool(#[from] spool::Error),
    /// The relay ends.
    #[error("the relay is ending")]
    Ending,
}

impl Forwarder {
    /// A forwarder of what is found in the spool and of what comes.
    pub fn new(
        (spool, found): (Spool, Vec<Found>),
        targets: watch::Receiver<Option<Arc<Target>>>,
        http: watch::Receiver<Http>,
    ) -> Self {
        let mut lanes = Lanes::new(1);
        let mut tally = Tally::default();
        for Found { name, lane, queue, count } in found {
            lanes.found(lane, queue, count);
            if let Some((sender, _)) = parse_lane(&name) {
                tally.workloads.entry(sender.to_string()).or_default().held += count;
            }
        }
        let (lanes, tally) = (Mutex::new(lanes), Mutex::new(tally));
        Self { spool, lanes, tally, wake: Notify::new(), targets, http, started: Instant::now() }
    }

    /// The name of a workload's experiment, if it is known yet where traces go.
    pub fn experiment_of(&self, sender: &Sender) -> Option<String> {
        self.targets.borrow().as_ref().map(|target| target.experiment_of(sender))
    }

    /// Takes a request. When this returns it is in MLflow or on the disk.
    pub async fn accept(
        self: &Arc<Self>,
        sender: &Sender,
        experiment: ExperimentRef,
        request: SpanRequest,
    ) -> Result<(), NotTaken> {
        let sender = sender.to_string();
        let lane = self.spool.lane(&format!("{sender} {experiment}")).await?;
        let knows_where = self.targets.borrow().is_some();
        let is_direct = knows_where && self.lanes().take_direct(lane, self.now());
        if is_direct {
            let (answer, answered) = oneshot::channel();
            // In a task of its own: an agent that hangs up does not end what is under way.
            tokio::spawn(self.clone().direct(lane, sender.clone(), experiment, request, answer));
            answered.await.map_err(|_| NotTaken::Ending)??;
        } else {
            self.store(lane, &sender, request.to_bytes()).await?;
        }
        self.count(&sender, |workload| workload.accepted += 1);
        Ok(())
    }

    /// Forwards for ever.
    pub async fn forward(self: Arc<Self>) -> Infallible {
        let mut targets = self.targets.clone();
        // What is found in the spool at the start waits until it is known where to; a sender that is gone never says it.
        if targets.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
        targets.mark_changed();
        loop {
            // Before the look, so that nothing that happens after it is missed.
            let woken = self.wake.notified();
            let (next, due) = {
                let (now, mut lanes) = (self.now(), self.lanes());
                (lanes.take_next(now), lanes.next_due(now).map(|due| due.saturating_sub(now)))
            };
            if let Some((lane, queue)) = next {
                tokio::spawn(self.clone().send_first(lane, queue));
                continue;
            }
            tokio::select! {
                () = woken => {}
                () = sleep(due.unwrap_or(Duration::MAX)), if due.is_some() => {}
                changed = targets.changed() => {
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                    let concurrency = targets.borrow_and_update().as_ref().map_or(1, |target| target.concurrency());
                    let mut lanes = self.lanes();
                    lanes.set_concurrency(concurrency);
                    lanes.retry_all();
                }
            }
        }
    }

    /// What is known of the traces.
    pub fn evidence(&self) -> Evidence {
        let (bytes, limit) = self.spool.bytes();
        let (tally, lanes) = (self.tally(), self.lanes());
        let hold = lanes.server_hold();
        Evidence {
            workloads: tally.workloads.clone(),
            held: hold
                .zip(tally.held_since)
                .map(|(hold, since)| HeldEvidence { cause: hold.cause.as_str().to_owned(), since }),
            spool: SpoolEvidence { bytes, limit },
        }
    }

    /// Sends a request past the spool. If MLflow does not take it, or not soon, it goes into the spool, and whoever sent it is answered.
    async fn direct(
        self: Arc<Self>,
        lane: LaneId,
        sender: String,
        experiment: ExperimentRef,
        request: SpanRequest,
        answer: oneshot::Sender<Result<(), NotTaken>>,
    ) {
        let mut sending = Box::pin(self.send(&experiment, &request));
        let soon = timeout(DIRECT_PATIENCE, &mut sending).await.ok();
        if soon == Some(Ok(())) {
            let _ = answer.send(Ok(()));
            self.end(lane, Place::Direct, &sender, Ok(()));
            return;
        }
        let stored = self.store(lane, &sender, request.to_bytes()).await;
        let ticket = stored.as_ref().ok().copied();
        let ended = match (soon, stored) {
            (Some(ended), stored) => {
                let _ = answer.send(stored.map(|_| ()));
                ended
            }
            (None, Ok(_)) => {
                let _ = answer.send(Ok(()));
                sending.await
            }
            // There is no room to keep it, so MLflow's answer decides.
            (None, Err(full)) => {
                let ended = sending.await;
                let _ = answer.send(if ended.is_ok() { Ok(()) } else { Err(full) });
                ended
            }
        };
        match ticket {
            Some(ticket) => self.settle(ticket, &sender, ended).await,
            None => self.end(lane, Place::Direct, &sender, ended),
        }
    }

    /// Sends the first request of a queue.
    async fn send_first(self: Arc<Self>, lane: LaneId, queue: Queue) {
        let place = Place::Spooled(queue);
        let name = self.spool.name(lane).unwrap_or_default();
        let (Ok(Some((ticket, kept))), Some((sender, experiment))) =
            (self.spool.first(lane, queue).await, parse_lane(&name))
        else {
            tracing::warn!(lane, name, "a request of the spool cannot be read; it is tried again");
            self.end(lane, place, "", Err(Cause::Failed));
            return;
        };
        let ended = match SpanRequest::parse(&kept) {
            Some(request) => self.send(&experiment, &request).await,
            None => Err(Cause::Failed),
        };
        self.settle(ticket, &sender.to_string(), ended).await;
    }

    async fn send(&self, experiment: &ExperimentRef, request: &SpanRequest) -> Result<(), Cause> {
        let Some(target) = self.targets.borrow().clone() else { return Err(Cause::NoAddress) };
        let http = self.http.borrow().clone();
        let spans: Bytes = otlp::unpack(request.encoding, &request.body).map_err(|_| Cause::Failed)?;
        target.send(&http, experiment, spans).await
    }

    /// The end of a request that is in the spool.
    async fn settle(&self, ticket: Ticket, sender: &str, ended: Result<(), Cause>) {
        let written = match ended {
            Ok(()) => self.spool.delete(ticket).await,
            Err(cause) if cause.scope() == Scope::Request && ticket.queue == Queue::Ready => {
                self.spool.set_aside(ticket).await
            }
            Err(_) => Ok(()),
        };
        if let Err(error) = written {
            tracing::error!(%error, "a request that MLflow answered stays in the spool; it is sent again");
        }
        if ended.is_ok() {
            self.count(sender, |workload| workload.held = workload.held.saturating_sub(1));
        }
        self.end(ticket.lane, Place::Spooled(ticket.queue), sender, ended);
    }

    /// Puts a request into the spool.
    async fn store(&self, lane: LaneId, sender: &str, kept: Bytes) -> Result<Ticket, NotTaken> {
        let ticket = self.spool.put(lane, kept).await?;
        self.lanes().arrived(lane);
        self.count(sender, |workload| workload.held += 1);
        self.wake.notify_one();
        Ok(ticket)
    }

    /// Gives a place back and counts.
    fn end(&self, lane: LaneId, place: Place, sender: &str, ended: Result<(), Cause>) {
        let held = {
            let mut lanes = self.lanes();
            lanes.ended(lane, place, ended.map_or_else(Ended::Held, |()| Ended::Gone), self.now());
            lanes.server_hold()
        };
        let now = Timestamp::now();
        let mut tally = self.tally();
        match (held, tally.held_since) {
            (Some(hold), None) => {
                tracing::warn!(cause = hold.cause.as_str(), "MLflow takes nothing; what comes is held");
                tally.held_since = Some(now);
            }
            (None, Some(since)) => {
                tracing::info!(seconds = now.duration_since(since).as_secs(), "MLflow takes traces again");
                tally.held_since = None;
            }
            _ => {}
        }
        let workload = tally.workloads.entry(sender.to_owned()).or_default();
        match ended {
            Ok(()) => {
                workload.forwarded += 1;
                (workload.last_forwarded, workload.cause) = (Some(now), None);
            }
            Err(cause) => workload.cause = Some(cause.as_str().to_owned()),
        }
        drop(tally);
        self.wake.notify_one();
    }

    fn count(&self, sender: &str, change: impl FnOnce(&mut WorkloadEvidence)) {
        change(self.tally().workloads.entry(sender.to_owned()).or_default());
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `deployment/teller name:teller`. An experiment's name may have spaces, a workload has none.
fn parse_lane(name: &str) -> Option<(Sender, ExperimentRef)> {
    let (sender, experiment) = name.split_once(' ')?;
    Some((sender.parse().ok()?, experiment.parse().ok()?))
}

/// How long an agent waits for MLflow itself before its request is written to the disk and answered.
const DIRECT_PATIENCE: Duration = Duration::from_millis(200);
