//! What MLflow's answers mean. Nothing of an answer gets through but what MLflow itself would say.

use std::error::Error as _;
use std::io;

use jiff::Timestamp;
use reqwest::{Response, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;

use super::{Error, Experiment, MAX_BODY, OLDEST_MAJOR, Stage};

/// What the client makes of one answer, if it was an answer to each of its questions. For the fuzzer: the same functions read
/// what a server really sends.
#[derive(Debug)]
pub struct ServerAnswer {
    /// As the version.
    pub version: Result<String, Error>,
    /// As the search for an experiment.
    pub experiment: Result<Option<Experiment>, Error>,
    /// As the search for traces: when the newest began.
    pub trace: Result<Option<Timestamp>, Error>,
    /// As a refusal.
    pub refusal: Option<Error>,
}

/// Reads an answer in every way that the client knows. Pure.
pub fn classify(status: u16, plain: bool, body: &[u8]) -> ServerAnswer {
    ServerAnswer {
        version: version(body),
        experiment: json(body).map(SearchResponse::first),
        trace: json(body).map(|found: Traces| found.traces.first().map(|row| row.request_time)),
        refusal: StatusCode::from_u16(status).ok().map(|status| refusal(status, plain, body)),
    }
}

pub(super) fn version(body: &[u8]) -> Result<String, Error> {
    let version = std::str::from_utf8(body).map_err(|_| Error::Garbage)?.trim();
    if version.starts_with('<') {
        return Err(Error::LoginPage);
    }
    let plain = version.len() <= 64 && version.chars().all(|c| c.is_ascii_alphanumeric() || ".+-_".contains(c));
    let major = version.split('.').next().and_then(|m| m.parse::<u64>().ok());
    match major {
        Some(major) if plain && major < OLDEST_MAJOR => Err(Error::TooOld(version.to_owned())),
        Some(_) if plain => Ok(version.to_owned()),
        _ => Err(Error::Garbage),
    }
}

pub(super) fn json<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|_| match looks_like_html(body) {
        true => Error::LoginPage,
        false => Error::Garbage,
    })
}

/// Lets an answer with status 2xx pass and says what any other means.
pub(super) async fn failure(response: Response) -> Result<Response, Error> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    if status.is_redirection() {
        return Err(Error::LoginPage);
    }
    let plain = response.headers().get(header::CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"text/plain"));
    Err(refusal(status, plain, &body(response).await?))
}

/// What a refusal means; `plain` is whether its content type is plain text.
pub(super) fn refusal(status: StatusCode, plain: bool, body: &[u8]) -> Error {
    let code = error_code(body);
    match status {
        StatusCode::UNAUTHORIZED => Error::Unauthorized,
        // A text, where every refusal of MLflow's own is JSON.
        StatusCode::FORBIDDEN if plain && body.starts_with(b"Invalid Host header") => Error::HostHeader,
        // Envoy's words, in Istio and others.
        StatusCode::FORBIDDEN if body.starts_with(b"RBAC: access denied") => Error::Mesh,
        StatusCode::FORBIDDEN if looks_like_html(body) => Error::LoginPage,
        StatusCode::FORBIDDEN => Error::Forbidden(code),
        StatusCode::NOT_FOUND if is_about_workspace(body) => Error::NoWorkspace,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Error::NotFound(code),
        s if s.is_server_error() && is_about_room(body) => Error::StorageFull { status: s.as_u16() },
        s if s.is_server_error() || s == StatusCode::TOO_MANY_REQUESTS => Error::Server { status: s.as_u16(), code },
        s => Error::Rejected { status: s.as_u16(), code },
    }
}

/// Reads a body, and no more than is honest.
pub(super) async fn body(mut response: Response) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(transport)? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(Error::Garbage);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

pub(super) fn transport(error: reqwest::Error) -> Error {
    if error.is_timeout() {
        return Error::Timeout;
    }
    let mut cause = error.source();
    while let Some(source) = cause {
        if source.is::<rustls::Error>() {
            return Error::Tls(error);
        }
        cause = match source.downcast_ref::<io::Error>() {
            Some(io) if io.kind() == io::ErrorKind::ConnectionRefused => return Error::Refused(error),
            // An io error's `source` skips what it wraps; TLS errors come wrapped twice.
            Some(io) => io.get_ref().map(|inner| inner as &dyn std::error::Error),
            None => source.source(),
        };
    }
    if error.is_dns() { Error::Dns(error) } else { Error::Connection(error) }
}

/// MLflow's `error_code`, in either of its shapes, if it is one: a name in capitals.
pub(super) fn error_code(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let code = value.get("error_code").or_else(|| value.pointer("/error/code"))?.as_str()?;
    let genuine = code.len() <= 64 && code.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    (genuine && !code.is_empty()).then(|| code.to_owned())
}

pub(super) fn is_about_workspace(body: &[u8]) -> bool {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    let message = value.as_ref().and_then(|v| v.get("message").or_else(|| v.pointer("/error/message"))?.as_str());
    message.is_some_and(|message| message.starts_with("Workspace "))
}

/// The words of SQLite, of PostgreSQL and of the operating system, each within MLflow's own message.
const NO_ROOM: [&str; 5] = [
    "database or disk is full",
    "No space left on device",
    "could not extend file",
    "disk quota exceeded",
    "The table is full",
];

/// Read to tell the remedy, and never passed on.
fn is_about_room(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body).to_ascii_lowercase();
    NO_ROOM.iter().any(|words| text.contains(&words.to_ascii_lowercase()))
}

pub(super) fn looks_like_html(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"<")
}

pub(super) fn quote(code: &Option<String>) -> String {
    code.as_ref().map(|c| format!(", {c}")).unwrap_or_default()
}

#[derive(Deserialize)]
pub(super) struct SearchResponse {
    #[serde(default)]
    experiments: Vec<ExperimentRow>,
    experiment: Option<ExperimentRow>,
}

impl SearchResponse {
    pub(super) fn first(self) -> Option<Experiment> {
        self.all().next()
    }

    pub(super) fn all(self) -> impl Iterator<Item = Experiment> {
        self.experiments.into_iter().chain(self.experiment).map(|e| Experiment {
            id: e.experiment_id,
            stage: if e.lifecycle_stage == "deleted" { Stage::Deleted } else { Stage::Active },
            created: e.creation_time.as_i64(),
            is_new: false,
        })
    }
}

#[derive(Deserialize)]
pub(super) struct ExperimentRow {
    #[serde(deserialize_with = "numeric_id")]
    experiment_id: String,
    lifecycle_stage: String,
    #[serde(default)]
    creation_time: Value,
}

#[derive(Deserialize)]
pub(super) struct Traces {
    #[serde(default)]
    pub(super) traces: Vec<TraceRow>,
}

#[derive(Deserialize)]
pub(super) struct TraceRow {
    pub(super) trace_id: String,
    pub(super) request_time: Timestamp,
    #[serde(default)]
    pub(super) state: String,
    #[serde(default)]
    pub(super) tags: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    pub(super) trace_location: Value,
}

/// Ids go into agents' environments and into status: only what MLflow really gives out is taken.
pub(super) fn numeric_id<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let id = String::deserialize(deserializer)?;
    let numeric = !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_digit());
    numeric.then_some(id).ok_or_else(|| serde::de::Error::custom("an experiment id that is not a number"))
}
