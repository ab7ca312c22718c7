//! Store and forward: what an agent sends goes straight to MLflow where MLflow takes it at once, else into the spool, and from there to
//! MLflow as soon as it takes it. An agent is answered when its request is in one of the two.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::experiments::Experiments;
use super::otlp;
use super::request::{Kind, StoredRequest};
use super::spool::{self, Found, Spool, Ticket};
use super::tally::Tally;
use super::target::Target;
use crate::core::relay::aside::Aside;
use crate::core::relay::cause::{Cause, Scope};
use crate::core::relay::evidence::{Evidence, HeldEvidence, SpoolEvidence};
use crate::core::relay::lanes::{Ended, LaneId, Lanes, Place, Queue};
use crate::core::relay::sender::{ExperimentRef, Sender};
use crate::core::relay::traces::Traces;
use crate::mlflow::Http;

/// Takes requests and forwards them.
#[derive(Debug)]
pub struct Forwarder {
    pub(super) spool: Spool,
    lanes: Mutex<Lanes>,
    traces: Mutex<Traces<Ticket>>,
    aside: Mutex<Aside>,
    pub(super) experiments: Experiments,
    pub(super) tally: Tally,
    /// Something arrived, ended or changed.
    pub(super) wake: Notify,
    /// A place may be free.
    pub(super) freed: Notify,
    /// A root span was taken.
    pub(super) rooted: Notify,
    targets: watch::Receiver<Option<Arc<Target>>>,
    http: watch::Receiver<Http>,
    started: Instant,
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
        let (mut lanes, tally, experiments) = (Lanes::new(1), Tally::default(), Experiments::default());
        for Found { name, lane, queue, count } in found {
            lanes.found(lane, queue, count);
            if let Some((sender, _)) = parse_lane(&name) {
                tally.held(&sender.to_string(), count);
            }
        }
        for name in spool.names() {
            if let Some((_, ExperimentRef::Name(name))) = parse_lane(&name) {
                experiments.remember(&name);
            }
        }
        let mut aside = Aside::default();
        let read = spool.each_aside(|lane, number, kept| {
            let traces = StoredRequest::parse(&kept).map(|request| traces_of(&request));
            aside.add(lane, number, traces.unwrap_or_default());
        });
        if let Err(error) = read {
            tracing::error!(%error, "failed to read what was set aside; it is sent in the order in which it came");
        }
        let (lanes, traces, aside) = (Mutex::new(lanes), Mutex::default(), Mutex::new(aside));
        let (wake, freed, rooted) = Default::default();
        let started = Instant::now();
        Self { spool, lanes, traces, aside, experiments, tally, wake, freed, rooted, targets, http, started }
    }

    /// Where traces go, if it is known yet.
    pub fn target(&self) -> Option<Arc<Target>> {
        self.targets.borrow().clone()
    }

    /// With what MLflow is spoken to.
    pub fn http(&self) -> Http {
        self.http.borrow().clone()
    }

    /// The lane of what a workload sends to an experiment.
    pub async fn lane(&self, sender: &Sender, experiment: &ExperimentRef) -> Result<LaneId, NotTaken> {
        Ok(self.spool.lane(&format!("{sender} {experiment}")).await?)
    }

    /// Takes a request. When this returns it is in MLflow or on the disk.
    pub async fn accept(
        self: &Arc<Self>,
        lane: LaneId,
        sender: &Sender,
        experiment: ExperimentRef,
        request: StoredRequest,
    ) -> Result<(), NotTaken> {
        let sender = sender.to_string();
        let knows_where = self.targets.borrow().is_some();
        let is_behind = || !self.aside().is_empty(lane) && self.aside().holds(lane, &traces_of(&request));
        let is_direct = knows_where && !is_behind() && self.lanes().take_direct(lane, self.now());
        if is_direct {
            let (answer, answered) = oneshot::channel();
            // In a task of its own: an agent that hangs up does not end what is under way.
            tokio::spawn(self.clone().direct(lane, sender.clone(), experiment, request, answer));
            answered.await.map_err(|_| NotTaken::Ending)??;
        } else {
            self.store(lane, &sender, self.spool.reserve(), request.to_bytes()).await?;
        }
        self.tally.accepted(&sender);
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
            let overdue = self.release_overdue();
            let (next, due) = {
                let (now, mut lanes) = (self.now(), self.lanes());
                let next = lanes.take_next(now);
                (next, lanes.next_due(now).into_iter().chain(overdue).min().map(|due| due.saturating_sub(now)))
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
        let (mut workloads, held_since) = self.tally.all();
        let hold = self.lanes().server_hold();
        let mut holds: Vec<_> = self.lanes().holds().collect();
        // What goes through in one lane of a workload hides none that does not in another; what holds up a whole lane counts most.
        holds.sort_by_key(|(_, cause)| cause.scope() == Scope::Lane);
        for (lane, cause) in holds {
            let sender = self.spool.name(lane).and_then(|name| Some(parse_lane(&name)?.0.to_string()));
            if let Some(workload) = sender.and_then(|sender| workloads.get_mut(&sender)) {
                workload.cause = Some(cause.as_str().to_owned());
            }
        }
        Evidence {
            workloads,
            held: hold
                .zip(held_since)
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
        request: StoredRequest,
        answer: oneshot::Sender<Result<(), NotTaken>>,
    ) {
        // Taken now, so that nothing that comes meanwhile gets before it.
        let number = self.spool.reserve();
        let mut sending = Box::pin(self.send(&experiment, &request));
        let soon = timeout(DIRECT_PATIENCE, &mut sending).await.ok();
        if soon == Some(Ok(())) {
            let _ = answer.send(Ok(()));
            self.end(lane, Place::Direct, &sender, Ended::Gone);
            return;
        }
        let stored = self.store(lane, &sender, number, request.to_bytes()).await;
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
            Some(ticket) => self.settle(ticket, &sender, &request, ended).await,
            None => self.end(lane, Place::Direct, &sender, ended.map_or_else(Ended::Held, |()| Ended::Gone)),
        }
    }

    /// Sends the next request of a queue.
    async fn send_first(self: Arc<Self>, lane: LaneId, queue: Queue) {
        let place = Place::Spooled(queue);
        let name = self.spool.name(lane).unwrap_or_default();
        let from = if queue == Queue::Aside { self.aside().next(lane).unwrap_or_default() } else { 0 };
        let (Ok(Some((ticket, kept))), Some((sender, experiment))) =
            (self.spool.first(lane, queue, from).await, parse_lane(&name))
        else {
            tracing::warn!(lane, name, "a request of the spool cannot be read; it is tried again");
            self.end(lane, place, "", Ended::Held(Cause::Failed));
            return;
        };
        let sender = sender.to_string();
        let Some(request) = StoredRequest::parse(&kept) else {
            self.set_aside(ticket, &[]).await;
            self.end(lane, place, &sender, Ended::Held(Cause::Failed));
            return;
        };
        if queue == Queue::Ready && !self.aside().is_empty(lane) {
            let traces = traces_of(&request);
            if self.aside().holds(lane, &traces) {
                self.set_aside(ticket, &traces).await;
                self.end(lane, place, &sender, Ended::Behind);
                return;
            }
        }
        let ended = self.send(&experiment, &request).await;
        self.settle(ticket, &sender, &request, ended).await;
    }

    async fn send(&self, experiment: &ExperimentRef, request: &StoredRequest) -> Result<(), Cause> {
        let target = self.target().ok_or(Cause::NoAddress)?;
        target.send(&self.http(), experiment, request).await
    }

    /// The end of a request that is in the spool.
    async fn settle(&self, ticket: Ticket, sender: &str, request: &StoredRequest, ended: Result<(), Cause>) {
        let is_refused = ended.is_err_and(|cause| cause.scope() == Scope::Request);
        let is_given_up = is_refused && request.kind.is_follower() && request.age() > GIVE_UP;
        let ended = match ended {
            Ok(()) => Ended::Gone,
            Err(_) if is_given_up => {
                tracing::warn!(
                    sender,
                    trace = request.trace,
                    "given up: MLflow has refused an assessment or a tag for a day"
                );
                Ended::Gone
            }
            Err(cause) => Ended::Held(cause),
        };
        match ended {
            Ended::Gone => {
                if let Err(error) = self.spool.delete(ticket).await {
                    tracing::error!(%error, "a request that MLflow has taken stays in the spool; it is sent again");
                }
                self.aside().remove(ticket.lane, ticket.number);
                self.tally.released(sender);
            }
            Ended::Held(cause) if cause.scope() == Scope::Request && ticket.queue == Queue::Ready => {
                self.set_aside(ticket, &traces_of(request)).await;
            }
            Ended::Held(_) | Ended::Behind => {}
        }
        self.end(ticket.lane, Place::Spooled(ticket.queue), sender, ended);
    }

    async fn set_aside(&self, ticket: Ticket, traces: &[String]) {
        match self.spool.set_aside(ticket).await {
            Ok(aside) => self.aside().add(aside.lane, aside.number, traces.to_vec()),
            Err(error) => tracing::error!(%error, "a request that MLflow refuses cannot be set aside"),
        }
    }

    /// Puts a request into the spool, to be sent.
    async fn store(&self, lane: LaneId, sender: &str, number: u64, kept: Bytes) -> Result<Ticket, NotTaken> {
        let ticket = self.spool.put(lane, Queue::Ready, number, kept).await?;
        self.lanes().arrived(lane);
        self.tally.held(sender, 1);
        self.wake.notify_one();
        Ok(ticket)
    }

    /// Gives a place back and counts.
    fn end(&self, lane: LaneId, place: Place, sender: &str, ended: Ended) {
        let hold = {
            let mut lanes = self.lanes();
            lanes.ended(lane, place, ended, self.now());
            lanes.server_hold()
        };
        match ended {
            Ended::Gone => self.tally.answered(sender, Ok(()), hold),
            Ended::Held(cause) => self.tally.answered(sender, Err(cause), hold),
            Ended::Behind => {}
        }
        self.wake.notify_one();
        self.freed.notify_waiters();
    }

    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn traces(&self) -> MutexGuard<'_, Traces<Ticket>> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn aside(&self) -> MutexGuard<'_, Aside> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The traces that a request is about.
fn traces_of(request: &StoredRequest) -> Vec<String> {
    match request.kind {
        Kind::Spans(encoding) => {
            let spans = otlp::unpack(encoding, &request.body).and_then(|spans| otlp::seen(&spans));
            spans.unwrap_or_default().into_iter().map(|seen| seen.trace).collect()
        }
        _ => vec![request.trace.clone()],
    }
}

/// `deployment/teller name:teller`. An experiment's name may have spaces, a workload has none.
pub(super) fn parse_lane(name: &str) -> Option<(Sender, ExperimentRef)> {
    let (sender, experiment) = name.split_once(' ')?;
    Some((sender.parse().ok()?, experiment.parse().ok()?))
}

/// How long an agent waits for MLflow itself before its request is written to the disk and answered.
const DIRECT_PATIENCE: Duration = Duration::from_millis(200);
/// An assessment or a tag that MLflow refuses, most often because the trace was deleted, is tried so long.
const GIVE_UP: Duration = Duration::from_secs(86_400);
