//! MLflow as far as the operator asks it, and as much of a node as its pod needs. No pod runs here: this process answers at
//! the address that the operator's own `/etc/hosts` gives MLflow's Service.

#![allow(dead_code, reason = "the bench needs a part of it")]

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use agent_tracing::names;
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Router, routing};
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// One MLflow for all namespaces, as far as the operator can tell them apart.
pub struct Mlflow {
    address: Ipv4Addr,
    hosts: PathBuf,
    ports: Mutex<Vec<u16>>,
    /// By the address that was asked, and their name.
    experiments: Mutex<BTreeMap<(String, String), Experiment>>,
}

struct Experiment {
    id: usize,
    /// When its traces began.
    traces: Vec<jiff::Timestamp>,
}

/// The one of this process.
pub fn mlflow() -> &'static Arc<Mlflow> {
    static MLFLOW: OnceLock<Arc<Mlflow>> = OnceLock::new();
    MLFLOW.get_or_init(|| {
        let pid = std::process::id();
        let hosts = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hosts-{pid}"));
        std::fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
        // On loopback, and another one than that of a second run beside this one: the ports are what users write.
        let [_, high, middle, low] = pid.to_be_bytes();
        let address = Ipv4Addr::new(127, 1 + high, middle, low.clamp(2, 254));
        Arc::new(Mlflow { address, hosts, ports: Mutex::default(), experiments: Mutex::default() })
    })
}

impl Mlflow {
    /// Answers at the address of a Service from now on.
    pub fn serve(self: &Arc<Self>, url: &str) {
        let (host, port) = url.strip_prefix("http://").unwrap().split_once(':').unwrap();
        let port = port.parse().unwrap();
        let mut ports = self.ports.lock().unwrap();
        if !ports.contains(&port) {
            ports.push(port);
            self.listen(port);
        }
        // Appended to, never replaced: the file is mounted.
        let mut hosts = OpenOptions::new().append(true).open(&self.hosts).unwrap();
        writeln!(hosts, "{} {host}", self.address).unwrap();
    }

    /// A trace arrives in an experiment that the operator has made; when it began.
    pub fn receive_trace(&self, url: &str, experiment: &str) -> jiff::Timestamp {
        let now = jiff::Timestamp::now();
        let key = (url.trim_start_matches("http://").to_owned(), experiment.to_owned());
        self.experiments.lock().unwrap().get_mut(&key).unwrap().traces.insert(0, now);
        now
    }

