//! AdmissionReviews as an API server sends them, of a wanted size: a Deployment that was applied with kubectl, so with
//! `last-applied-configuration` and `managedFields`.

#[path = "../../tests/support/tracing.rs"]
mod tracing;

use serde_json::{Value, json};

#[allow(unused_imports, reason = "not every bench answers in its namespace")]
pub use tracing::tracing;

/// A size, in KB of the whole review, and whether it is an UPDATE, which carries the object twice.
pub const SIZES: [(usize, bool); 4] = [(3, false), (14, false), (28, true), (450, true)];

/// The smallest review of at least `kilobytes`.
pub fn review(kilobytes: usize, update: bool) -> Vec<u8> {
    let sized = |variables| serde_json::to_vec(&review_of(variables, update)).unwrap_or_default();
    let (mut low, mut high) = (0, 4 * kilobytes);
    while low < high {
        let middle = (low + high) / 2;
        if sized(middle).len() < kilobytes * 1000 { low = middle + 1 } else { high = middle }
    }
    sized(low)
}

fn review_of(variables: usize, update: bool) -> Value {
    let object = deployment(variables);
    json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "0d0c7d44-a1ea-4a5c-9b1c-6b7b6d1f0a11",
            "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
            "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
            "requestKind": {"group": "apps", "version": "v1", "kind": "Deployment"},
            "requestResource": {"group": "apps", "version": "v1", "resource": "deployments"},
            "name": "teller", "namespace": "bank", "operation": if update { "UPDATE" } else { "CREATE" },
            "userInfo": {"username": "jane@example.com", "groups": ["developers", "system:authenticated"]},
            "object": object, "oldObject": update.then_some(object), "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "kubectl-client-side-apply"},
        },
    })
}

fn deployment(variables: usize) -> Value {
    let labels = json!({"app.kubernetes.io/name": "teller", "app.kubernetes.io/part-of": "bank", "team": "front"});
    let container = |name: &str, from: usize, to: usize| {
        let env: Vec<_> = (from..to)
            .map(|n| match n % 5 {
                0 => json!({"name": format!("SECRET_{n}"),
                    "valueFrom": {"secretKeyRef": {"name": "teller-credentials", "key": format!("key-{n}")}}}),
                _ => json!({"name": format!("SETTING_{n}"), "value": format!("https://service-{n}.bank.svc:8443/v1")}),
            })
            .collect();
        json!({
            "name": name, "image": format!("registry.example.com/bank/{name}:1.4.{from}"), "imagePullPolicy": "IfNotPresent",
            "args": ["--listen", "0.0.0.0:8080"], "env": env, "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http", "scheme": "HTTP"}, "periodSeconds": 10},
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        })
    };
    let spec = json!({
        "replicas": 2, "selector": {"matchLabels": {"app.kubernetes.io/name": "teller"}},
        "template": {"metadata": {"labels": labels}, "spec": {
            "containers": [container("agent", 0, variables), container("istio-proxy", 0, 3)],
            "volumes": [{"name": "data", "emptyDir": {"sizeLimit": "1Gi"}}], "serviceAccountName": "teller",
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        }},
    });
    let metadata = json!({"name": "teller", "namespace": "bank", "labels": labels});
    let applied = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec});
    let owned: serde_json::Map<_, _> = (0..variables)
        .map(|n| (format!("k:{{\"name\":\"SETTING_{n}\"}}"), json!({".": {}, "f:name": {}, "f:value": {}})))
        .collect();
    let mut object = applied.clone();
    object["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": format!("{applied}\n")});
    object["metadata"]["managedFields"] = json!([{
        "manager": "kubectl-client-side-apply", "operation": "Update", "apiVersion": "apps/v1",
        "time": "2026-03-01T12:00:00Z", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"agent\"}": {"f:env": owned}}}}}},
    }]);
    object["status"] = json!({});
    object
}
