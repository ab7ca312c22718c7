//! What agents talk to: OTLP over HTTP, and MLflow's REST API as its SDKs use it.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::forward::{Forwarder, NotTaken};
use super::otlp::{self, Format, MAX_UNPACKED, Unreadable};
use super::pass::NoAnswer;
use super::request::{Kind, StoredRequest};
use super::sdk::error_code;
use crate::core::relay::bodies;
use crate::core::relay::route::{NotServed, Route, route};
use crate::core::relay::sender::{self, ExperimentRef, NotAnId, Sender};

/// What every request shares.
#[derive(Debug)]
pub struct Door {
    pub(super) forwarder: Arc<Forwarder>,
    /// KiB of bodies that are being taken.
    room: Arc<Semaphore>,
}

/// Why a request gets no 200.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{0}")]
    NotServed(#[from] NotServed),
    #[error("{0}")]
    Unreadable(#[from] Unreadable),
    #[error("{0}")]
    NotAnId(#[from] NotAnId),
    #[error("{0}")]
    Invalid(&'static str),
    #[error("the body ends too early")]
    CutOff,
    #[error("the relay has its hands full")]
    Busy,
    #[error("the relay does not know yet where MLflow is and which experiment this is; it is asked again")]
    NotReady,
    #[error("{0}")]
    NotTaken(#[from] NotTaken),
    #[error("{0}")]
    NoAnswer(#[from] NoAnswer),
}

/// The relay's service for agents.
pub fn router(forwarder: Arc<Forwarder>) -> Router {
    let door = Arc::new(Door { forwarder, room: Arc::new(Semaphore::new(ROOM)) });
    Router::new().fallback(take).with_state(door)
}

async fn take(State(door): State<Arc<Door>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // Only the path counts: whatever host a request names, it goes to MLflow or nowhere.
    let path = parts.uri.path().to_owned();
    match route(parts.method.as_str(), &path) {
        Ok((sender, Route::Spans, _)) => {
            door.spans(&sender, &parts, body).await.unwrap_or_else(|refusal| refusal.response(false))
        }
        Ok((sender, route, below)) => {
            let answered = door.answer(sender, route, below, parts, body).await;
            answered.unwrap_or_else(|refusal| refusal.response(true))
        }
        Err(refusal) => Refusal::from(refusal).response(true),
    }
}

impl Door {
    async fn answer(
        &self,
        sender: Sender,
        route: Route,
        below: &str,
        parts: Parts,
        body: Body,
    ) -> Result<Response, Refusal> {
        match route {
            Route::Spans => self.spans(&sender, &parts, body).await,
            Route::Version => Ok(self.version()),
            Route::ServerInfo => Ok(Json(bodies::server_info()).into_response()),
            Route::ExperimentByName => self.experiment_by_name(&sender, parts.uri.query().unwrap_or_default()).await,
            Route::ExperimentById => self.experiment_by_id(&sender, parts).await,
            Route::Start => self.start(sender, body).await,
            Route::StartV2 => self.start_v2(sender, body).await,
            Route::File { trace, experiment } => self.file(sender, &trace, &experiment, body).await,
            Route::Assessment { trace } => self.assessment(sender, &trace, below, body).await,
            Route::Tag { trace } => self.tag(sender, &trace, &parts.method, below, body).await,
            Route::EndV2 { trace } => self.end_v2(sender, &trace, below, body).await,
            Route::Passed => self.pass(&sender, parts, body, below).await,
        }
    }

    async fn spans(&self, sender: &Sender, parts: &Parts, body: Body) -> Result<Response, Refusal> {
        let text = |name| text(&parts.headers, name);
        let (format, encoding) = (otlp::format(text("content-type"))?, otlp::encoding(text("content-encoding"))?);
        let own_id = Some(text(sender::EXPERIMENT_ID)).filter(|id| !id.is_empty());
        let (body, room) = self.read(body).await?;
        let (encoding, body, seen) = otlp::check(format, encoding, body)?;
        if !seen.is_empty() {
            let own = own_id.map(|id| sender::experiment(Some(id), String::new())).transpose()?;
            let experiment = match own {
                Some(ExperimentRef::Id(id)) => Some(self.forwarder.experiment_by_id(sender, &id)),
                own => own.or_else(|| self.forwarder.experiment_of(sender)),
            };
            let experiment = experiment.ok_or(Refusal::NotReady)?;
            let request = StoredRequest::new(Kind::Spans(encoding), "", "", body);
            self.forwarder.accept_spans(sender, experiment, request, seen).await?;
        }
        drop(room);
        Ok(taken(format))
    }

    /// Reads a body and takes room for it as it comes, so that all bodies together stay within [`ROOM`].
    pub(super) async fn read(&self, body: Body) -> Result<(Bytes, Vec<OwnedSemaphorePermit>), Refusal> {
        let (mut whole, mut room) = (Vec::new(), Vec::new());
        let mut frames = body.into_data_stream();
        while let Some(frame) = frames.next().await {
            let frame = frame.map_err(|_| Refusal::CutOff)?;
            if whole.len() + frame.len() > MAX_UNPACKED {
                return Err(Unreadable::TooLarge.into());
            }
            let kibibytes = frame.len().div_ceil(1024) as u32;
            room.push(self.room.clone().try_acquire_many_owned(kibibytes).map_err(|_| Refusal::Busy)?);
            whole.extend_from_slice(&frame);
        }
        Ok((whole.into(), room))
    }
}

/// An empty `ExportTraceServiceResponse`: all spans were taken.
fn taken(format: Format) -> Response {
    match format {
        Format::Protobuf => {
            ([(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"))], "").into_response()
        }
        Format::Json => ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], "{}").into_response(),
    }
}

pub(super) fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

impl Refusal {
    /// OTLP has an exporter send again after 429, 502, 503 and 504, and give up after any other.
    fn status(&self) -> StatusCode {
        match self {
            Self::NotAnId(_) | Self::Invalid(_) | Self::CutOff => StatusCode::BAD_REQUEST,
            Self::NotServed(NotServed::Method(_)) => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotServed(_) => StatusCode::NOT_FOUND,
            Self::Unreadable(Unreadable::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unreadable(Unreadable::ContentType(_) | Unreadable::ContentEncoding(_)) => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Self::Unreadable(_) => StatusCode::BAD_REQUEST,
            Self::Busy | Self::NotReady | Self::NotTaken(_) | Self::NoAnswer(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// SDKs read MLflow's shape, and try older addresses after 404 with any other `error_code`.
    fn response(self, in_json: bool) -> Response {
        let status = self.status();
        let mut response = match in_json {
            true => (status, Json(bodies::error(error_code(status), &self.to_string()))).into_response(),
            false => (status, format!("{self}\n")).into_response(),
        };
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// KiB of bodies at a time.
const ROOM: usize = 16 << 10;
