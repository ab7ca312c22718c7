//! The running binary, measured from outside: CPU time of one HTTPS admission over keep-alive, resident memory at rest,
//! time from process start to the first correct answer. `cargo bench --bench https`
//!
//! The binary is `OPERATOR_BINARY`, else the one that Cargo built, logging to a pipe as in a pod. Its API server is a stand-in in this process, over
//! plain HTTP on loopback. CPU time is the kernel's account of the binary's own threads (`/proc/<pid>/task/*/schedstat`):
//! TLS, HTTP, decision, log line and metrics, system calls included, this client excluded.

#![allow(clippy::unwrap_used)]

mod reviews;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;

const STARTS: usize = 10;
const REQUESTS: u32 = 20_000;

#[tokio::main]
async fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap();
    let api = ApiServer::start().await;

    let mut starts: Vec<_> = Vec::new();
    for _ in 0..STARTS {
        let operator = Operator::start(&api);
        starts.push(operator.first_answer().await);
    }
    starts.sort();
    println!("start to first correct answer   median {:?}, slowest {:?}", starts[STARTS / 2], starts[STARTS - 1]);

    let operator = Operator::start(&api);
    operator.first_answer().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!("resident memory at rest         {} KiB ({})", operator.memory("VmRSS"), operator.memory_by_kind());

    for (kilobytes, update) in reviews::SIZES {
        let review = Bytes::from(reviews::review(kilobytes, update));
        let requests = if kilobytes > 100 { REQUESTS / 10 } else { REQUESTS };
        let client = client();
        operator.asks(&client, &review, requests / 10).await;
        let (before, started) = (operator.cpu(), Instant::now());
        operator.asks(&client, &review, requests).await;
        let (cpu, wall) = (operator.cpu() - before, started.elapsed());
        println!(
            "{kilobytes:>3} KB review, keep-alive        {:?} CPU each ({:?} until answered)",
            cpu / requests,
            wall / requests
        );
    }
    let review = Bytes::from(reviews::review(14, false));
    let (before, handshakes) = (operator.cpu(), 500);
    for _ in 0..handshakes {
        operator.asks(&client(), &review, 1).await;
    }
    println!(" 14 KB review, new connection    {:?} CPU each", (operator.cpu() - before) / handshakes);
    println!("resident memory afterwards      {} KiB ({})", operator.memory("VmRSS"), operator.memory_by_kind());
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().danger_accept_invalid_certs(true).no_proxy().build().unwrap()
}

struct Operator {
    process: Child,
    started: Instant,
    url: String,
}

impl Operator {
    fn start(api: &ApiServer) -> Self {
        // Nobody holds the lease: this one leads, so that what is measured is the busier of two replicas.
        api.written.lock().unwrap().clear();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let started = Instant::now();
        let binary = std::env::var_os("OPERATOR_BINARY");
        let mut process = Command::new(binary.unwrap_or(env!("CARGO_BIN_EXE_agent-tracing-operator").into()))
            .args(["run", "--http-addr=127.0.0.1:0", &format!("--webhook-addr=127.0.0.1:{port}")])
            .env("KUBECONFIG", &api.kubeconfig)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                if std::env::var_os("SHOW_LOG").is_some() {
                    println!("{line}");
                }
            }
        });
        Self { process, started, url: format!("https://127.0.0.1:{port}/mutate") }
    }

    async fn first_answer(&self) -> Duration {
        let (client, review) = (client(), Bytes::from(reviews::review(3, false)));
        loop {
            if self.answers(&client, &review).await {
                return self.started.elapsed();
            }
            assert!(self.started.elapsed() < Duration::from_secs(30), "no answer with a patch within 30 s");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn asks(&self, client: &reqwest::Client, review: &Bytes, requests: u32) {
        for _ in 0..requests {
            assert!(self.answers(client, review).await, "an answer without a patch");
        }
    }

    async fn answers(&self, client: &reqwest::Client, review: &Bytes) -> bool {
        let answer = client.post(&self.url).header(header::CONTENT_TYPE, "application/json").body(review.clone());
        let Ok(answer) = answer.send().await else { return false };
        answer.text().await.is_ok_and(|text| text.contains("JSONPatch"))
    }

    fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let nanoseconds = |task: std::fs::DirEntry| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
        };
        Duration::from_nanos(tasks.map(|task| nanoseconds(task.unwrap())).sum())
    }

    fn memory_by_kind(&self) -> String {
        format!("{} of it its own, {} file-backed", self.memory("RssAnon"), self.memory("RssFile"))
    }

    fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// As much of an API server as the operator needs to start: it lists one AgentTracing and one labelled namespace, keeps
/// what is written, and its watches never tell anything.
struct ApiServer {
    kubeconfig: std::path::PathBuf,
    written: Written,
}

type Written = Arc<Mutex<std::collections::BTreeMap<String, Value>>>;

impl ApiServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kubeconfig = std::env::temp_dir().join(format!("agent-tracing-bench-{}", std::process::id()));
        std::fs::write(&kubeconfig, Self::kubeconfig(listener.local_addr().unwrap())).unwrap();
        let written = Written::default();
        let store = written.clone();
        let router = axum::Router::new().fallback(move |request| answer(request, store.clone()));
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

async fn answer(request: Request<Body>, written: Written) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    if parts.uri.query().unwrap_or_default().contains("watch=true") {
        return Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>()).into_response();
    }
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let mut object: Value = serde_json::from_slice(&body).unwrap_or_default();
    let known = written.lock().unwrap().get(&path).cloned();
    let answer = match (parts.method, path.rsplit('/').next().unwrap_or_default(), known) {
        (Method::GET, "apis", _) => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}),
        (Method::GET, "agenttracings", _) => list([reviews::tracing()]),
        (Method::GET, "tracing", _) => reviews::tracing(),
        (Method::GET, "namespaces", _) => list([namespace()]),
        (Method::GET, "bank", _) => namespace(),
        (Method::GET, "mutatingwebhookconfigurations", _) => list([configuration("")]),
        (Method::GET, _, Some(object)) => object,
        (Method::GET, _, None) if is_collection(&path) => list([]),
        (Method::GET, _, None) => return not_found(),
        (Method::PATCH, "agent-tracing-webhook", _) => configuration(object[1]["value"].as_str().unwrap()),
        (method, _, _) => {
            object["metadata"]["resourceVersion"] = json!("2");
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let path = if method == Method::POST { format!("{path}/{name}") } else { path };
            written.lock().unwrap().insert(path, object.clone());
            object
        }
    };
    ([(header::CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
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
