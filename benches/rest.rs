//! What it costs that everything is well: requests to the API server and to MLflow while nothing changes, with every workload
//! traced. `cargo bench --bench rest -- 1/1 100/1 1000/1 10000/50` (workloads/namespaces), against the API server of
//! `tests/cluster/api.sh`.
//!
//! MLflow is the one at `MLFLOW_TRACKING_URI`, which has to be at 127.0.0.1, or a stand-in in this process. Pods exist and run
//! as far as the API server can tell. `REST_SECONDS` is how long is counted (600).
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, dead_code)]

#[path = "../tests/node/audit.rs"]
mod audit;
#[path = "../tests/api_server/cluster.rs"]
mod cluster;
mod many;
#[path = "../tests/api_server/operator/mlflow.rs"]
mod mlflow;
#[path = "../tests/api_server/operator/process.rs"]
mod process;
#[path = "../tests/api_server/proxy.rs"]
mod proxy;
#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use agent_tracing::names;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use audit::Audit;
use cluster::{Cluster, STRICT};
use many::{deployment, tracing};
use mlflow::{mlflow, running};
use process::Operator;
use proxy::{Fault, Proxy};
use support::resident::memory;

/// Where the stand-in is.
const STAND_IN: &str = "http://mlflow-bench.example.com:5998";

fn main() {
    let sizes: Vec<(usize, usize)> = std::env::args().filter_map(|argument| size(&argument)).collect();
    let sizes = if sizes.is_empty() { vec![(100, 1)] } else { sizes };
    let seconds = std::env::var("REST_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(600);
    let real = std::env::var("MLFLOW_TRACKING_URI").ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let admin = Cluster::admin();
    cluster::install();
    cluster::reset_webhook_configuration(&admin);
    println!(
        "{:>10} {:>11} {:>12} {:>14} {:>10} {:>14} {:>10}   API server, by verb",
        "workloads", "namespaces", "first trace", "API server/min", "KB/min", "MLflow/min", "RSS"
    );
    for (workloads, namespaces) in sizes {
        measure(&admin, &runtime, workloads, namespaces, real.as_deref(), seconds);
    }
}

/// `1000/50`: workloads, namespaces.
fn size(text: &str) -> Option<(usize, usize)> {
    let (workloads, namespaces) = text.split_once('/')?;
    Some((workloads.parse().ok()?, namespaces.parse().ok()?))
}

fn measure(admin: &Cluster, runtime: &Runtime, size: usize, count: usize, real: Option<&str>, seconds: u64) {
    let url = real.unwrap_or(STAND_IN);
    if real.is_none() {
        mlflow().serve(url);
    }
    let namespaces: Vec<String> = (0..count).map(|n| format!("rest-{size}-{n}")).collect();
    let each = size / count;
    let (proxy, identity) = (Proxy::start(1), format!("rest-{size}"));
    let trusted = ["--trusted-mlflow-hosts", "mlflow-bench.example.com"];
    let mut operator = Operator::start_through_with(&identity, &proxy, Fault::None, &trusted);
    operator.wait_until_ready();
    for namespace in &namespaces {
        let labels = json!({names::LABEL_INJECTION: names::ENABLED});
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}});
        admin.create(&object, STRICT).unwrap();
        admin.create(&tracing(namespace, url), STRICT).unwrap();
    }
    until("MLflow has answered", || namespaces.iter().all(|ns| status(admin, ns)["mlflow"]["url"] == url));
    for namespace in &namespaces {
        for n in 0..each {
            admin.create(&agent(namespace, n), STRICT).unwrap();
        }
    }
    until("all run, as far as the API server knows", || {
        namespaces.iter().all(|namespace| {
            run_pods(admin, namespace);
            status(admin, namespace)["injected"] == format!("{each}/{each}") && settled(admin, namespace)
        })
    });
    let began = Instant::now();
    for namespace in &namespaces {
        for n in 0..each {
            let experiment = name(namespace, n);
            match real {
                Some(url) => runtime.block_on(send_trace(url, &experiment)),
                None => _ = mlflow().receive_trace(url, &experiment),
            }
        }
    }
    let sent = began.elapsed();
    until("all traces are seen", || {
        namespaces.iter().all(|namespace| reason(admin, namespace, "TracesFlowing") == "TracesReceived")
    });
    let first = began.elapsed().checked_sub(sent).unwrap();
    come_to_rest(&operator, count);

    let Rest { requests, kilobytes, asked, verbs } = count_at_rest(&operator, &proxy, Duration::from_secs(seconds));
    println!(
        "{size:>10} {count:>11} {:>10.1} s {requests:>14.1} {kilobytes:>10.1} {asked:>14.1} {:>6.1} MiB   {verbs}",
        first.as_secs_f64(),
        memory(operator.pid(), "VmRSS"),
    );
    operator.stop();
    for namespace in &namespaces {
        admin.delete("Namespace", "", namespace);
    }
}

