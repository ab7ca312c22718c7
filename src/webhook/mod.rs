//! The admission webhook: AdmissionReview in, decision of [`core`](crate::core), JSON patch out.
//!
//! The API server gives a webhook 2 seconds and, with `failurePolicy: Ignore`, drops what comes later without a word. So
//! every path here ends in an answer: a review that we cannot read, a kind that is not ours, even a panic is *allowed,
//! no patch, counted*. Only what is no review at all is refused.

mod limits;
mod outcome;
pub mod owner;
pub mod policy_cache;
mod review;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant as Moment, timeout_at};

use crate::core::decide::{Decision, decide};
use crate::core::inject::view::Workload;
use crate::core::selection::SelectionContext;
use crate::core::settings::Platform;
use crate::names;
use crate::telemetry::Metrics;
use outcome::{AdmissionOutcome, Answered, RequestRefusal};
use policy_cache::{NamespacePolicies, PolicyCache};
use review::{IgnoredRequest, WorkloadRequest};

/// Everything that answering a review needs.
#[derive(Debug)]
pub struct Webhook {
    cache: Arc<PolicyCache>,
    metrics: Arc<Metrics>,
    /// On plain Kubernetes, and on OpenShift.
    platforms: [Platform; 2],
    /// User name of the operator's own service account.
    operator_user: String,
    /// In KiB, for what bodies have beyond [`SMALL`].
    room: Arc<Semaphore>,
    /// Held while a body beyond [`SMALL`] is decided: what it is read into may be several times as large.
    turn: Arc<Semaphore>,
    decide: Decide,
}

type Decide = fn(&Workload<'_>, &SelectionContext<'_>) -> Decision;

/// The webhook as an HTTP service: tests drive it without a socket.
pub fn router(webhook: Arc<Webhook>) -> Router {
    Router::new().route(names::WEBHOOK_PATH, post(mutate)).with_state(webhook)
}

impl Webhook {
    /// A webhook that decides from `memory`.
    pub fn new(cache: Arc<PolicyCache>, metrics: Arc<Metrics>, platform: Platform) -> Self {
        Self {
            cache,
            metrics,
            operator_user: format!("system:serviceaccount:{}:{}", platform.operator_namespace, names::SERVICE_ACCOUNT),
            platforms: [false, true].map(|openshift| Platform { openshift, ..platform.clone() }),
            room: Arc::new(Semaphore::new(ROOM)),
            turn: Arc::new(Semaphore::new(1)),
            decide,
        }
    }

    /// Answers the body of one request, whatever it holds.
    pub fn answer(&self, body: &[u8]) -> Result<Vec<u8>, Rejection> {
        let started = Instant::now();
        let answered = std::panic::catch_unwind(AssertUnwindSafe(|| self.review(body, started)));
        let answered = answered.unwrap_or_else(|_| {
            // The request itself was read without panicking, unless the reader is what panics.
            let read = std::panic::catch_unwind(|| IgnoredRequest::parse(body).ok()).ok().flatten();
            let request = read.ok_or_else(|| RequestRefusal::NotAReview.message().to_owned())?;
            Ok(self.finish(&request, &AdmissionOutcome::panicked(), started))
        });
        answered.map_err(|reason| self.refuse(RequestRefusal::NotAReview, reason, started))
    }

    /// The answer, or why this is no review.
    fn review(&self, body: &[u8], started: Instant) -> Result<Vec<u8>, String> {
        let unreadable = match limits::body(body) {
            Ok(()) => match WorkloadRequest::parse(body) {
                Ok(request) => return Ok(self.finish(&request, &self.outcome(&request, body), started)),
                Err(error) => error.to_string(),
            },
            Err(limit) => limit.to_string(),
        };
        // The review or the object in it: without the object the review may be readable.
        match IgnoredRequest::parse(body) {
            Ok(request) if request.is_ours() => {
                Ok(self.finish(&request, &AdmissionOutcome::undecodable(unreadable), started))
            }
            Ok(request) => Ok(self.finish(&request, &AdmissionOutcome::other_kind(), started)),
            Err(error) => Err(error.to_string()),
        }
    }

    fn outcome(&self, request: &WorkloadRequest<'_>, body: &[u8]) -> AdmissionOutcome {
        if !request.is_ours() {
            return AdmissionOutcome::other_kind();
        }
        let Some(workload) = &request.object else { return AdmissionOutcome::undecodable("there is no object") };
        if let Err(limit) = limits::workload(workload) {
            return AdmissionOutcome::undecodable(limit.to_string());
        }
        // The controller's own patches must not come back changed, or it could never take anything out.
        let from_operator = request.is_from(&self.operator_user);
        if from_operator && review::is_untouched(body) {
            return AdmissionOutcome::own_write();
        }
        // Before the first list "no AgentTracing" would mean nothing.
        if !self.cache.is_filled() {
            return AdmissionOutcome::not_ready();
        }
        let platform = &self.platforms[usize::from(self.cache.is_openshift())];
        let decision = self.cache.with_namespace(
            &request.namespace,
            |NamespacePolicies { injection_enabled, policies, tokenless }| {
                let namespace = &request.namespace;
                // Any other change of a template rolls the workload anyway.
                let renews = !from_operator;
                (self.decide)(
                    workload,
                    &SelectionContext { namespace, injection_enabled, platform, tokenless, policies, renews },
                )
            },
        );
        AdmissionOutcome::of(decision, workload.kind, &request.namespace, !from_operator)
    }

