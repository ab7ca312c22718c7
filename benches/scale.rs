//! Many workloads: how long until all that exist are wired once their namespaces are labelled, how fast the webhook of the same
//! process answers meanwhile, and the operator's memory.
//! `cargo bench --bench scale -- 100 1000 10000`, against the API server of `tests/cluster/api.sh`; replicas are 0, since no
//! node is there.
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
mod reviews;
#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use agent_tracing::api::{AgentTracing, AgentTracingStatus, ConditionType};
use agent_tracing::core::status::is_true;
use agent_tracing::names;
use futures::{StreamExt, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, Config, ResourceExt};
use serde_json::json;
use tokio::runtime::Runtime;

use cluster::{Cluster, STRICT};
use many::{UNOBSERVED, create, idle, label, tracing};
use process::Operator;
use support::resident::memory;

const NAMESPACES: usize = 50;
/// Objects of each of the kinds that the operator must not hold in memory.
const STRANGERS: usize = 20_000;
/// Between two reviews of the webhook beside the leader's work.
const PACE: Duration = Duration::from_millis(20);
/// How long the writes at rest are counted, up to which size: what writes for ever does so in two minutes.
const REST: [(usize, u64); 2] = [(1000, 600), (usize::MAX, 120)];

fn main() {
    let sizes: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![100, 1000] } else { sizes };
    let admin = Cluster::admin();
    cluster::install();
    cluster::reset_webhook_configuration(&admin);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    println!(
        "{:>10} {:>8} {:>10} {:>10} {:>9} {:>12}   webhook meanwhile (and at rest)",
        "workloads", "wired", "in status", "RSS peak", "at rest", "writes"
    );
    for size in sizes {
        measure(&admin, &runtime, size);
    }
}

fn measure(admin: &Cluster, runtime: &Runtime, size: usize) {
    let client = runtime.block_on(async { Client::try_from(Config::infer().await.unwrap()).unwrap() });
    let each = size / NAMESPACES;
    let namespaces: Vec<String> = (0..NAMESPACES).map(|n| format!("scale-{size}-{n}")).collect();
    for namespace in &namespaces {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        admin.create(&object, STRICT).unwrap();
        admin.create(&tracing(namespace, UNOBSERVED), STRICT).unwrap();
    }
    let all = namespaces.iter().flat_map(|namespace| (0..each).map(move |n| idle(namespace, n)));
    runtime.block_on(create(&client, all));
    let operator = Operator::start(&format!("scale-{size}"));
    std::thread::sleep(Duration::from_secs(10));

    let reviews = Reviews::begin(operator.webhook, &namespaces[0]);
    let began = Instant::now();
    let (all_wired, all_told) = runtime.block_on(async {
        label(&client, &namespaces).await;
        until(|| async { wired(&client).await >= each * NAMESPACES }).await;
        let all_wired = began.elapsed();
        until(|| async { told(&client, each).await == NAMESPACES }).await;
        assert_eq!(rolled_twice(&client).await, Vec::<String>::new(), "rolled more than once");
        (all_wired, began.elapsed())
    });
    let beside = reviews.end();
    let peak = memory(operator.pid(), "VmHWM");
    std::thread::sleep(Duration::from_secs(5));
    let reviews = Reviews::begin(operator.webhook, &namespaces[0]);
    std::thread::sleep(Duration::from_secs(20));
    let calm = reviews.end();
    let before = operator.writes().len();
    let rest = REST.iter().find(|(most, _)| size <= *most).expect("no size is larger").1;
    std::thread::sleep(Duration::from_secs(rest));
    let writes = operator.writes().len() - before;
    println!(
        "{:>10} {:>6.1} s {:>8.1} s {:>6.1} MiB {:>5.1} MiB {:>12}   {beside} ({calm})",
        each * NAMESPACES,
        all_wired.as_secs_f64(),
        all_told.as_secs_f64(),
        peak,
        memory(operator.pid(), "VmRSS"),
        format!("{writes} in {rest} s")
    );
    if std::env::var_os("STRANGERS").is_some() {
        runtime.block_on(strangers(&client, &namespaces[0]));
        std::thread::sleep(Duration::from_secs(60));
        println!("{STRANGERS:>10} more Pods and Secrets: {:.1} MiB", memory(operator.pid(), "VmRSS"));
    }
    operator.stop();
    for namespace in &namespaces {
        admin.delete("Namespace", "", namespace);
    }
}

