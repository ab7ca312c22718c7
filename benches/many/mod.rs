//! Many workloads of a namespace, and an AgentTracing for them.

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

/// Of a server that nobody may ask, so that nothing but the cluster is measured.
pub fn tracing(namespace: &str) -> Value {
    json!({
        "apiVersion": "agenttracing.dev/v1alpha1",
        "kind": "AgentTracing",
        "metadata": {"name": "tracing", "namespace": namespace},
        "spec": {"mlflow": {"mode": "External", "external": {"trackingURI": "http://mlflow.example.com"}}},
    })
}

pub fn deployment(namespace: &str, n: usize) -> Value {
    let app = format!("agent-{n}");
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": app, "namespace": namespace},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": app}},
            "template": {
                "metadata": {"labels": {"app": app}},
                "spec": {"containers": [{"name": "agent", "image": "example.com/agent:v1", "env": [{"name": "STAGE", "value": "first"}]}]},
            },
        },
    })
}
