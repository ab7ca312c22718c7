//! Workloads as large as the API server takes them, in several namespaces at once (review B3).

use std::time::Duration;

use agent_tracing::names;
use serde_json::{Value, json};

use super::process::Operator;
use super::{agent, prepare};
use crate::cluster::{Cluster, Namespace, STRICT, wait_for};
use crate::support::resident::memory;

const NAMESPACES: usize = 4;
/// The API server takes a second to store one. A page of a watch is full with all of them.
const WORKLOADS: usize = 8;
const WORKLOADS_IN_SOAK: usize = 100;
/// So many of a namespace are wired, read again and written before the memory is measured.
const WIRED: usize = 3;
/// About 1.4 MB of variables, and no more values than the webhook reads of a review.
const VARIABLES: usize = 3_000;
/// In MiB; the leader's limit is 128 MiB. Watches that decoded managed fields took 2 MiB for each workload.
const MOST: f64 = 60.0;
const MOST_IN_SOAK: f64 = 96.0;

#[test]
#[ignore = "needs an API server: make test"]
fn four_tenants_with_the_largest_workloads_do_not_end_the_leader() {
    prepare();
    let admin = Cluster::admin();
    let (workloads, most) = match std::env::var_os("SOAK") {
        Some(_) => (WORKLOADS_IN_SOAK, MOST_IN_SOAK),
        None => (WORKLOADS, MOST),
    };
    let namespaces: Vec<_> = (0..NAMESPACES).map(|n| Namespace::create(&format!("memory-{n}"), json!({}))).collect();
    for namespace in &namespaces {
        for n in 0..workloads {
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
    wait_for("some of each are wired", Duration::from_secs(180), || {
        namespaces.iter().all(|namespace| {
            let injected =
                admin.live(&tracing(&namespace.0))["status"]["injected"].as_str().unwrap_or("0/0").to_owned();
            let (wired, all) = injected.split_once('/').unwrap();
            wired.parse::<usize>().unwrap() >= WIRED && all == workloads.to_string()
        })
    });
    let peak = memory(operator.pid(), "VmHWM");
    println!("{NAMESPACES} namespaces of {workloads} workloads of 1.4 MB: {peak:.0} MiB");
    assert!(peak < most, "{peak} MiB");
    operator.stop();
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
