//! Workloads as large as the API server takes them, in several namespaces at once (review B3).

use std::time::Duration;

use agent_tracing::names;
use serde_json::{Value, json};

use super::process::Operator;
use super::{agent, prepare};
use crate::cluster::{Cluster, Namespace, STRICT, wait_for};

const NAMESPACES: usize = 4;
/// A page of each.
const WORKLOADS: usize = 25;
/// About 1.4 MB of variables, and no more values than the webhook reads of a review.
const VARIABLES: usize = 3_000;
/// In KiB; its limit is 128 MiB.
const MOST: u64 = 96 << 10;

#[test]
#[ignore = "needs an API server: make test"]
fn four_tenants_with_the_largest_workloads_do_not_end_the_leader() {
    prepare();
    let admin = Cluster::admin();
    let namespaces: Vec<_> = (0..NAMESPACES).map(|n| Namespace::create(&format!("memory-{n}"), json!({}))).collect();
    for namespace in &namespaces {
        for n in 0..WORKLOADS {
            admin.create(&large(&namespace.0, &format!("agent-{n}")), STRICT).unwrap();
        }
        admin.create(&tracing(&namespace.0), STRICT).unwrap();
    }
    let operator = Operator::start("memory");
    for namespace in &namespaces {
        let labels = json!({names::LABEL_INJECTION: names::ENABLED});
        let label = json!({"kind": "Namespace", "metadata": {"name": namespace.0, "labels": labels}});
        admin.merge(&label, STRICT).unwrap();
    }
    wait_for("all of them are counted", Duration::from_secs(180), || {
        namespaces.iter().all(|namespace| {
            let live = admin.live(&tracing(&namespace.0));
            live["status"]["injected"] == format!("{WORKLOADS}/{WORKLOADS}")
        })
    });
    let peak = peak(operator.pid());
    println!("{NAMESPACES} namespaces of {WORKLOADS} workloads of 1.4 MB: {} MiB", peak >> 10);
    assert!(peak < MOST, "{peak} KiB");
    operator.stop();
}

/// Of a process, in KiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Without pods, so that nothing waits for a node.
fn large(namespace: &str, name: &str) -> Value {
    let mut large = agent(namespace, name);
    large["spec"]["replicas"] = json!(0);
    let variable = |n: usize| json!({"name": format!("VARIABLE_{n:05}"), "value": format!("{n:0400}")});
    large["spec"]["template"]["spec"]["containers"][0]["env"] = (0..VARIABLES).map(variable).collect();
    large
}

/// Of a server that nobody may ask, so that nothing has to answer.
fn tracing(namespace: &str) -> Value {
    json!({
        "apiVersion": "agenttracing.dev/v1alpha1", "kind": "AgentTracing",
        "metadata": {"name": "tracing", "namespace": namespace},
        "spec": {"mlflow": {"mode": "External", "external": {"trackingURI": "http://mlflow.example.com"}}},
    })
}
