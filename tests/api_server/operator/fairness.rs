//! What many share: an MLflow server that hangs delays nobody but those who use it (review C2).

use std::net::TcpListener;
use std::time::{Duration, Instant};

use agent_tracing::names;
use serde_json::{Value, json};

use super::process::Operator;
use super::{agent, is_wired, mlflow::mlflow, prepare};
use crate::cluster::{Cluster, Namespace, STRICT, wait_for, wait_until};

const HUNG: usize = 50;
const HEALTHY: usize = 10;
const SERVER: &str = "http://shared-mlflow.example.com:5999";

#[test]
#[ignore = "needs an API server: make test"]
fn fifty_namespaces_on_a_server_that_hangs_delay_nobody_on_another_one() {
    prepare();
    let admin = Cluster::admin();
    // The kernel accepts the connections, and nobody ever answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let hung = format!("http://{}", listener.local_addr().unwrap());
    mlflow().serve(SERVER);
    let operator = Operator::start_with("fairness", &["--trusted-mlflow-hosts", "shared-mlflow.example.com"]);
    let (alone, others) = wired_after(&admin, "alone");
    let hanging: Vec<_> = (0..HUNG).map(|n| team(&admin, &format!("hung-{n}"), &hung)).collect();
    let last = hanging.last().unwrap();
    let reason = |namespace: &Namespace| {
        let conditions = admin.live(&tracing(&namespace.0, &hung))["status"]["conditions"].clone();
        let all = conditions.as_array().cloned().unwrap_or_default();
        all.into_iter().find(|c| c["type"] == "MLflowReady").map(|c| c["reason"].clone())
    };
    wait_for("the hung server is told", Duration::from_secs(60), || reason(last) == Some(json!("Unreachable")));

    let (beside, healthy) = wired_after(&admin, "beside");
    println!(
        "{HEALTHY} namespaces on a healthy server are wired after {alone:?} at most, beside {HUNG} on one that hangs after {beside:?}"
    );
    // Whoever waited for the server that hangs would wait for the end of a question to it, and for those before it.
    assert!(beside < alone + Duration::from_secs(5), "{beside:?} beside them, {alone:?} alone");
    assert!(hanging.iter().all(|namespace| !is_wired(&admin.live(&team_agent(&namespace.0)))), "nobody is sent there");
    operator.stop();
    drop((listener, others, healthy));
}

/// How long the slowest of the namespaces on the healthy server waits until its agent is wired.
fn wired_after(admin: &Cluster, name: &str) -> (Duration, Vec<Namespace>) {
    let mut waiting: Vec<_> =
        (0..HEALTHY).map(|n| (team(admin, &format!("{name}-{n}"), SERVER), Instant::now())).collect();
    let (mut wired, mut slowest) = (Vec::new(), Duration::ZERO);
    wait_until("all on the healthy server are wired", || {
        let is_done = |(namespace, _): &mut (Namespace, Instant)| is_wired(&admin.live(&team_agent(&namespace.0)));
        for (namespace, began) in waiting.extract_if(.., is_done) {
            slowest = slowest.max(began.elapsed());
            wired.push(namespace);
        }
        waiting.is_empty()
    });
    (slowest, wired)
}

/// A namespace with an agent, before and after its AgentTracing.
fn team(admin: &Cluster, name: &str, server: &str) -> Namespace {
    let namespace = Namespace::create(&format!("fairness-{name}"), json!({names::LABEL_INJECTION: names::ENABLED}));
    admin.create(&team_agent(&namespace.0), STRICT).unwrap();
    admin.create(&tracing(&namespace.0, server), STRICT).unwrap();
    namespace
}

/// Without pods, so that nothing waits for a node.
fn team_agent(namespace: &str) -> Value {
    let mut agent = agent(namespace, "teller");
    agent["spec"]["replicas"] = json!(0);
    agent
}

fn tracing(namespace: &str, server: &str) -> Value {
    json!({
        "apiVersion": "agenttracing.dev/v1alpha1", "kind": "AgentTracing",
        "metadata": {"name": "tracing", "namespace": namespace},
        "spec": {"mlflow": {"mode": "External", "external": {"trackingURI": server}}},
    })
}
