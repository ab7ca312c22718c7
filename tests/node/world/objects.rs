//! Objects of the scenes, and what is asked of them.

use agent_tracing::names;
use serde_json::{Value, json};

use crate::canary::CANARY;

/// An AgentTracing as a user writes it.
pub fn tracing(name: &str, standalone: &str) -> String {
    format!(
        "apiVersion: agenttracing.dev/v1alpha1\nkind: AgentTracing\nmetadata: {{name: {name}}}\n\
         spec: {{mlflow: {{mode: Standalone, standalone: {standalone}}}}}\n"
    )
}

/// A Deployment that costs nothing, as its owner wrote it.
pub fn idle(name: &str) -> String {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "annotations": {"example.com/password": CANARY}},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [{
                        "name": "agent",
                        "image": "demo/idle:1",
                        "imagePullPolicy": "IfNotPresent",
                        "env": [{"name": "API_KEY", "value": CANARY}],
                        "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}},
                        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                    }],
                },
            },
        },
    })
    .to_string()
}

/// The pod template of a workload; of a Pod, itself.
pub fn template(workload: &Value) -> &Value {
    let spec = &workload["spec"];
    match (spec["containers"].is_array(), spec["jobTemplate"].is_object()) {
        (true, _) => workload,
        (_, true) => &spec["jobTemplate"]["spec"]["template"],
        _ => &spec["template"],
    }
}

/// The value of a literal variable of a workload's first container.
pub fn env<'a>(workload: &'a Value, name: &str) -> Option<&'a str> {
    let all = template(workload)["spec"]["containers"][0]["env"].as_array()?;
    all.iter().find(|entry| entry["name"] == name)?["value"].as_str()
}

/// Whether a workload's template carries our wiring and our record of it.
pub fn is_wired(workload: &Value) -> bool {
    let annotations = &template(workload)["metadata"]["annotations"];
    annotations[names::ANNOTATION_RECORD].is_string() && env(workload, "MLFLOW_TRACKING_URI").is_some()
}