    /// A command that runs another one, which finds MLflow's Services.
    pub fn finding_services(&self, program: &str) -> Command {
        let mut command = Command::new("unshare");
        command.arg("--mount");
        if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
            command.arg("--map-root-user");
        }
        command.args(["sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]).arg(&self.hosts).arg(program);
        command
    }

    fn listen(self: &Arc<Self>, port: u16) {
        let listener = TcpListener::bind((self.address, port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let router = self.clone().router();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap();
            });
        });
    }

    fn router(self: Arc<Self>) -> Router {
        let answer = move |of: fn(&Self, &str, &Value) -> Value| {
            let mlflow = self.clone();
            routing::post(async move |headers: HeaderMap, body: String| {
                let host = headers[header::HOST].to_str().unwrap();
                of(&mlflow, host, &serde_json::from_str(&body).unwrap()).to_string()
            })
        };
        Router::new()
            .route("/version", routing::get("3.10.1"))
            .route("/api/3.0/mlflow/server-info", routing::get(r#"{"workspaces_enabled": false}"#))
            .route("/api/2.0/mlflow/experiments/search", answer(Self::find))
            .route("/api/2.0/mlflow/experiments/create", answer(Self::create))
            .route("/api/2.0/mlflow/experiments/set-experiment-tag", answer(|_, _, _| json!({})))
            .route("/api/3.0/mlflow/traces/search", answer(Self::traces))
            .route("/v1/traces", routing::post(StatusCode::BAD_REQUEST))
    }

    fn find(&self, host: &str, asked: &Value) -> Value {
        let experiments = self.experiments.lock().unwrap();
        // Those that were deleted are asked for without a name, and none ever is.
        let Some(filter) = asked["filter"].as_str() else { return json!({}) };
        let found = experiments.iter().filter(|((of, name), _)| of == host && filter == format!("name = '{name}'"));
        let shown = found.map(|((_, name), experiment)| {
            json!({"experiment_id": experiment.id.to_string(), "name": name, "lifecycle_stage": "active", "creation_time": 1})
        });
        json!({"experiments": shown.collect::<Vec<_>>()})
    }

    fn create(&self, host: &str, asked: &Value) -> Value {
        let mut experiments = self.experiments.lock().unwrap();
        let id = experiments.len() + 1;
        let key = (host.to_owned(), asked["name"].as_str().unwrap().to_owned());
        experiments.insert(key, Experiment { id, traces: Vec::new() });
        json!({"experiment_id": id.to_string()})
    }

    fn traces(&self, host: &str, asked: &Value) -> Value {
        let locations = asked["locations"].as_array().unwrap().iter();
        let ids: Vec<_> =
            locations.map(|at| at["mlflow_experiment"]["experiment_id"].as_str().unwrap().to_owned()).collect();
        let since = asked["filter"].as_str().and_then(|filter| filter.strip_prefix("timestamp_ms > ")?.parse().ok());
        let experiments = self.experiments.lock().unwrap();
        let asked_for =
            experiments.iter().filter(|((of, _), experiment)| of == host && ids.contains(&experiment.id.to_string()));
        let mut traces: Vec<_> = asked_for
            .flat_map(|(_, experiment)| experiment.traces.iter().map(|began| (*began, experiment.id)))
            .collect();
        traces.retain(|(began, _)| since.is_none_or(|since: i64| began.as_millisecond() > since));
        traces.sort_by_key(|(began, _)| std::cmp::Reverse(*began));
        traces.truncate(usize::try_from(asked["max_results"].as_u64().unwrap()).unwrap());
        let shown = traces.into_iter().map(|(began, id)| {
            json!({"trace_id": format!("tr-{}", began.as_nanosecond()), "request_time": began.to_string(), "state": "OK",
                "trace_location": {"mlflow_experiment": {"experiment_id": id.to_string()}},
                "tags": {"mlflow.trace.spansLocation": "TRACKING_STORE"}})
        });
        json!({"traces": shown.collect::<Vec<_>>()})
    }
}

impl Drop for Mlflow {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.hosts);
    }
}

/// Brings the pods of MLflow in one namespace to life, until it is dropped.
pub struct Node {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    pub fn start(namespace: &str) -> Self {
        let (ended, namespace) = (Arc::<AtomicBool>::default(), namespace.to_owned());
        let seen = ended.clone();
        let thread = std::thread::spawn(move || {
            let admin = Cluster::admin();
            while !seen.load(Ordering::Relaxed) {
                // The API server may be away, as it is in some of the tests.
                let _ = run_servers(&admin, &namespace);
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        Self { ended, thread: Some(thread) }
    }
}

fn run_servers(admin: &Cluster, namespace: &str) -> Result<(), kube::Error> {
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    let ours = format!("labelSelector={}%3D{}", names::LABEL_MANAGED_BY, names::MANAGED_BY);
    let found = admin.try_send("GET", &pods, &ours, "application/json", &Value::Null)?;
    let found = found.map(|list| list["items"].as_array().cloned()).ok().flatten().unwrap_or_default();
    for pod in found.iter().filter(|pod| pod["status"]["phase"] == "Pending") {
        let status = format!("{pods}/{}/status", pod["metadata"]["name"].as_str().unwrap());
        // It may be gone meanwhile.
        let _ = admin.try_send("PATCH", &status, "", "application/merge-patch+json", &json!({"status": running()}))?;
    }
    Ok(())
}

impl Drop for Node {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The status of a pod that is ready.
pub fn running() -> Value {
    let now = jiff::Timestamp::now().as_second();
    let now = jiff::Timestamp::from_second(now).unwrap().to_string();
    let ready = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
    json!({"phase": "Running", "conditions": [ready("ContainersReady"), ready("Ready")]})
}
