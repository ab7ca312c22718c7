//! How long the controller keeps a thread to itself: the longest time for which nothing else on its thread could go on, while it
//! reads, judges and changes many workloads of one namespace. `cargo bench --bench stretch -- 20000`, against the API server of
//! `tests/cluster/api.sh`; without a webhook, so that it changes templates itself, and with replicas 0, since no node is there.
//!
//! `STRETCH_SECONDS` is how long it works (180). In the operator two threads share this work, and the webhook has its own.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, dead_code)]

#[path = "../tests/api_server/cluster.rs"]
mod cluster;
mod many;
#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use agent_tracing::controller::{Options, run};
use agent_tracing::core::settings::Platform;
use agent_tracing::mlflow::Http;
use agent_tracing::telemetry::Metrics;
use agent_tracing::trust::TrustedAuthorities;
use kube::{Client, Config};
use serde_json::json;
use tokio::runtime::Builder;

use cluster::{Cluster, STRICT};
use many::{UNOBSERVED, create, idle, label, tracing};

/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(5);

fn main() {
    let size: usize = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(20_000);
    let seconds = std::env::var("STRETCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(180);
    rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap();
    let admin = Cluster::admin();
    cluster::install();
    cluster::reset_webhook_configuration(&admin);
    let namespace = format!("stretch-{size}");
    admin.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}), STRICT).unwrap();
    admin.create(&tracing(&namespace, UNOBSERVED), STRICT).unwrap();
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = runtime.block_on(async { Client::try_from(Config::infer().await.unwrap()).unwrap() });
    runtime.block_on(create(&client, (0..size).map(|n| idle(&namespace, n))));
    runtime.block_on(label(&client, std::slice::from_ref(&namespace)));

    let ends = Arc::new(AtomicBool::new(false));
    let end = ends.clone();
    let controller = std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::try_from(Config::infer().await.unwrap()).unwrap();
            let controller = tokio::spawn(run(options(client)));
            let mut stretches = Vec::new();
            while !end.load(Ordering::Relaxed) {
                let began = Instant::now();
                tokio::time::sleep(TICK).await;
                stretches.push(began.elapsed().saturating_sub(TICK));
            }
            assert!(!controller.is_finished(), "the controller ended");
            stretches
        })
    });
    std::thread::sleep(Duration::from_secs(seconds));
    ends.store(true, Ordering::Relaxed);
    let mut stretches = controller.join().unwrap();
    stretches.sort();
    let status = admin.get("AgentTracing", &namespace, "tracing").unwrap()["status"].clone();
    let longest = stretches.iter().rev().take(5).map(|stretch| format!("{:.0}", stretch.as_secs_f64() * 1000.0));
    println!(
        "{size} workloads in one namespace, {seconds} s, {} wired: longest stretches {} ms; p99 {:.1} ms of {}",
        status["injected"],
        longest.collect::<Vec<_>>().join(", "),
        stretches[stretches.len() * 99 / 100].as_secs_f64() * 1000.0,
        stretches.len(),
    );
    admin.delete("Namespace", "", &namespace);
}

fn options(client: Client) -> Options {
    Options {
        client,
        platform: Platform::default(),
        identity: "stretch".to_owned(),
        authorities: Arc::new(TrustedAuthorities::new(Vec::new(), Arc::new(|pem: &str| Http::trusting(pem)))),
        trusted_hosts: Default::default(),
        token_hosts: Default::default(),
        create_namespaces: Default::default(),
        integration_role: "mlflow-operator-mlflow-integration".to_owned(),
        max_rolling: 20,
        metrics: Arc::new(Metrics::default()),
    }
}
