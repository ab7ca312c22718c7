//! What agents talk to: OTLP over HTTP.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::forward::{Forwarder, NotTaken};
use super::otlp::{self, Format, MAX_UNPACKED, Unreadable};
use super::request::SpanRequest;
use crate::core::relay::route::{NotServed, Route, route};
use crate::core::relay::sender::{self, ExperimentRef, NotAnId, Sender};

/// What every request shares.
#[derive(Debug)]
pub struct Door {
    forwarder: Arc<Forwarder>,
    /// KiB of bodies that are being taken.
    room: Arc<Semaphore>,
}

/// Why a request gets no 200.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    NotServed(#[from] NotServed),
    #[error("{0}")]
    Unreadable(#[from] Unreadable),
    #[error("{0}")]
    NotAnId(#[from] NotAnId),
    #[error("the body ends too early")]
    CutOff,
    #[error("the relay has its hands full")]
    Busy,
    #[error("the relay does not know yet where MLflow is and which experiment this is; it is asked again")]
    NotReady,
    #[error("{0}")]
    NotTaken(#[from] NotTaken),
}

/// The relay's service for agents.
pub fn router(forwarder: Arc<Forwarder>) -> Router {
    let door = Arc::new(Door { forwarder, room: Arc::new(Semaphore::new(ROOM)) });
    Router::new().fallback(take).with_state(door)
}

async fn take(State(door): State<Arc<Door>>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let (sender, route, _) = route(parts.method.as_str(), parts.uri.path())?;
    match route {
        Route::Spans => door.spans(&sender, &parts, body).await,
        _ => Err(NotServed::Path(parts.uri.path().to_owned()).into()),
    }
}

impl Door {
    async fn spans(&self, sender: &Sender, parts: &Parts, body: Body) -> Result<Response, Refusal> {
        let text = |name| text(&parts.headers, name);
        let (format, encoding) = (otlp::format(text("content-type"))?, otlp::encoding(text("content-encoding"))?);
        let own_id = Some(text(sender::EXPERIMENT_ID)).filter(|id| !id.is_empty());
        let (body, room) = self.read(body).await?;
        let (encoding, body, spans) = otlp::check(format, encoding, body)?;
        if spans > 0 {
            let experiment = match own_id {
                Some(id) => sender::experiment(Some(id), String::new())?,
                None => ExperimentRef::Name(self.forwarder.experiment_of(sender).ok_or(Refusal::NotReady)?),
            };
            let received = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
            self.forwarder.accept(sender, experiment, SpanRequest { received, encoding, body }).await?;
        }
        drop(room);
        Ok(taken(format))
    }

    /// Reads a body and takes room for it as it comes, so that all bodies together stay within [`ROOM`].
    async fn read(&self, body: Body) -> Result<(Bytes, Vec<OwnedSemaphorePermit>), Refusal> {
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

fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// OTLP has an exporter send again after 429, 502, 503 and 504, and give up after any other.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::NotAnId(_) | Self::CutOff => StatusCode::BAD_REQUEST,
            Self::NotServed(NotServed::Method(_)) => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotServed(_) => StatusCode::NOT_FOUND,
            Self::Unreadable(Unreadable::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unreadable(Unreadable::ContentType(_) | Unreadable::ContentEncoding(_)) => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Self::Unreadable(_) => StatusCode::BAD_REQUEST,
            Self::Busy | Self::NotReady | Self::NotTaken(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut response = match &self {
            // MLflow's SDKs read this shape, and try older addresses after any other code.
            Self::NotServed(NotServed::Path(_) | NotServed::Workload(_)) => {
                let error = json!({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": self.to_string()});
                (status, axum::Json(error)).into_response()
            }
            _ => (status, format!("{self}\n")).into_response(),
        };
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// KiB of bodies at a time.
const ROOM: usize = 16 << 10;
