//! What nobody may read in a log, an event, a metric or a status. Every test of this folder looks for it when its operator
//! ends; here it stands where the others have no reason to put it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::{Site, agent};
use crate::cluster::{Namespace, STRICT, operator, wait_until};
use crate::support::canary::{CANARY, assert_kept};
use agent_tracing::names;

#[test]
#[ignore = "needs an API server: make test"]
fn secrets_of_users_and_what_mlflow_says_in_anger_are_told_nowhere() {
    let site = Site::open("operator-secrets");
    let ns = site.namespace.0.as_str();
    let registry = json!({"auths": {"registry.example.com": {"password": CANARY}}}).to_string();
    for (name, kind, key, value) in [
        ("teller-credentials", "Opaque", "uri", format!("postgresql://teller:{CANARY}@db.example.com/mlflow")),
        ("pull", "kubernetes.io/dockerconfigjson", ".dockerconfigjson", registry),
    ] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": ns}, "type": kind,
            "stringData": {key: value}});
        site.admin.create(&secret, STRICT).unwrap();
    }
    let mut teller = agent(ns, "teller");
    let pod = &mut teller["spec"]["template"]["spec"];
    pod["imagePullSecrets"] = json!([{"name": "pull"}]);
    pod["containers"][0]["args"] = json!(["--password", CANARY]);
    pod["containers"][0]["env"] = json!([
        {"name": "DATABASE_URI", "valueFrom": {"secretKeyRef": {"name": "teller-credentials", "key": "uri"}}},
        {"name": "MLFLOW_TRACKING_PASSWORD", "value": CANARY},
        {"name": "MLFLOW_TRACKING_TOKEN", "value": CANARY},
    ]);
    site.admin.create(&teller, STRICT).unwrap();
    wait_until("the status tells of it", || site.row("teller").is_some());
    // What cannot be read is told without being quoted.
    let mut broken = agent(ns, "broken");
    broken["spec"]["template"]["metadata"]["annotations"][names::ANNOTATION_RECORD] = json!(format!("\"{CANARY}\""));
    site.admin.create(&broken, STRICT).unwrap();
    wait_until("the status tells of the unreadable one", || site.row("broken").is_some());

    let (mlflow, asked) = angry_mlflow();
    let elsewhere = Namespace::create("operator-secrets-elsewhere", json!({names::LABEL_INJECTION: names::ENABLED}));
    let external = json!({
        "apiVersion": "agenttracing.dev/v1alpha1", "kind": "AgentTracing",
        "metadata": {"name": "tracing", "namespace": elsewhere.0},
        "spec": {"mlflow": {"mode": "External", "external": {"trackingURI": mlflow}}},
    });
    site.admin.create(&external, STRICT).unwrap();
    wait_until("MLflow was asked and the status tells of it", || {
        let status = &site.admin.live(&external)["status"];
        asked.load(Ordering::Relaxed) > 0 && status["conditions"].is_array()
    });
    site.close();
}

#[test]
fn an_address_with_a_password_is_refused_by_a_command_line_that_does_not_repeat_it() {
    let tracing = json!({
        "apiVersion": "agenttracing.dev/v1alpha1", "kind": "AgentTracing", "metadata": {"name": "tracing", "namespace": "bank"},
        "spec": {"mlflow": {"mode": "External", "external": {"trackingURI": format!("https://jane:{CANARY}@mlflow.example.com")}}},
    });
    let refused =
        operator(&["inject", "-f", "-"], &format!("{tracing}\n---\n{}\n", agent("bank", "teller"))).unwrap_err();
    assert_kept("the refusal", &refused);
}

/// A server that answers everything with an error full of what it should keep; how often it was asked.
fn angry_mlflow() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4096]);
            let body = json!({"error_code": "INTERNAL_ERROR", "message": format!("postgresql://mlflow:{CANARY}@db")});
            let body = body.to_string();
            let head = format!(
                "HTTP/1.1 500 {CANARY}\r\nserver: {CANARY}\r\nwww-authenticate: Basic realm={CANARY}\r\nconnection: close"
            );
            let _ = write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    (url, asked)
}
