//! A client for the few MLflow calls that the operator makes. It knows nothing of Kubernetes.
//!
//! MLflow's failures are quiet: a green `/health` says nothing about the API behind the Host check, a login page answers
//! 200 or 302, an old trace row may have no spans. So every answer is looked at before it is believed, and [`Error`] keeps
//! apart what needs different remedies. An error quotes only MLflow's `error_code` and our own words, never a server's free
//! text: that would put foreign text (or a secret in it) into a status that many may read.

mod answer;
mod experiments;
mod outcome;
mod rest;
mod traces;

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder, Response, header, redirect};
use serde::Deserialize;

pub use answer::{ServerAnswer, classify};
use answer::{body, failure, json, quote, transport, version};
pub use experiments::{Experiment, Stage};
pub use outcome::Outcome;
pub use traces::Trace;

/// A server that accepts no connection within this time is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// MLflow 3.10.1 takes seconds under load; a caller must still be able to try again soon.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest honest answer is a trace's metadata, some kilobytes.
const MAX_BODY: usize = 1 << 20;
/// Traces came with 3.0.
const OLDEST_MAJOR: u64 = 3;
/// Connections, timeouts and TLS settings, shared by all [`MlflowClient`].
#[derive(Clone)]
pub struct Http {
    client: reqwest::Client,
    meter: Meter,
}

/// Told of each request how it ended and how long it took.
pub type Meter = Arc<dyn Fn(Outcome, Duration) + Send + Sync>;

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

/// One MLflow server.
#[derive(Clone, Debug)]
pub struct MlflowClient {
    http: Http,
    /// Where REST is: the tracking URI.
    api: String,
    /// Where the pages are: version and files of traces, for which `--static-prefix` counts in every version.
    pages: String,
    access: Option<Access>,
}

/// With what the operator identifies itself, and which workspace it asks about.
#[derive(Clone, Default)]
pub struct Access {
    /// Bearer token.
    pub token: Option<String>,
    /// Workspace.
    pub workspace: Option<String>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token never reaches a log.
        f.debug_struct("Access").field("workspace", &self.workspace).finish_non_exhaustive()
    }
}

/// What a server says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Its version, at most 64 characters.
    pub version: String,
    /// Whether workspaces are switched on.
    pub workspaces: bool,
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
    #[error("it denies permission (403{})", quote(.0))]
    Forbidden(Option<String>),
    /// 403 by a service mesh in front of it.
    #[error("a service mesh in front of it denies permission (403)")]
    Mesh,
    /// 404: MLflow shows no such workspace.
    #[error("it has no workspace of this name (404)")]
    NoWorkspace,
    /// 404.
    #[error("it does not know the request (404{})", quote(.0))]
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
    #[error("it refuses the request ({status}{})", quote(.code))]
    Rejected {
        /// HTTP status.
        status: u16,
        /// MLflow's `error_code`.
        code: Option<String>,
    },
    /// 5xx, with the words of a database or a file system that has no room left.
    #[error("its storage is full ({status})")]
    StorageFull {
        /// HTTP status.
        status: u16,
    },
    /// 5xx or 429.
    #[error("it fails ({status}{})", quote(.code))]
    Server {
        /// HTTP status.
        status: u16,
        /// MLflow's `error_code`.
        code: Option<String>,
    },
}

impl Http {
    /// A client that trusts these certificate authorities in PEM. A TLS provider must be installed in the process.
    pub fn trusting(pem: &str) -> Result<Self, Error> {
        let authorities = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(Error::Client)?;
        Self::with(reqwest::Client::builder().tls_certs_only(authorities))
    }

    /// The same on top of other settings, for tests: a resolver that knows names of a cluster.
    pub fn with(builder: reqwest::ClientBuilder) -> Result<Self, Error> {
        Self::build(builder.connect_timeout(CONNECT_TIMEOUT).timeout(TOTAL_TIMEOUT))
    }

    /// For unit tests: one that waits for an answer however busy the machine is.
    #[cfg(test)]
    pub fn without_timeouts(builder: reqwest::ClientBuilder) -> Result<Self, Error> {
        Self::build(builder)
    }

