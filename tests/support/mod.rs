//! What several test files need.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod canary;
pub mod resident;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_tracing::api::{AgentTracing, MlflowMode, MlflowStatus, RelayStatus};
use agent_tracing::core::inject::view::Workload;
use agent_tracing::core::settings::policy::Policy;
use agent_tracing::core::settings::{self, Platform};
use agent_tracing::names;
use agent_tracing::telemetry::Metrics;
use agent_tracing::webhook::policy_cache::PolicyCache;
use agent_tracing::webhook::{self, Webhook};
use axum::body::{Body, to_bytes};
use axum::http::Request;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tower::ServiceExt;

/// All documents of a YAML text.
pub fn documents(text: &str) -> Vec<Value> {
    agent_tracing::cli::documents::values(text, "the case").unwrap()
}

/// A document as decisions see it; `None` where it is no workload.
pub fn workload(document: &Value) -> Option<Workload<'_>> {
    let kind = agent_tracing::cli::documents::workload_kind(document)?;
    Some(Workload::read(kind, document).unwrap_or_else(|e| panic!("{e}: {document}")))
}

/// The workloads in a file, also those in a list.
pub fn workloads(file: &Path) -> Vec<Value> {
    let all = documents(&std::fs::read_to_string(file).unwrap());
    all.into_iter().filter(|document| workload(document).is_some()).collect()
}

/// A JSON pointer into the pod template of a workload.
pub fn in_template(document: &Value, rest: &str) -> String {
    let kind = workload(document).unwrap().kind;
    kind.template().iter().map(|token| format!("/{token}")).collect::<String>() + rest
}

/// The AgentTracings of a file, as if MLflow had answered at the address that their spec says, and had let everybody in.
pub fn tracings_of(file: &Path) -> Vec<AgentTracing> {
    let tracings = documents(&std::fs::read_to_string(file).unwrap());
    tracings
        .into_iter()
        .map(|document| {
            let mut tracing: AgentTracing = serde_json::from_value(document).unwrap();
            tracing.metadata.namespace.get_or_insert("default".into());
            let settings = settings::parse(&tracing).unwrap();
            let url = settings.tracking_uri();
            let workspaces = tracing.spec.mlflow.mode != MlflowMode::Standalone;
            let answered = MlflowStatus { url, version: "3.10.1".into(), workspaces, source: "Service".into() };
            if tracing.status.is_none() {
                let status = tracing.status.get_or_insert_default();
                status.service_accounts = ["default", "teller"].map(str::to_owned).into();
                status.relay = settings.relay.map(|_| RelayStatus { url: "http://tracing-relay".into() });
            }
            tracing.status.get_or_insert_default().mlflow.get_or_insert(answered);
            tracing
        })
        .collect()
}

/// The same as the decisions need them.
pub fn policies_of(file: &Path) -> Vec<Policy> {
    tracings_of(file).iter().map(Policy::of).collect()
}

/// Sends a workload through the webhook's HTTP router, in a labelled namespace with these AgentTracings; the patch that
/// comes back.
pub async fn admit(tracings: Vec<AgentTracing>, workload: &Value) -> Vec<json_patch::PatchOperation> {
    let namespace = workload["metadata"]["namespace"].as_str().unwrap_or("default");
    let kind = self::workload(workload).unwrap().kind;
    let cache = Arc::new(PolicyCache::default());
    cache.fill(tracings, [namespace]);
    let webhook = Webhook::new(cache, Arc::new(Metrics::default()), Platform::default());
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "0b1a2c3d",
            "kind": {"group": kind.group(), "version": kind.version(), "kind": kind.as_str()},
            "name": workload["metadata"]["name"].as_str().unwrap_or_default(),
            "namespace": namespace,
            "operation": "CREATE",
            "userInfo": {"username": "dora"},
            "object": workload,
        },
    });
    let request = Request::post(names::WEBHOOK_PATH)
        .header("content-type", "application/json")
        .body(Body::from(review.to_string()))
        .unwrap();
    let response = webhook::router(Arc::new(webhook)).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let answer: Value = serde_json::from_slice(&to_bytes(response.into_body(), usize::MAX).await.unwrap()).unwrap();
    assert_eq!(answer["response"]["uid"], "0b1a2c3d");
    assert_eq!(answer["response"]["allowed"], true, "the webhook never refuses a workload: {answer}");
    match answer["response"]["patch"].as_str() {
        Some(patch) => serde_json::from_slice(&STANDARD.decode(patch).unwrap()).unwrap(),
        None => Vec::new(),
    }
}

/// The folders below a folder of the crate, sorted.
pub fn folders(below: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(below);
    let mut out: Vec<_> = std::fs::read_dir(&root).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    out.sort();
    out
}
