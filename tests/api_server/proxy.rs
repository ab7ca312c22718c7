//! A reverse proxy between an operator and the API server that can do to it what a bad day does. Plain HTTP on loopback; the
//! operator's own token goes through, so that rights and the audit log stay as they are.

use std::convert::Infallible;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Response, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::kubectl;

/// What is done to those who come through.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Fault {
    #[default]
    None,
    /// The process is sent a signal at its n-th write, from 1; leases do not count.
    Signal { signal: &'static str, at: usize, moment: Moment },
    /// Half of all writes is answered with 409 and not passed on.
    Conflicts,
    /// A third of all requests is answered with 429 and `Retry-After: 1`.
    TooManyRequests,
    /// No watch lives longer than some hundred milliseconds. It ends in one of three ways: well, amid the answer, or expired.
    ShortWatches,
    /// Watches end and are not taken again.
    NoWatches,
}

/// When a signal comes in the life of the write at which it comes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Moment {
    /// The API server gets the write from one who is gone: its webhook does not answer any more.
    Before,
    /// The API server has answered, and its answer is not heard.
    Unheard,
    /// The answer was heard, a moment ago.
    Heard,
}

pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    /// Its end is the end of all connections.
    _runtime: Runtime,
}

struct Shared {
    server: String,
    client: reqwest::Client,
    inner: Mutex<Inner>,
}

struct Inner {
    fault: Fault,
    /// The process behind the requests.
    pid: u32,
    writes: Vec<String>,
    random: Random,
    refused: usize,
    cut: usize,
    expired: usize,
    signalled: bool,
    received: usize,
}

/// What has happened so far.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Each write that was passed on or caught, leases excepted, as method and path.
    pub writes: Vec<String>,
    /// Requests that were answered here.
    pub refused: usize,
    /// Watches that were ended here.
    pub cut: usize,
    /// Watches that the API server itself ended because what they had seen is no longer known.
    pub expired: usize,
    /// The signal was sent.
    pub signalled: bool,
    /// Bytes of the API server's answers and watches, as compressed as they were.
    #[allow(dead_code, reason = "a bench reads it")]
    pub received: usize,
}

impl Proxy {
    pub fn start(seed: u64) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let text = kubectl(&["config", "view", "--raw", "--flatten", "-o", "json"], "").unwrap();
        let config: Value = serde_json::from_str(&text).unwrap();
        let cluster = &config["clusters"][0]["cluster"];
        let authority = STANDARD.decode(cluster["certificate-authority-data"].as_str().unwrap()).unwrap();
        let authority = reqwest::Certificate::from_pem(&authority).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([authority]).no_proxy().build().unwrap();
        let inner = Inner {
            fault: Fault::None,
            pid: 0,
            writes: Vec::new(),
            random: Random(seed),
            refused: 0,
            cut: 0,
            expired: 0,
            signalled: false,
            received: 0,
        };
        let server = cluster["server"].as_str().unwrap().to_owned();
        let shared = Arc::new(Shared { server, client, inner: Mutex::new(inner) });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(answer).with_state(shared.clone());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { port, shared, _runtime: runtime }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on this is done, to this process; counts start over.
    pub fn begin(&self, fault: Fault, pid: u32) {
        let mut inner = self.shared.inner();
        let random = Random(inner.random.next());
        *inner = Inner {
            fault,
            pid,
            writes: Vec::new(),
            random,
            refused: 0,
            cut: 0,
            expired: 0,
            signalled: false,
            received: 0,
        };
    }

    /// Nothing is done any more.
    pub fn heal(&self) {
        self.shared.inner().fault = Fault::None;
    }

    pub fn seen(&self) -> Seen {
        let Inner { fault: _, pid: _, random: _, writes, refused, cut, expired, signalled, received } =
            &*self.shared.inner();
        Seen {
            writes: writes.clone(),
            refused: *refused,
            cut: *cut,
            expired: *expired,
            signalled: *signalled,
            received: *received,
        }
    }
}

/// What is to become of a request.
enum Fate {
    Passed,
    Refused(Response<Body>),
    Fatal(&'static str, Moment),
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self, parts: &Parts) -> Fate {
        let path = parts.uri.path();
        let is_lease = path.contains("/leases");
        let is_write = parts.method != Method::GET && !path.contains("accessreviews");
        let mut inner = self.inner();
        if is_write && !is_lease {
            inner.writes.push(format!("{} {path}", parts.method));
        }
        let fault = inner.fault;
        let fate = match fault {
            Fault::Signal { signal, at, moment } if is_write && !is_lease && inner.writes.len() == at => {
                inner.signalled = true;
                return Fate::Fatal(signal, moment);
            }
            Fault::Conflicts if is_write && inner.random.below(2) == 0 => refusal(409, "Conflict"),
            Fault::TooManyRequests if inner.random.below(3) == 0 => refusal(429, "TooManyRequests"),
            Fault::NoWatches if is_watch(parts) => refusal(503, "ServiceUnavailable"),
            _ => return Fate::Passed,
        };
        inner.refused += 1;
        Fate::Refused(fate)
    }

