//! The AgentTracing of what drives the webhook without a cluster.

use serde_json::{Value, json};

/// Standalone in namespace `bank`, with an address, so that workloads are wired.
pub fn tracing() -> Value {
    json!({
        "apiVersion": "agenttracing.dev/v1alpha1", "kind": "AgentTracing",
        "metadata": {"name": "tracing", "namespace": "bank", "uid": "4b5b", "resourceVersion": "7", "generation": 1},
        "spec": {"mlflow": {"mode": "Standalone"}},
        "status": {"mlflow": {"url": "http://tracing-mlflow.bank.svc:5500", "version": "3.10.1", "workspaces": false,
            "source": "Service"}},
    })
}