    /// Reads a body and takes room for what it has beyond [`SMALL`], which belongs to the connection. Room is taken when the
    /// bytes are there: whoever only announces them keeps nobody else out.
    async fn read(&self, body: Body) -> Result<ReceivedBody, RequestRefusal> {
        let announced = body.size_hint();
        if announced.lower() > MAX_BODY as u64 {
            return Err(RequestRefusal::TooLarge);
        }
        // Without a length the body may become the largest one.
        let most = announced.exact().map_or(MAX_BODY, |length| length as usize);
        let mut arrived = ReceivedBody { bytes: Vec::with_capacity(most.min(SMALL)), room: None };
        let mut frames = body.into_data_stream();
        while let Some(frame) = frames.next().await {
            let frame = frame.map_err(|_| RequestRefusal::CutOff)?;
            let length = arrived.bytes.len() + frame.len();
            if length > MAX_BODY {
                return Err(RequestRefusal::TooLarge);
            }
            if length > SMALL && arrived.room.is_none() {
                let kibibytes = (most.max(length) - SMALL).div_ceil(1024) as u32;
                let room = self.room.clone().try_acquire_many_owned(kibibytes);
                arrived.room = Some(room.map_err(|_| RequestRefusal::TooBusy)?);
                // Once, or the old and the new one would be there together whenever it grows.
                arrived.bytes.reserve_exact(most.max(length) - arrived.bytes.len());
            }
            arrived.bytes.extend_from_slice(&frame);
        }
        Ok(arrived)
    }

    fn refuse(&self, refusal: RequestRefusal, reason: String, started: Instant) -> Rejection {
        self.metrics.admission("refused", refusal.as_str(), started.elapsed());
        tracing::warn!(result = "refused", reason = refusal.as_str(), error = reason, "admission");
        Rejection { status: refusal.status(), reason }
    }

    /// The answer, counted, and one line in the log: names and outcome, never the object.
    fn finish<O, P>(
        &self,
        request: &review::Request<'_, O, P>,
        outcome: &AdmissionOutcome,
        started: Instant,
    ) -> Vec<u8> {
        let answer = review::answer(&request.uid, &outcome.patch, &outcome.warnings);
        let took = started.elapsed();
        self.metrics.admission(outcome.result.as_str(), outcome.reason, took);
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    namespace = short(&request.namespace),
                    kind = short(&request.kind.kind),
                    name = short(&request.name),
                    operation = short(&request.operation),
                    dry_run = request.dry_run.unwrap_or_default(),
                    result = outcome.result.as_str(),
                    reason = outcome.reason,
                    error = outcome.error.as_deref(),
                    tracing = outcome.tracing,
                    operations = outcome.patch.len(),
                    micros = took.as_micros() as u64,
                    "admission"
                )
            };
        }
        match outcome.result {
            Answered::Failed => line!(warn),
            Answered::Injected | Answered::Unchanged | Answered::Removed | Answered::Left => line!(info),
        }
        answer
    }
}

/// A body, and the room that it takes until it is answered.
struct ReceivedBody {
    bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
}

/// A request that gets no AdmissionReview back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    status: StatusCode,
    reason: String,
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        (self.status, format!("{}\n", self.reason)).into_response()
    }
}

/// No name in a cluster is longer; a peer that is no API server must not fill the log.
fn short(name: &str) -> &str {
    &name[..name.floor_char_boundary(253)]
}

async fn mutate(State(webhook): State<Arc<Webhook>>, request: Request) -> Result<Response, Rejection> {
    let started = Instant::now();
    let deadline = Moment::now() + DEADLINE;
    let _in_flight = webhook.metrics.in_flight();
    let refuse = |refusal: RequestRefusal| webhook.refuse(refusal, refusal.message().to_owned(), started);

    let arrived = timeout_at(deadline, webhook.read(request.into_body())).await;
    let arrived = arrived.map_err(|_| refuse(RequestRefusal::TooSlow))?.map_err(refuse)?;
    let answer = if arrived.room.is_none() {
        webhook.answer(&arrived.bytes)?
    } else {
        let turn = timeout_at(deadline, webhook.turn.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| refuse(RequestRefusal::TooBusy))?;
        // It may take as long as a thousand small ones, and they wait for nobody. Room and turn go with it: whoever hangs up
        // meanwhile must not make room for another.
        let webhook = webhook.clone();
        let answered = spawn_blocking(move || {
            let answer = webhook.answer(&arrived.bytes);
            drop((turn, arrived));
            answer
        });
        match answered.await.map_err(JoinError::try_into_panic) {
            Ok(answer) => answer?,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The runtime ends.
            Err(Err(_)) => return Err(refuse(RequestRefusal::TooBusy)),
        }
    };
    Ok(([(header::CONTENT_TYPE, APPLICATION_JSON)], answer).into_response())
}

/// An UPDATE carries the object twice, each up to the API server's 3 MiB.
const MAX_BODY: usize = 7 << 20;
/// What a body may have for nothing: the reviews of almost every workload. The 256 connections hold 16 MiB of it.
const SMALL: usize = 64 << 10;
/// KiB for all that is larger: with those 16 MiB, 48 MiB of bodies at most. The pod has 128 MiB.
const ROOM: usize = 32 << 10;
/// Within the API server's 2 seconds, for reading the body and, where it is a large one, for its turn. A decision has nothing
/// else to wait for.
const DEADLINE: Duration = Duration::from_millis(1500);
const APPLICATION_JSON: HeaderValue = HeaderValue::from_static("application/json");

#[cfg(test)]
mod tests;