    fn signal(&self, signal: &str) {
        let pid = self.inner().pid.to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// The request to the API server, and how it answers.
    async fn pass(&self, parts: &Parts, body: Bytes) -> Result<reqwest::Response, reqwest::Error> {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut headers = parts.headers.clone();
        headers.remove(header::HOST);
        headers.remove(header::CONTENT_LENGTH);
        let url = format!("{}{path}", self.server);
        self.client.request(parts.method.clone(), url).headers(headers).body(body).send().await
    }
}

fn is_watch(parts: &Parts) -> bool {
    parts.uri.query().is_some_and(|query| query.contains("watch=true") || query.contains("watch=1"))
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, usize::MAX).await else { return Ok(refusal(400, "BadRequest")) };
    let fatal = match shared.fate(&parts) {
        Fate::Passed => None,
        Fate::Refused(answer) => return Ok(answer),
        Fate::Fatal(signal, moment) => Some((signal, moment)),
    };
    if let Some((signal, Moment::Before)) = fatal {
        shared.signal(signal);
    }
    let watches = is_watch(&parts);
    // On its own: the one who asked may be gone before there is an answer, and the write is to go through even so.
    let passed = shared.clone();
    let answered = tokio::spawn(async move { passed.pass(&parts, body).await }).await.unwrap();
    let Ok(answered) = answered else { return Ok(refusal(502, "BadGateway")) };
    match fatal {
        Some((signal, Moment::Unheard)) => shared.signal(signal),
        Some((signal, Moment::Heard)) => {
            let wait = Duration::from_millis(shared.inner().random.below(30));
            let shared = shared.clone();
            tokio::spawn(async move {
                sleep(wait).await;
                shared.signal(signal);
            });
        }
        _ => {}
    }
    let status = answered.status();
    let mut headers = answered.headers().clone();
    without_hops(&mut headers);
    let body = match watches {
        true => watch(shared, answered),
        // Whole, so that its length is told: what ends early must not pass for an answer.
        false => match answered.bytes().await {
            Ok(bytes) => {
                shared.inner().received += bytes.len();
                Body::from(bytes)
            }
            Err(_) => return Ok(refusal(502, "BadGateway")),
        },
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

fn without_hops(headers: &mut HeaderMap) {
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
        headers.remove(name);
    }
}

/// A watch as it comes, for as long as it may last.
fn watch(shared: Arc<Shared>, answered: reqwest::Response) -> Body {
    let (end, manner) = {
        let random = &mut shared.inner().random;
        (Instant::now() + Duration::from_millis(200 + random.below(400)), random.below(3))
    };
    let state = Some((shared, answered));
    Body::from_stream(stream::unfold(state, move |state| async move {
        let (shared, mut answered) = state?;
        loop {
            let fault = shared.inner().fault;
            let ends = match fault {
                Fault::ShortWatches => Instant::now() >= end,
                Fault::NoWatches => true,
                _ => false,
            };
            if ends {
                shared.inner().cut += 1;
                return match manner {
                    _ if fault == Fault::NoWatches => None,
                    0 => None,
                    1 => Some((Err(std::io::Error::other("cut")), None)),
                    _ => Some((Ok(expired()), None)),
                };
            }
            // A fault may begin while nothing is told.
            let look = Instant::now() + Duration::from_millis(50);
            let chunk = tokio::select! {
                chunk = answered.chunk() => chunk,
                () = sleep_until(look) => continue,
            };
            return match chunk {
                Ok(Some(bytes)) => {
                    shared.inner().received += bytes.len();
                    if bytes.windows(10).any(|window| window == b"\"code\":410") {
                        shared.inner().expired += 1;
                    }
                    Some((Ok(bytes), Some((shared, answered))))
                }
                Ok(None) => None,
                Err(error) => Some((Err(std::io::Error::other(error)), None)),
            };
        }
    }))
}

/// What the API server says when what a watch has seen is no longer known.
fn expired() -> Bytes {
    let object = status(410, "Expired", "too old resource version: 1 (2)");
    Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": object})))
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": message,
    })
}

fn refusal(code: u16, reason: &str) -> Response<Body> {
    let body = status(code, reason, "the proxy of the test has it so");
    let mut response = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
    if code == 429 {
        response = response.header(header::RETRY_AFTER, "1");
    }
    response.body(Body::from(body.to_string())).unwrap()
}

/// SplitMix64: the same seed, the same faults.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
