//! The relay as a process of its own that is killed: nothing that it answered with 200 is lost. MLflow is a stand-in that counts, for no
//! real one can be had to answer so fast that a thousand requests are under way when the process dies.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[path = "support/stand_in.rs"]
mod stand_in;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;

use stand_in::{ApiServer, free_addresses};

/// Takes spans after a moment, or refuses them, and counts how often each came.
#[derive(Default)]
struct Mlflow {
    refuses: AtomicBool,
    taken: Mutex<BTreeMap<String, usize>>,
}

impl Mlflow {
    async fn start() -> (Arc<Self>, SocketAddr) {
        let mlflow = Arc::new(Self::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(mlflow.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (mlflow, address)
    }

    fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::Relaxed);
    }

    fn taken(&self) -> BTreeMap<String, usize> {
        self.taken.lock().unwrap().clone()
    }
}

async fn answer(State(mlflow): State<Arc<Mlflow>>, uri: Uri, body: Bytes) -> Response {
    if uri.path().ends_with("/experiments/search") {
        return axum::Json(json!({"experiments": [{"experiment_id": "7", "lifecycle_stage": "active"}]}))
            .into_response();
    }
    if uri.path() != "/v1/traces" || body.is_empty() {
        return StatusCode::BAD_REQUEST.into_response();
    }
    sleep(Duration::from_millis(3)).await;
    if mlflow.refuses.load(Ordering::Relaxed) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let spans = ExportTraceServiceRequest::decode(body).unwrap();
    let name = spans.resource_spans[0].scope_spans[0].spans[0].name.clone();
    *mlflow.taken.lock().unwrap().entry(name).or_default() += 1;
    StatusCode::OK.into_response()
}

struct Relay {
    process: Child,
    agents: SocketAddr,
    http: SocketAddr,
}

impl Relay {
    fn start(api: &ApiServer, [agents, http]: [SocketAddr; 2], spool: &PathBuf) -> Self {
        let binary = std::env::var_os("OPERATOR_BINARY");
        let process = Command::new(binary.unwrap_or(env!("CARGO_BIN_EXE_agent-tracing-operator").into()))
            .args(["relay", "--namespace=bank", "--tracing=tracing", "--log-level=warn"])
            .args([format!("--addr={agents}"), format!("--http-addr={http}")])
            .arg("--spool")
            .arg(spool)
            .env("KUBECONFIG", &api.kubeconfig)
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self { process, agents, http }
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap().success());
    }

    async fn evidence(&self) -> serde_json::Value {
        let answer = client().get(format!("http://{}/evidence", self.http)).send().await.unwrap();
        answer.json().await.unwrap()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Of an MLflow that somebody else runs.
fn tracing(mlflow: SocketAddr) -> serde_json::Value {
    json!({
        "apiVersion": "agenttracing.dev/v1alpha1", "kind": "AgentTracing",
        "metadata": {"name": "tracing", "namespace": "bank", "uid": "4b5b", "resourceVersion": "7"},
        "spec": {"mlflow": {"mode": "External", "external": {"trackingURI": format!("http://{mlflow}")}}},
    })
}

fn client() -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("agent-tracing-relay-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

async fn send(client: &reqwest::Client, relay: SocketAddr, workload: &str, name: &str) -> bool {
    let span = Span { name: name.to_owned(), trace_id: vec![1; 16], span_id: vec![2; 8], ..Span::default() };
    let scope = ScopeSpans { spans: vec![span], ..ScopeSpans::default() };
    let resource = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
    let spans = ExportTraceServiceRequest { resource_spans: vec![resource] };
    let url = format!("http://{relay}/w/deployment/{workload}/v1/traces");
    let sent = client.post(url).body(spans.encode_to_vec()).timeout(Duration::from_secs(20)).send().await;
    sent.is_ok_and(|answer| answer.status().is_success())
}

async fn until(what: &str, patience: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + patience;
    while !holds().await {
        assert!(Instant::now() < end, "gave up waiting: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_answered_with_200_is_lost_however_often_the_relay_is_killed() {
    let kills = if std::env::var_os("SOAK").is_some() { 100 } else { 10 };
    let (mlflow, address) = Mlflow::start().await;
    let api = ApiServer::start(tracing(address)).await;
    let (folder, addresses) = (folder("kills"), free_addresses());
    let (accepted, ends, next) =
        (Arc::<Mutex<Vec<String>>>::default(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut agents = JoinSet::new();
    for agent in 0..4 {
        let (accepted, ends, next) = (accepted.clone(), ends.clone(), next.clone());
        agents.spawn(async move {
            let client = client();
            while !ends.load(Ordering::Relaxed) {
                let name = next.fetch_add(1, Ordering::Relaxed).to_string();
                if send(&client, addresses[0], &format!("agent-{agent}"), &name).await {
                    accepted.lock().unwrap().push(name);
                } else {
                    sleep(Duration::from_millis(20)).await;
                }
            }
        });
    }
    for kill in 0..kills {
        let mut relay = Relay::start(&api, addresses, &folder);
        let before = accepted.lock().unwrap().len();
        until("it takes something", Duration::from_secs(20), async || accepted.lock().unwrap().len() > before + 5)
            .await;
        // With the spool in use, and without.
        mlflow.refuse(kill % 2 == 0);
        sleep(Duration::from_millis(37 * (kill % 7) + 11)).await;
        relay.signal("-KILL");
        relay.process.wait().unwrap();
    }
    ends.store(true, Ordering::Relaxed);
    while agents.join_next().await.is_some() {}
    mlflow.refuse(false);
    let relay = Relay::start(&api, addresses, &folder);
    let accepted = accepted.lock().unwrap().clone();
    let missing = || {
        let taken = mlflow.taken();
        accepted.iter().filter(|name| !taken.contains_key(*name)).count()
    };
    until("all have arrived", Duration::from_secs(60), async || missing() == 0).await;
    let twice = mlflow.taken().values().filter(|count| **count > 1).count();
    println!("{} requests answered with 200 beside {kills} kills: none lost, {twice} came twice", accepted.len());
    drop(relay);
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_asked_to_end_keeps_what_mlflow_did_not_take_and_sends_it_once() {
    let (mlflow, address) = Mlflow::start().await;
    let api = ApiServer::start(tracing(address)).await;
    let (folder, addresses) = (folder("ends"), free_addresses());
    let client = client();
    let mut relay = Relay::start(&api, addresses, &folder);
    mlflow.refuse(true);
    until("it takes the first one", Duration::from_secs(20), async || send(&client, relay.agents, "teller", "0").await)
        .await;
    for n in 1..50 {
        assert!(send(&client, relay.agents, "teller", &n.to_string()).await, "{n}");
    }
    assert_eq!(relay.evidence().await["workloads"]["deployment/teller"]["held"], 50);
    relay.signal("-TERM");
    let ended = relay.process.wait().unwrap();
    assert_eq!(ended.code(), Some(0));
    assert!(mlflow.taken().is_empty());
    mlflow.refuse(false);
    let relay = Relay::start(&api, addresses, &folder);
    until("all have arrived", Duration::from_secs(30), async || mlflow.taken().len() == 50).await;
    until("it knows", Duration::from_secs(5), async || relay.evidence().await["spool"]["bytes"] == 0).await;
    assert!(mlflow.taken().values().all(|count| *count == 1));
    std::fs::remove_dir_all(folder).unwrap();
}
