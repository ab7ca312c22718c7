//! The admission webhook: AdmissionReview in, decision of [`core`](crate::core), JSON patch out.
//!
//! The API server gives a webhook 2 seconds and, with `failurePolicy: Ignore`, drops what comes later without a word. So
//! every path here ends in an answer: a review that we cannot read, a kind that is not ours, even a panic is *allowed,
//! no patch, counted*. Only what is no review at all is refused.

pub mod authority;
pub mod certs;
pub mod clock;
pub mod memory;
pub mod owner;
mod review;
pub mod rotation;
pub mod server;
pub mod serving;
mod verdict;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::core::decide::{Decision, decide};
use crate::core::select::Surroundings;
use crate::core::settings::Platform;
use crate::core::view::Workload;
use crate::names;
use crate::telemetry::Metrics;
use memory::{Known, Memory};
use review::{Read, Skipped};
use verdict::{Refusal, Verdict};

/// Everything that answering a review needs.
#[derive(Debug)]
pub struct Webhook {
    memory: Arc<Memory>,
    metrics: Arc<Metrics>,
    /// On plain Kubernetes, and on OpenShift.
    platforms: [Platform; 2],
    /// User name of the operator's own service account.
    operator_user: String,
    reviews: Semaphore,
    kibibytes: Semaphore,
    decide: Decide,
}

type Decide = fn(&Workload<'_>, &Surroundings<'_>) -> Decision;

/// The webhook as an HTTP service: tests drive it without a socket.
pub fn router(webhook: Arc<Webhook>) -> Router {
    Router::new().route(names::WEBHOOK_PATH, post(mutate)).with_state(webhook)
}

impl Webhook {
    /// A webhook that decides from `memory`.
    pub fn new(memory: Arc<Memory>, metrics: Arc<Metrics>, platform: Platform) -> Self {
        Self {
            memory,
            metrics,
            operator_user: format!("system:serviceaccount:{}:{}", platform.operator_namespace, names::SERVICE_ACCOUNT),
            platforms: [false, true].map(|openshift| Platform { openshift, ..platform.clone() }),
            reviews: Semaphore::new(MAX_REVIEWS),
            kibibytes: Semaphore::new(MAX_KIBIBYTES as usize),
            decide,
        }
    }

    /// Answers the body of one request, whatever it holds.
    pub fn answer(&self, body: &[u8]) -> Result<Vec<u8>, Refused> {
        let started = Instant::now();
        let (answer, verdict) = match std::panic::catch_unwind(AssertUnwindSafe(|| self.review(body))) {
            Ok(Ok(answered)) => answered,
            Ok(Err(refused)) => {
                self.count_refusal(Refusal::NotAReview, started);
                return Err(refused);
            }
            // The request itself was read without panicking, unless the reader is what panics.
            Err(_) => match std::panic::catch_unwind(|| Skipped::parse(body)) {
                Ok(Ok(request)) => (review::answer(&request.uid, &[], &[]), Verdict::panicked()),
                _ => return Err(self.refuse(Refusal::NotAReview, started)),
            },
        };
        let took = started.elapsed();
        self.metrics.admission(verdict.result.as_str(), verdict.reason, took);
        Ok(answer)
    }

    fn review(&self, body: &[u8]) -> Result<(Vec<u8>, Verdict), Refused> {
        let started = Instant::now();
        let error = match Read::parse(body) {
            Ok(request) => {
                let verdict = self.verdict(&request, body);
                return Ok(finish(&request, verdict, started));
            }
            Err(error) => error,
        };
        // The review or the object in it: without the object the review may be readable.
        match Skipped::parse(body) {
            Ok(request) if request.is_ours() => {
                tracing::warn!(error = error.to_string(), "the object of a review cannot be read");
                Ok(finish(&request, Verdict::undecodable(), started))
            }
            Ok(request) => Ok(finish(&request, Verdict::other_kind(), started)),
            Err(_) => Err(Refused { status: StatusCode::BAD_REQUEST, reason: error.to_string() }),
        }
    }

    fn verdict(&self, request: &Read<'_>, body: &[u8]) -> Verdict {
        if !request.is_ours() {
            return Verdict::other_kind();
        }
        let Some(workload) = &request.object else { return Verdict::undecodable() };
        // The controller's own patches must not come back changed, or it could never take anything out.
        let from_operator = request.is_from(&self.operator_user);
        if from_operator && review::is_untouched(body) {
            return Verdict::own_write();
        }
        // Before the first list "no AgentTracing" would mean nothing.
        if !self.memory.is_filled() {
            return Verdict::not_ready();
        }
        let platform = &self.platforms[usize::from(self.memory.is_openshift())];
        let decision = self.memory.ask(&request.namespace, |Known { injection_enabled, policies, tokenless }| {
            let namespace = &request.namespace;
            (self.decide)(workload, &Surroundings { namespace, injection_enabled, platform, tokenless, policies })
        });
        Verdict::of(decision, workload.kind, &request.namespace, !from_operator)
    }