    fn build(builder: reqwest::ClientBuilder) -> Result<Self, Error> {
        builder
            .user_agent(concat!("agent-tracing-operator/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .pool_max_idle_per_host(1)
            // An address inside the cluster is never behind the proxy that the environment may name.
            .no_proxy()
            .build()
            .map(|client| Self { client, meter: Arc::new(|_, _| {}) })
            .map_err(Error::Client)
    }

    /// The same client, with its requests measured.
    pub fn with_meter(self, meter: Meter) -> Self {
        Self { meter, ..self }
    }

    /// Measures one request, from its start until its answer is understood.
    async fn measure<T>(&self, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let began = Instant::now();
        let done = request.await;
        (self.meter)(Outcome::of(&done), began.elapsed());
        done
    }
}

impl MlflowClient {
    /// A server at a tracking URI such as `http://tracing-mlflow.bank-agents.svc:5500`.
    pub fn new(http: &Http, tracking_uri: &str) -> Self {
        let api = tracking_uri.trim_end_matches('/').to_owned();
        Self { http: http.clone(), pages: api.clone(), api, access: None }
    }

    /// The server at an address, wherever below it its REST is: MLflow up to 3.11 serves it at the origin whatever
    /// `--static-prefix` says, later ones under the prefix; its pages are under the prefix in both. What answers is used.
    pub async fn locate(http: &Http, address: &str) -> Result<(Self, ServerInfo), Error> {
        let given = Self::new(http, address);
        let (api, workspaces) = match given.server_info().await {
            Ok(workspaces) => (given.api.clone(), workspaces),
            Err(Error::NotFound(why)) => {
                let below = Self { api: format!("{}{STATIC_PREFIX}", given.api), ..given.clone() };
                match below.server_info().await {
                    Ok(workspaces) => (below.api, workspaces),
                    Err(Error::NotFound(_)) => return Err(Error::NotFound(why)),
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        let mut found = Self { pages: api.clone(), api, ..given };
        let version = match found.version().await {
            Err(Error::NotFound(_)) if !found.pages.ends_with(STATIC_PREFIX) => {
                found.pages.push_str(STATIC_PREFIX);
                found.version().await?
            }
            version => version?,
        };
        Ok((found, ServerInfo { version, workspaces }))
    }

    /// The same server, asked with these credentials in this workspace.
    pub fn with_access(self, access: Access) -> Self {
        Self { access: Some(access), ..self }
    }

    /// The address that agents get.
    pub fn tracking_uri(&self) -> &str {
        &self.api
    }

    /// Whether the server takes OTLP at the tracking URI, as MLflow's page about Google ADK has it. It is asked with
    /// credentials: without them every path is answered with 401. Nothing is sent, so that any answer but 404 says yes.
    pub async fn takes_otlp(&self) -> Result<bool, Error> {
        let request = self.request(Method::POST, "/v1/traces").header(header::CONTENT_TYPE, "application/x-protobuf");
        match self.http.measure(send(request)).await {
            Err(Error::NotFound(code)) => Ok(code.is_some()),
            Err(error @ (Error::Server { .. } | Error::Timeout | Error::Connection(_) | Error::LoginPage)) => {
                Err(error)
            }
            _ => Ok(true),
        }
    }

    /// Proves that MLflow answers at this address: version first, then a call that passes the Host check.
    pub async fn server(&self) -> Result<ServerInfo, Error> {
        let version = self.version().await?;
        let workspaces = self.workspaces().await?;
        Ok(ServerInfo { version, workspaces })
    }

    /// The server's version. Neither the Host header nor credentials are checked for this one.
    async fn version(&self) -> Result<String, Error> {
        let request = self.http.client.get(format!("{}/version", self.pages));
        self.http.measure(async { version(&whole(request).await?) }).await
    }

    /// Whether workspaces are on. Servers before 3.10 do not know the question, nor workspaces.
    async fn workspaces(&self) -> Result<bool, Error> {
        match self.server_info().await {
            Err(Error::NotFound(_)) => Ok(false),
            answered => answered,
        }
    }

    /// Needs no credentials and gets none.
    async fn server_info(&self) -> Result<bool, Error> {
        #[derive(Deserialize)]
        struct Info {
            #[serde(default)]
            workspaces_enabled: bool,
        }
        let request = self.http.client.get(format!("{}/api/3.0/mlflow/server-info", self.api));
        Ok(self.json::<Info>(request).await?.workspaces_enabled)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.with_credentials(self.http.client.request(method, format!("{}{path}", self.api)))
    }

    fn with_credentials(&self, mut request: RequestBuilder) -> RequestBuilder {
        let Some(Access { token, workspace }) = &self.access else { return request };
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(workspace) = workspace {
            request = request.header("X-MLFLOW-WORKSPACE", workspace);
        }
        request
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Error> {
        self.http.measure(async { json(&whole(request).await?) }).await
    }
}

/// The answer with status 2xx.
async fn send(request: RequestBuilder) -> Result<Response, Error> {
    failure(request.send().await.map_err(transport)?).await
}

/// Its body.
async fn whole(request: RequestBuilder) -> Result<Vec<u8>, Error> {
    body(send(request).await?).await
}

/// What the MLflow operator starts its servers with.
const STATIC_PREFIX: &str = "/mlflow";

#[cfg(test)]
mod tests;
