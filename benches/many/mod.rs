//! Many workloads of a namespace, and an AgentTracing for them.
#![allow(dead_code, reason = "each bench needs its own part")]

use agent_tracing::names;
use futures::{StreamExt, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

pub async fn create(client: &Client, all: impl Iterator<Item = Value>) {
    stream::iter(all)
        .for_each_concurrent(32, |object| {
            let namespace = object["metadata"]["namespace"].as_str().unwrap();
            let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
            async move {
                api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
            }
        })
        .await;
}

pub async fn label(client: &Client, namespaces: &[String]) {
    let label = json!({"metadata": {"labels": {(names::LABEL_INJECTION): names::ENABLED}}});
    let api: Api<Namespace> = Api::all(client.clone());
    for namespace in namespaces {
        api.patch_metadata(namespace, &PatchParams::default(), &Patch::Merge(&label)).await.unwrap();
    }
}

/// Of a server at this address.
pub fn tracing(namespace: &str, url: &str) -> Value {
    json!({
        "apiVersion": "agenttracing.dev/v1alpha1",
        "kind": "AgentTracing",
        "metadata": {"name": "tracing", "namespace": namespace},
        "spec": {"mlflow": {"mode": "External", "external": {"trackingURI": url}}},
    })
}

pub fn deployment(namespace: &str, app: &str, replicas: u32, env: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": app, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": app}},
            "template": {
                "metadata": {"labels": {"app": app}},
                "spec": {"containers": [{"name": "agent", "image": "example.com/agent:v1", "env": env}]},
            },
        },
    })
}

/// A small one without pods, of which many can be there at once.
pub fn idle(namespace: &str, n: usize) -> Value {
    deployment(namespace, &format!("agent-{n}"), 0, &json!([{"name": "STAGE", "value": "first"}]))
}

/// A server that nobody may ask, so that nothing but the cluster is measured.
pub const UNOBSERVED: &str = "http://mlflow.example.com";
