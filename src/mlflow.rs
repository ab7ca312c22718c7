//! A client for the few MLflow calls that the operator makes. It knows nothing of Kubernetes.
//!
//! MLflow's failures are quiet: a green `/health` says nothing about the API behind the Host check, a login page answers
//! 200 or 302, an old trace row may have no spans. So every answer is looked at before it is believed, and [`Error`] keeps
//! apart what needs different remedies. An error quotes only MLflow's `error_code` and our own words, never a server's free
//! text: that would put foreign text (or a secret in it) into a status that many may read.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header, redirect};
use serde::Deserialize;
use serde_json::{Value, json};

/// A server that accepts no connection within this time is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// MLflow 3.10.1 takes seconds under load; a caller must still be able to try again soon.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest honest answer is a trace's metadata, some kilobytes.
const MAX_BODY: usize = 1 << 20;
/// Traces came with 3.0.
const OLDEST_MAJOR: u64 = 3;
/// Tag of a trace whose spans are in the database.
const SPANS_TAG: &str = "mlflow.trace.spansLocation";
const SPANS_IN_STORE: &str = "TRACKING_STORE";

/// Connections, timeouts and TLS settings, shared by all [`Mlflow`].
#[derive(Clone, Debug)]
pub struct Http(reqwest::Client);

/// One MLflow server.
#[derive(Clone, Debug)]
pub struct Mlflow {
    http: Http,
    origin: String,
}

/// What a server says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its version, at most 64 characters.
    pub version: String,
    /// Whether workspaces are switched on.
    pub workspaces: bool,
}

/// An experiment that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Experiment {
    /// Usable, with its numeric id.
    Active(String),
    /// Deleted; MLflow accepts no trace for it and no other of its name.
    Deleted(String),
}

