//! What hostile peers say, and what each of them has to hear.

mod body;
pub mod case;
mod framing;
mod review;
mod tls;
#[path = "../../support/tracing.rs"]
mod tracing;
mod workload;

pub use case::{Case, Hears, Say, patch};
use serde_json::{Value, json};
pub use tracing::tracing;

use crate::canary::CANARY;

/// The uid of [`review`].
pub const UID: &str = "0d0c7d44-a1ea-4a5c-9b1c-6b7b6d1f0a11";

/// All cases; no two exercise the same.
pub fn all() -> Vec<Case> {
    [framing::cases(), tls::cases(), body::cases(), review::cases(), workload::cases()].into_iter().flatten().collect()
}

/// A request that ends its connection.
pub fn request(headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let head =
        format!("POST /mutate HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

/// A good one; every secret that it holds is the canary.
pub fn review() -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": UID, "kind": {"group": "apps", "version": "v1", "kind": "Deployment"}, "resource": {"resource": "deployments"},
            "name": "teller", "namespace": "bank", "operation": "CREATE",
            "userInfo": {"username": "jane", "extra": {"token": [CANARY]}},
            "object": {
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "teller", "labels": {"app": "front"}, "annotations": {"last-applied": CANARY}},
                "spec": {"template": {
                    "metadata": {"labels": {"app": "front"}, "annotations": {"note": CANARY}},
                    "spec": {"containers": [{"name": "agent", "image": "r/agent:1", "env": [{"name": "KEY", "value": CANARY}]}]},
                }},
            },
            "oldObject": null, "dryRun": false, "options": null, "moreOptions": {"fieldManager": "kubectl"},
        },
    })
}
