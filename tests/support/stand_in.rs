//! The real operator as a process of its own, and as much of an API server as it needs to start, in this process and on
//! loopback.
#![allow(dead_code, reason = "each user needs its own part")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener as Listener};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{Stream, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;

#[path = "resident.rs"]
mod resident;

/// The binary, logging to a pipe as in a pod; ended with this value.
pub struct Operator {
    process: Child,
    pub started: Instant,
    pub webhook: SocketAddr,
    pub http: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Operator {
    /// Starts `OPERATOR_BINARY`, else the one that Cargo built.
    pub fn start(api: &ApiServer) -> Self {
        // Nobody holds the lease: this one leads, so that what is measured is the busier of two replicas.
        api.written.lock().unwrap().clear();
        let [webhook, http] = free_addresses();
        let started = Instant::now();
        let binary = std::env::var_os("OPERATOR_BINARY");
        let mut process = Command::new(binary.unwrap_or(env!("CARGO_BIN_EXE_agent-tracing-operator").into()))
            .args(["run", &format!("--http-addr={http}"), &format!("--webhook-addr={webhook}")])
            .env("KUBECONFIG", &api.kubeconfig)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (lines, log) = (BufReader::new(process.stderr.take().unwrap()), Arc::<Mutex<String>>::default());
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        Self { process, started, webhook, http, log }
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    pub fn cpu(&self) -> CpuTime {
        CpuTime::of(self.process.id())
    }

    pub fn memory_by_kind(&self) -> String {
        format!("{:.1} of it its own, {:.1} file-backed", self.memory("RssAnon"), self.memory("RssFile"))
    }

    /// A field of its status, in MiB.
    pub fn memory(&self, field: &str) -> f64 {
        resident::memory(self.process.id(), field)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// CPU time of each thread of a process so far: the kernel's own account.
pub struct CpuTime(BTreeMap<String, Duration>);

impl CpuTime {
    /// That of a process.
    pub fn of(process: u32) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let nanoseconds = |task: std::fs::DirEntry| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let taken = text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            (task.file_name().to_string_lossy().into_owned(), Duration::from_nanos(taken))
        };
        Self(tasks.map(|task| nanoseconds(task.unwrap())).collect())
    }

    /// What the process took since `before`, without what threads took that have ended meanwhile.
    pub fn since(&self, before: &Self) -> Duration {
        let taken =
            |(thread, now): (&String, &Duration)| now.saturating_sub(before.0.get(thread).copied().unwrap_or_default());
        self.0.iter().map(taken).sum()
    }
}

/// As much of an API server as the operator needs to start: it lists one AgentTracing and one labelled namespace, keeps
/// what is written, and its watches tell only of the webhook's certificate.
pub struct ApiServer {
    pub kubeconfig: std::path::PathBuf,
    written: Written,
}

type Written = Arc<Mutex<BTreeMap<String, Value>>>;

impl ApiServer {
    pub async fn start(tracing: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kubeconfig = std::env::temp_dir().join(format!(
            "agent-tracing-{}-{}",
            std::process::id(),
            listener.local_addr().unwrap().port()
        ));
        std::fs::write(&kubeconfig, Self::kubeconfig(listener.local_addr().unwrap())).unwrap();
        let written = Written::default();
        let store = written.clone();
        let router = axum::Router::new().fallback(move |request| answer(request, store.clone(), tracing.clone()));
        tokio::spawn(async { axum::serve(listener, router).await });
        Self { kubeconfig, written }
    }

    fn kubeconfig(address: SocketAddr) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {"server": format!("http://{address}")}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
            "users": [{"name": "bench", "user": {}}],
        })
        .to_string()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.kubeconfig);
    }
}

async fn answer(request: Request<Body>, written: Written, tracing: Value) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    if parts.uri.query().unwrap_or_default().contains("watch=true") {
        return Body::from_stream(changes(path, written)).into_response();
    }
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let mut object: Value = serde_json::from_slice(&body).unwrap_or_default();
    let known = written.lock().unwrap().get(&path).cloned();
    let answer = match (parts.method, path.rsplit('/').next().unwrap_or_default(), known) {
        (Method::GET, "apis", _) => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}),
        (Method::GET, "agenttracings", _) => list([tracing]),
        (Method::GET, "tracing", _) => tracing,
        (Method::GET, "namespaces", _) => list([namespace()]),
        (Method::GET, "bank" | "agent-tracing-system", _) => namespace(),
        (Method::GET, "mutatingwebhookconfigurations", _) => list([configuration("")]),
        (Method::GET, _, Some(object)) => object,
        (Method::GET, _, None) if is_collection(&path) => list([]),
        (Method::GET, _, None) => return not_found(),
        // The certificate's bundle comes as a JSON patch, the owner as a merge patch.
        (Method::PATCH, "agent-tracing-webhook", known) => {
            let bundle = object.get(1).map(|add| configuration(add["value"].as_str().unwrap()));
            keep(&written, path, bundle.or(known).unwrap_or_else(|| configuration("")))
        }
        (method, _, _) => {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let path = if method == Method::POST { format!("{path}/{name}") } else { path };
            keep(&written, path, object.take())
        }
    };
    ([(header::CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
}

/// Each write is a version of its own.
fn keep(written: &Written, path: String, mut object: Value) -> Value {
    let mut written = written.lock().unwrap();
    let version = written.values().map(version).max().unwrap_or(1) + 1;
    object["metadata"]["resourceVersion"] = json!(version.to_string());
    written.insert(path, object.clone());
    object
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// What is written of the kinds of which the operator waits to hear; of others its watches never tell anything.
fn changes(path: String, written: Written) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    let told = ["secrets", "mutatingwebhookconfigurations"].iter().any(|kind| path.ends_with(kind));
    stream::unfold(1, move |seen| {
        let (written, below) = (written.clone(), format!("{path}/"));
        async move {
            loop {
                let next = {
                    let written = written.lock().unwrap();
                    let of_kind =
                        written.iter().filter(|(path, object)| path.starts_with(&below) && version(object) > seen);
                    of_kind.map(|(_, object)| object.clone()).min_by_key(version)
                };
                if let Some(object) = next.filter(|_| told) {
                    let event = json!({"type": "MODIFIED", "object": object});
                    return Some((Ok(Bytes::from(format!("{event}\n"))), version(&object)));
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    })
}

/// `/api/v1/<kind>` or `/apis/<group>/<version>/namespaces/<namespace>/<kind>`: an odd number of parts after the version.
fn is_collection(path: &str) -> bool {
    let version = if path.starts_with("/api/") { 3 } else { 4 };
    path.split('/').count().saturating_sub(version) % 2 == 1
}

fn namespace() -> Value {
    json!({"metadata": {"name": "bank", "resourceVersion": "1", "labels": {"agenttracing.dev/injection": "enabled"}}})
}

fn configuration(bundle: &str) -> Value {
    json!({
        "metadata": {"name": "agent-tracing-webhook", "resourceVersion": "1"},
        "webhooks": [{"name": "inject.agenttracing.dev", "clientConfig": {"caBundle": bundle},
            "sideEffects": "None", "admissionReviewVersions": ["v1"]}],
    })
}

fn list<const N: usize>(items: [Value; N]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items.to_vec()})
}

fn not_found() -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
        "message": "not found"});
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "application/json")], status.to_string()).into_response()
}

/// Addresses of loopback at which nobody listens.
pub fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    // Held together, so that no two are the same.
    let listeners = [(); N].map(|()| Listener::bind("127.0.0.1:0").unwrap());
    listeners.each_ref().map(|listener| listener.local_addr().unwrap())
}
