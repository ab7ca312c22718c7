//! At rest nothing is written: a cluster pays for every write at each of its watchers.

use std::time::{Duration, Instant};

use agent_tracing::names;
use serde_json::{Value, json};

use super::mlflow::running;
use super::{Site, agent};
use crate::audit::lines;
use crate::cluster::{Cluster, STRICT, wait_for, wait_until};

#[test]
#[ignore = "needs an API server: make test"]
fn at_rest_nothing_but_the_lease_is_written() {
    let site = Site::open("operator-rest");
    let ns = site.namespace.0.as_str();
    let mut out = agent(ns, "opted-out");
    out["metadata"]["labels"][names::LABEL_INJECT] = json!("false");
    let mut own = agent(ns, "own-address");
    for index in 0..2 {
        let env = json!([{"name": "MLFLOW_TRACKING_URI", "value": "http://elsewhere.example.com"}]);
        own["spec"]["template"]["spec"]["containers"][index]["env"] = env;
    }
    let mut paused = agent(ns, "paused");
    paused["spec"]["paused"] = json!(true);
    for workload in [agent(ns, "teller"), out, own, paused] {
        site.admin.create(&workload, STRICT).unwrap();
    }
    bind_the_claim(&site);
    // A second one has no volume, never had an answer, and its workloads belong to the first.
    let mut second = site.tracing();
    second["metadata"]["name"] = json!("second");
    site.admin.create(&second, STRICT).unwrap();
    let said = settle(&site, || run_all_pods(&site.admin, ns));
    assert_eq!(said["conditions"][0]["type"], "Ready", "{said:#}");
    // MLflow is asked at each pass; the second one's name does not resolve, and it lacks a volume.
    assert_eq!(site.condition("MLflowReady").unwrap()["reason"], "Available", "{said:#}");
    let of_second = site.admin.live(&second)["status"]["conditions"].to_string();
    assert!(of_second.contains("names no StorageClass"), "{of_second}");
    assert_eq!(site.row("teller").unwrap()["state"], "Injected");
    quiet_for(&site, if std::env::var_os("SOAK").is_some() { 600 } else { 120 });
    site.close();
}

/// A server that hangs in its start is the long state that people look at.
#[test]
#[ignore = "needs an API server: make test"]
fn a_server_that_does_not_become_ready_is_told_once() {
    let site = Site::open("operator-stuck");
    bind_the_claim(&site);
    site.lose_the_node();
    let pod = pods(&site.admin, &site.namespace.0).remove(0);
    let two_minutes_ago = ago(120);
    let statuses: Vec<_> = pod["spec"]["containers"].as_array().unwrap().iter().map(|container| {
        json!({
            "name": container["name"], "image": container["image"], "imageID": "", "ready": false, "restartCount": 0,
            "state": {"running": {"startedAt": two_minutes_ago}},
        })
    }).collect();
    let status = json!({"phase": "Running", "containerStatuses": statuses});
    site.admin.merge_subresource(&with_status(&pod, status), "status", STRICT).unwrap();
    wait_until("the condition says so", || {
        site.condition("MLflowReady").is_some_and(|c| c["reason"] == "PodsNotReady")
    });
    settle(&site, || {});
    quiet_for(&site, 20);
    site.close();
}

/// Nothing was written for longer than the longest pace of a pass; what the status says then.
fn settle(site: &Site, mut meanwhile: impl FnMut()) -> Value {
    let mut writes = usize::MAX;
    let mut since = Instant::now();
    wait_for("the operator comes to rest", Duration::from_secs(180), || {
        meanwhile();
        let now = site.operator().writes().len();
        if now != writes {
            (writes, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_secs(16)
    });
    site.admin.live(&site.tracing())["status"].clone()
}

fn quiet_for(site: &Site, seconds: u64) {
    let before = site.operator().writes().len();
    let passes = || site.operator().metric("agent_tracing_reconciles_total");
    let passed = passes();
    std::thread::sleep(Duration::from_secs(seconds));
    let written = site.operator().writes();
    assert!(written.len() == before, "written at rest:\n{}", lines(&written[before..]));
    assert!(passes() > passed, "no pass in {seconds} s: it did not rest, it slept");
}

/// Plays the node: every pod is ready.
fn run_all_pods(admin: &Cluster, namespace: &str) {
    for pod in pods(admin, namespace) {
        if pod["status"]["phase"] == "Running" || !pod["metadata"]["deletionTimestamp"].is_null() {
            continue;
        }
        // It may be replaced meanwhile.
        let _ = admin.merge_subresource(&with_status(&pod, running()), "status", STRICT);
    }
}

pub fn pods(admin: &Cluster, namespace: &str) -> Vec<Value> {
    let mut pods = admin.list("Pod", namespace);
    // Elements of a list do not name their kind.
    pods.iter_mut().for_each(|pod| pod["kind"] = json!("Pod"));
    pods
}

fn with_status(pod: &Value, status: Value) -> Value {
    let metadata = json!({"name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status})
}

/// Plays the storage: a volume for MLflow's claim, which the controller manager binds.
fn bind_the_claim(site: &Site) {
    let ns = site.namespace.0.as_str();
    let name = format!("{ns}-volume");
    site.admin.delete("PersistentVolume", "", &name);
    wait_until("the volume of an earlier run is gone", || site.admin.get("PersistentVolume", "", &name).is_err());
    let volume = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "5Gi"},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "tracing-mlflow", "namespace": ns},
            "hostPath": {"path": "/nonexistent"},
            "persistentVolumeReclaimPolicy": "Retain",
        },
    });
    site.admin.create(&volume, STRICT).unwrap();
    wait_until("the claim is bound", || {
        site.admin.get("PersistentVolumeClaim", ns, "tracing-mlflow").unwrap()["status"]["phase"] == "Bound"
    });
}

/// RFC 3339.
fn ago(seconds: i64) -> String {
    let now = jiff::Timestamp::now().as_second() - seconds;
    jiff::Timestamp::from_second(now).unwrap().to_string()
}