/// Reviews of 14 KB over one kept connection, one after the other, and how long each took.
struct Reviews {
    ends: Arc<AtomicBool>,
    asking: JoinHandle<Vec<Duration>>,
}

impl Reviews {
    /// About a workload of a namespace that has the label, or gets it.
    fn begin(port: u16, namespace: &str) -> Self {
        let review = String::from_utf8(reviews::review(14, false)).unwrap();
        let review = review.replace(r#""namespace":"bank""#, &format!(r#""namespace":"{namespace}""#));
        let ends = Arc::new(AtomicBool::new(false));
        let end = ends.clone();
        // On a thread of its own, so that what else this program does is not measured.
        let asking = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let client = reqwest::Client::builder().danger_accept_invalid_certs(true).no_proxy().build().unwrap();
            runtime.block_on(async {
                let mut took = Vec::new();
                while !end.load(Ordering::Relaxed) {
                    let ask = client.post(format!("https://127.0.0.1:{port}{}", names::WEBHOOK_PATH));
                    let began = Instant::now();
                    let answer = ask.header("content-type", "application/json").body(review.clone()).send().await;
                    assert!(answer.unwrap().text().await.unwrap().contains("\"allowed\":true"));
                    took.push(began.elapsed());
                    tokio::time::sleep(PACE).await;
                }
                took
            })
        });
        Self { ends, asking }
    }

    fn end(self) -> String {
        self.ends.store(true, Ordering::Relaxed);
        let mut took = self.asking.join().unwrap();
        took.sort();
        let [half, most, longest] = [took[took.len() / 2], took[took.len() * 99 / 100], took[took.len() - 1]]
            .map(|time| time.as_secs_f64() * 1000.0);
        format!("p50 {half:.1} ms, p99 {most:.1} ms, max {longest:.1} ms of {}", took.len())
    }
}

/// Each change of a template is a generation.
async fn rolled_twice(client: &Client) -> Vec<String> {
    let all = Api::<Deployment>::all(client.clone()).list_metadata(&ListParams::default()).await.unwrap();
    all.items.iter().filter(|d| d.metadata.generation > Some(2)).map(ResourceExt::name_any).collect()
}

async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    let end = Instant::now() + Duration::from_secs(1800);
    while !holds().await {
        assert!(Instant::now() < end, "gave up");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn wired(client: &Client) -> usize {
    let wired = ListParams::default().labels(names::LABEL_WIRED);
    Api::<Deployment>::all(client.clone()).list_metadata(&wired).await.unwrap().items.len()
}

/// How many AgentTracings say that all of theirs are wired and none rolls any more.
async fn told(client: &Client, each: usize) -> usize {
    let all = Api::<AgentTracing>::all(client.clone()).list(&ListParams::default()).await.unwrap();
    let done = format!("{each}/{each}");
    let is_done = |status: &AgentTracingStatus| {
        status.injected.as_ref() == Some(&done) && is_true(Some(status), ConditionType::WorkloadsReady)
    };
    all.iter().filter(|tracing| tracing.status.as_ref().is_some_and(is_done)).count()
}

/// What a cluster is full of and the operator has nothing to do with.
async fn strangers(client: &Client, namespace: &str) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    stream::iter(0..STRANGERS)
        .for_each_concurrent(32, |n| {
            let (pods, secrets) = (&pods, &secrets);
            async move {
                let pod = json!({"metadata": {"name": format!("p{n}")}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
                let secret = json!({"metadata": {"name": format!("s{n}")}, "stringData": {"key": "value"}});
                pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
                secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
            }
        })
        .await;
}