/// The newest trace of an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// When it began.
    pub time: Timestamp,
    /// Whether its spans are there: the row alone is written also when the spans are refused.
    pub has_spans: bool,
    /// Whether it has ended; before that, missing spans mean nothing.
    pub finished: bool,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP client cannot be built.
    #[error("failed to build the HTTP client")]
    Client(#[source] reqwest::Error),
    /// The name does not resolve.
    #[error("its host name does not resolve")]
    Dns(#[source] reqwest::Error),
    /// Nothing listens there.
    #[error("it refuses connections")]
    Refused(#[source] reqwest::Error),
    /// No connection or no answer in time.
    #[error("it does not answer within {} s", TOTAL_TIMEOUT.as_secs())]
    Timeout,
    /// The certificate is not trusted, or TLS fails otherwise.
    #[error("the TLS connection fails")]
    Tls(#[source] reqwest::Error),
    /// The connection breaks.
    #[error("the connection breaks")]
    Connection(#[source] reqwest::Error),
    /// 403 by the check of the Host header.
    #[error("it refuses the Host header of this address")]
    HostHeader,
    /// 401.
    #[error("it wants credentials (401)")]
    Unauthorized,
    /// 403 by MLflow.
    #[error("it denies permission (403{})", quoted(.0))]
    Forbidden(Option<String>),
    /// 404.
    #[error("it does not know the request (404{})", quoted(.0))]
    NotFound(Option<String>),
    /// A redirect or a web page where an API was expected.
    #[error("a web page answers in its place, as a login page does")]
    LoginPage,
    /// An answer that MLflow does not give.
    #[error("its answer is not MLflow's")]
    Garbage,
    /// Before 3.0.
    #[error("its version {0} is older than {OLDEST_MAJOR}.0, which has no traces")]
    TooOld(String),
    /// 400: what was asked is wrong.
    #[error("it refuses the request ({status}{})", quoted(.code))]
    Rejected {
        /// HTTP status.
        status: u16,
        /// MLflow's `error_code`.
        code: Option<String>,
    },
    /// 5xx or 429.
    #[error("it fails ({status}{})", quoted(.code))]
    Server {
        /// HTTP status.
        status: u16,
        /// MLflow's `error_code`.
        code: Option<String>,
    },
}

impl Http {
    /// The client that the operator uses. A TLS provider must be installed in the process.
    pub fn new() -> Result<Self, Error> {
        Self::with(reqwest::Client::builder())
    }

    /// The same on top of other settings, for tests: a resolver that knows names of a cluster.
    pub fn with(builder: reqwest::ClientBuilder) -> Result<Self, Error> {
        builder
            .user_agent(concat!("agent-tracing-operator/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TOTAL_TIMEOUT)
            .pool_max_idle_per_host(1)
            // An address inside the cluster is never behind the proxy that the environment may name.
            .no_proxy()
            // The image has no system roots to load; only `http://` addresses are contacted so far.
            .tls_certs_only([])
            .build()
            .map(Self)
            .map_err(Error::Client)
    }
}

impl Mlflow {
    /// A server at an origin such as `http://tracing-mlflow.bank-agents.svc:5500`.
    pub fn new(http: &Http, origin: &str) -> Self {
        Self { http: http.clone(), origin: origin.trim_end_matches('/').to_owned() }
    }

    /// Proves that MLflow answers at this address: version first, then a call that passes the Host check.
    pub async fn server(&self) -> Result<Server, Error> {
        let version = self.version().await?;
        let workspaces = self.workspaces().await?;
        Ok(Server { version, workspaces })
    }

    /// The server's version. Neither the Host header nor credentials are checked for this one.
    async fn version(&self) -> Result<String, Error> {
        version(&self.send(self.request(Method::GET, "/version")).await?)
    }

    /// Whether workspaces are on. Servers before 3.10 do not know the question, nor workspaces.
    async fn workspaces(&self) -> Result<bool, Error> {
        #[derive(Deserialize)]
        struct Info {
            #[serde(default)]
            workspaces_enabled: bool,
        }
        match self.json::<Info>(self.request(Method::GET, "/api/3.0/mlflow/server-info")).await {
            Ok(info) => Ok(info.workspaces_enabled),
            Err(Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Finds an experiment by name, or creates it. A deleted one is restored or reported.
    pub async fn ensure_experiment(&self, name: &str, restore_deleted: bool) -> Result<Experiment, Error> {
        let found = match self.experiment(name).await? {
            Some(found) => found,
            None => match self.create_experiment(name).await {
                // An agent created it in between: it is there now.
                Err(Error::Rejected { code: Some(code), .. }) if code == "RESOURCE_ALREADY_EXISTS" => {
                    self.experiment(name).await?.ok_or(Error::Garbage)?
                }
                created => Experiment::Active(created?),
            },
        };
        match found {
            Experiment::Deleted(id) if restore_deleted => {
                let body = json!({"experiment_id": id});
                self.send(self.request(Method::POST, "/api/2.0/mlflow/experiments/restore").json(&body)).await?;
                Ok(Experiment::Active(id))
            }
            found => Ok(found),
        }
    }

    async fn experiment(&self, name: &str) -> Result<Option<Experiment>, Error> {
        let request = match filter(name) {
            Some(filter) => {
                // `max_results` is mandatory; without `view_type` a deleted experiment would look absent.
                let body = json!({"max_results": 1, "filter": filter, "view_type": "ALL"});
                self.request(Method::POST, "/api/2.0/mlflow/experiments/search").json(&body)
            }
            None => {
                self.request(Method::GET, "/api/2.0/mlflow/experiments/get-by-name").query(&[("experiment_name", name)])
            }
        };
        let found: Found = match self.json(request).await {
            Err(Error::NotFound(Some(code))) if code == "RESOURCE_DOES_NOT_EXIST" => return Ok(None),
            found => found?,
        };
        Ok(found.first())
    }

    async fn create_experiment(&self, name: &str) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Created {
            #[serde(deserialize_with = "numeric_id")]
            experiment_id: String,
        }
        let request = self.request(Method::POST, "/api/2.0/mlflow/experiments/create").json(&json!({"name": name}));
        Ok(self.json::<Created>(request).await?.experiment_id)
    }

    /// The newest trace of an experiment.
    pub async fn latest_trace(&self, experiment_id: &str) -> Result<Option<Trace>, Error> {
        let body = json!({
            "locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment_id}}],
            "max_results": 1,
            "order_by": ["timestamp_ms DESC"],
        });
        let request = self.request(Method::POST, "/api/3.0/mlflow/traces/search").json(&body);
        let Some(row) = self.json::<Traces>(request).await?.traces.into_iter().next() else { return Ok(None) };
        let has_spans =
            row.tags.get(SPANS_TAG).is_some_and(|v| v == SPANS_IN_STORE) || self.has_artifact(&row.trace_id).await?;
        Ok(Some(Trace { time: row.request_time, has_spans, finished: row.state != "IN_PROGRESS" }))
    }

    /// Whether the spans were uploaded as a file. Only the answer's status is read, never the file.
    async fn has_artifact(&self, trace_id: &str) -> Result<bool, Error> {
        let request =
            self.request(Method::GET, "/ajax-api/2.0/mlflow/get-trace-artifact").query(&[("request_id", trace_id)]);
        let response = request.send().await.map_err(transport)?;
        match failure(response).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound(_) | Error::Rejected { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.0.request(method, format!("{}{path}", self.origin))
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Error> {
        json(&self.send(request).await?)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Vec<u8>, Error> {
        let response = request.send().await.map_err(transport)?;
        body(failure(response).await?).await
    }
}

/// MLflow's filter language has quotes but no escapes, so a name with both kinds cannot be searched for.
fn filter(name: &str) -> Option<String> {
    match (name.contains('\''), name.contains('"')) {
        (false, _) => Some(format!("name = '{name}'")),
        (true, false) => Some(format!("name = \"{name}\"")),
        (true, true) => None,
    }
}

/// What the client makes of one answer, if it was an answer to each of its questions. For the fuzzer: the same functions read
/// what a server really sends.
#[derive(Debug)]
pub struct Understood {
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
pub fn understand(status: u16, plain: bool, body: &[u8]) -> Understood {
    Understood {
        version: version(body),
        experiment: json(body).map(Found::first),
        trace: json(body).map(|found: Traces| found.traces.first().map(|row| row.request_time)),
        refusal: StatusCode::from_u16(status).ok().map(|status| refusal(status, plain, body)),
    }
}

fn version(body: &[u8]) -> Result<String, Error> {
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

fn json<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|_| match looks_like_html(body) {
        true => Error::LoginPage,
        false => Error::Garbage,
    })
}

/// Lets an answer with status 2xx pass and says what any other means.
async fn failure(response: Response) -> Result<Response, Error> {
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
fn refusal(status: StatusCode, plain: bool, body: &[u8]) -> Error {
    let code = error_code(body);
    match status {
        StatusCode::UNAUTHORIZED => Error::Unauthorized,
        // A text, where every refusal of MLflow's own is JSON.
        StatusCode::FORBIDDEN if plain && body.starts_with(b"Invalid Host header") => Error::HostHeader,
        StatusCode::FORBIDDEN if looks_like_html(body) => Error::LoginPage,
        StatusCode::FORBIDDEN => Error::Forbidden(code),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Error::NotFound(code),
        s if s.is_server_error() || s == StatusCode::TOO_MANY_REQUESTS => Error::Server { status: s.as_u16(), code },
        s => Error::Rejected { status: s.as_u16(), code },
    }
}

/// Reads a body, and no more than is honest.
async fn body(mut response: Response) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(transport)? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(Error::Garbage);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn transport(error: reqwest::Error) -> Error {
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
fn error_code(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let code = value.get("error_code").or_else(|| value.pointer("/error/code"))?.as_str()?;
    let genuine = code.len() <= 64 && code.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    (genuine && !code.is_empty()).then(|| code.to_owned())
}

fn looks_like_html(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"<")
}

fn quoted(code: &Option<String>) -> String {
    code.as_ref().map(|c| format!(", {c}")).unwrap_or_default()
}

#[derive(Deserialize)]
struct Found {
    #[serde(default)]
    experiments: Vec<FoundExperiment>,
    experiment: Option<FoundExperiment>,
}

impl Found {
    fn first(self) -> Option<Experiment> {
        self.experiments.into_iter().chain(self.experiment).next().map(|e| match e.lifecycle_stage.as_str() {
            "deleted" => Experiment::Deleted(e.experiment_id),
            _ => Experiment::Active(e.experiment_id),
        })
    }
}

#[derive(Deserialize)]
struct FoundExperiment {
    #[serde(deserialize_with = "numeric_id")]
    experiment_id: String,
    lifecycle_stage: String,
}

#[derive(Deserialize)]
struct Traces {
    #[serde(default)]
    traces: Vec<TraceRow>,
}

#[derive(Deserialize)]
struct TraceRow {
    trace_id: String,
    request_time: Timestamp,
    #[serde(default)]
    state: String,
    #[serde(default)]
    tags: std::collections::BTreeMap<String, String>,
}

/// Ids go into agents' environments and into status: only what MLflow really gives out is taken.
fn numeric_id<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let id = String::deserialize(deserializer)?;
    let numeric = !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_digit());
    numeric.then_some(id).ok_or_else(|| serde::de::Error::custom("an experiment id that is not a number"))
}

#[cfg(test)]
mod tests;