/// Waits until two minutes go by in which no namespace is looked at but for its turn, which is every ten minutes, and MLflow is
/// asked no more than its server bears at rest. Of each experiment that falls silent it is asked once how regular it was, at a calm
/// pace: with 1,000 that takes twenty minutes.
fn come_to_rest(operator: &Operator, namespaces: usize) {
    let counts = || {
        let passes = operator.metric("agent_tracing_reconciles_total");
        (passes, operator.metric("agent_tracing_mlflow_requests_total"))
    };
    let mut before = counts();
    until("no namespace is looked at without a cause, and MLflow is asked little", || {
        std::thread::sleep(Duration::from_secs(120));
        let after = counts();
        let (passes, asked) = (after.0 - before.0, after.1 - before.1);
        before = after;
        passes <= 1.0 + 0.3 * namespaces as f64 && asked <= 24.0_f64.max(2.0 * namespaces as f64)
    });
}

/// What a minute costs.
struct Rest {
    /// To the API server, without the lease's.
    requests: f64,
    /// Of the API server's answers and watches, the lease's too.
    kilobytes: f64,
    /// Of MLflow.
    asked: f64,
    /// All requests to the API server in the whole time.
    verbs: String,
}

fn count_at_rest(operator: &Operator, proxy: &Proxy, window: Duration) -> Rest {
    let asked = || operator.metric("agent_tracing_mlflow_requests_total");
    let (audit, asked_before, received_before) = (Audit::from_now(), asked(), proxy.seen().received);
    std::thread::sleep(window);
    let minutes = window.as_secs_f64() / 60.0;
    let mut verbs: BTreeMap<String, usize> = BTreeMap::new();
    for request in audit.requests().iter().filter(|request| request.resource != "leases") {
        *verbs.entry(format!("{} {}", request.verb, request.resource)).or_default() += 1;
    }
    let requests: usize = verbs.values().sum();
    let verbs: Vec<_> = verbs.iter().map(|(verb, count)| format!("{verb} {count}")).collect();
    Rest {
        requests: requests as f64 / minutes,
        kilobytes: (proxy.seen().received - received_before) as f64 / 1000.0 / minutes,
        asked: (asked() - asked_before) / minutes,
        verbs: verbs.join(", "),
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(3600);
    while !holds() {
        assert!(Instant::now() < end, "gave up: {what}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn status(admin: &Cluster, namespace: &str) -> Value {
    admin.get("AgentTracing", namespace, "tracing").unwrap()["status"].clone()
}

fn reason(admin: &Cluster, namespace: &str, condition: &str) -> String {
    let conditions = status(admin, namespace)["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|c| c["type"] == condition);
    found.map(|c| c["reason"].as_str().unwrap().to_owned()).unwrap_or_default()
}

fn settled(admin: &Cluster, namespace: &str) -> bool {
    reason(admin, namespace, "WorkloadsReady") == "AllCurrent"
        && admin.list("Deployment", namespace).iter().all(|d| d["status"]["availableReplicas"] == 1)
}

fn run_pods(admin: &Cluster, namespace: &str) {
    let pending = admin.list("Pod", namespace).into_iter().filter(|pod| pod["status"]["phase"] == "Pending");
    for pod in pending {
        let metadata = json!({"name": pod["metadata"]["name"], "namespace": namespace});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": running()});
        // It may be replaced meanwhile.
        let _ = admin.merge_subresource(&pod, "status", STRICT);
    }
}

/// As MLflow's SDK makes one whose spans are in the database.
async fn send_trace(url: &str, experiment: &str) {
    let http = reqwest::Client::new();
    let find = format!("{url}/api/2.0/mlflow/experiments/get-by-name?experiment_name={experiment}");
    let found: Value = http.get(find).send().await.unwrap().json().await.unwrap();
    let id = &found["experiment"]["experiment_id"];
    let now = jiff::Timestamp::now();
    let info = json!({
        "trace_id": format!("tr-{:032x}", now.as_nanosecond()),
        "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": id}},
        "request_time": now.to_string(), "execution_duration": "1.5s", "state": "OK",
        "tags": {"mlflow.trace.spansLocation": "TRACKING_STORE"},
    });
    let answer =
        http.post(format!("{url}/api/3.0/mlflow/traces")).json(&json!({"trace": {"trace_info": info}})).send().await;
    assert!(answer.unwrap().status().is_success());
}

/// Names that no two namespaces share, for each is an experiment.
fn name(namespace: &str, n: usize) -> String {
    format!("{namespace}-agent-{n}")
}

/// As large as people's are: 14 KB with what the API server adds.
fn agent(namespace: &str, n: usize) -> Value {
    let variable = |n: usize| json!({"name": format!("SETTING_{n:03}"), "value": format!("{n:0100}")});
    deployment(namespace, &name(namespace, n), 1, &(0..60).map(variable).collect())
}