    /// Takes room for a review, or says why there is none.
    fn room(&self, length: Option<usize>) -> Result<(SemaphorePermit<'_>, SemaphorePermit<'_>), Refusal> {
        if length.is_some_and(|length| length > MAX_BODY) {
            return Err(Refusal::TooLarge);
        }
        // Without a length the body may become the largest one.
        let kibibytes = length.unwrap_or(MAX_BODY).div_ceil(1024) as u32;
        let review = self.reviews.try_acquire().map_err(|_| Refusal::TooBusy)?;
        let room = self.kibibytes.try_acquire_many(kibibytes).map_err(|_| Refusal::TooBusy)?;
        Ok((review, room))
    }

    fn refuse(&self, refusal: Refusal, started: Instant) -> Refused {
        self.count_refusal(refusal, started);
        tracing::warn!(reason = refusal.as_str(), "refused a request");
        Refused { status: refusal.status(), reason: refusal.message().to_owned() }
    }

    fn count_refusal(&self, refusal: Refusal, started: Instant) {
        self.metrics.admission("refused", refusal.as_str(), started.elapsed());
    }
}

/// A request that gets no AdmissionReview back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    status: StatusCode,
    reason: String,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, format!("{}\n", self.reason)).into_response()
    }
}

/// The answer and one line in the log: names and outcome, never the object.
fn finish<O, P>(request: &review::Request<'_, O, P>, verdict: Verdict, started: Instant) -> (Vec<u8>, Verdict) {
    let answer = review::answer(&request.uid, &verdict.patch, &verdict.warnings);
    tracing::info!(
        namespace = short(&request.namespace),
        kind = short(&request.kind.kind),
        name = short(&request.name),
        operation = short(&request.operation),
        dry_run = request.dry_run.unwrap_or_default(),
        result = verdict.result.as_str(),
        reason = verdict.reason,
        tracing = verdict.tracing,
        operations = verdict.patch.len(),
        micros = started.elapsed().as_micros() as u64,
        "admission"
    );
    (answer, verdict)
}

/// No name in a cluster is longer; a peer that is no API server must not fill the log.
fn short(name: &str) -> &str {
    &name[..name.floor_char_boundary(253)]
}

async fn mutate(State(webhook): State<Arc<Webhook>>, request: Request) -> Result<Response, Refused> {
    let started = Instant::now();
    let _in_flight = webhook.metrics.in_flight();
    let refuse = |refusal| webhook.refuse(refusal, started);

    let length = length(request.headers());
    let room = webhook.room(length).map_err(refuse)?;
    let body = tokio::time::timeout(DEADLINE, read(request.into_body(), length.unwrap_or_default())).await;
    let body = body.map_err(|_| refuse(Refusal::TooSlow))?.map_err(refuse)?;
    let answer = webhook.answer(&body)?;
    drop(room);
    Ok(([(header::CONTENT_TYPE, APPLICATION_JSON)], answer).into_response())
}

async fn read(body: Body, length: usize) -> Result<Vec<u8>, Refusal> {
    let mut whole = Vec::with_capacity(length);
    let mut frames = body.into_data_stream();
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|_| Refusal::CutOff)?;
        if whole.len() + frame.len() > MAX_BODY {
            return Err(Refusal::TooLarge);
        }
        whole.extend_from_slice(&frame);
    }
    Ok(whole)
}

/// The length that the request announces; without one the body may become the largest.
fn length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// An UPDATE carries the object twice, each up to the API server's 3 MiB.
const MAX_BODY: usize = 7 << 20;
/// Reviews in flight.
const MAX_REVIEWS: usize = 64;
/// Room for the bodies of all reviews in flight: the pod has 128 MiB, and 64 of the largest would be 448.
const MAX_KIBIBYTES: u32 = 32 << 10;
/// Within the API server's 2 seconds. Only reading the body can take time: a decision has nothing to wait for.
const DEADLINE: Duration = Duration::from_millis(1500);
const APPLICATION_JSON: HeaderValue = HeaderValue::from_static("application/json");

#[cfg(test)]
mod tests;
