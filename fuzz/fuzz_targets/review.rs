//! Any bytes as the body of an admission: never a panic, and whatever is a review is allowed. A patch fits to the object that
//! it is for, and the object that it makes comes back without one.
//!
//! The first byte chooses what the rest is: the body itself, the object of a review of one kind or another, or the record on
//! a template. libFuzzer's own hook ends the process at a panic before the webhook can catch it.

#![no_main]

use std::sync::{Arc, LazyLock};

use agent_tracing::core::settings::Platform;
use agent_tracing::webhook::Webhook;
use agent_tracing::webhook::policy_cache::PolicyCache;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

/// One whose wiring is environment alone, and one that brings volumes, mounts and an init container.
static WEBHOOKS: LazyLock<[Webhook; 2]> = LazyLock::new(|| {
    [
        json!({"mlflow": {"mode": "Standalone"}}),
        json!({"mlflow": {"mode": "External", "external": {"trackingURI": "https://mlflow.example.com"}},
            "injection": {"caBundle": {"mode": "Always", "strategy": "AgentInitContainer"}}}),
    ]
    .map(webhook)
});

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = data.split_first() else { return };
    let webhook = &WEBHOOKS[usize::from(how >> 7)];
    let kind = KINDS[usize::from(how / 8) % KINDS.len()];
    match how % 8 {
        0..=2 => {
            asked(webhook, rest);
        }
        3..=6 => {
            let Ok(object) = serde_json::from_slice::<Value>(rest) else { return };
            wired(webhook, kind, object);
        }
        _ => {
            let Ok(record) = std::str::from_utf8(rest) else { return };
            let container =
                json!({"name": "agent", "env": [{"name": "MLFLOW_TRACKING_URI", "value": "x"}], "volumeMounts": []});
            let metadata = json!({"annotations": {"agenttracing.dev/injected": record}});
            let template = json!({"metadata": metadata, "spec": {"containers": [container], "volumes": []}});
            let object = json!({"metadata": {"labels": {}}, "spec": {"template": template}});
            wired(webhook, ("apps", "Deployment"), object);
        }
    }
});

/// An object as the API server sends it: parsed and written anew, so that no key is there twice.
fn wired(webhook: &Webhook, (group, kind): (&str, &str), mut object: Value) {
    for already in [false, true] {
        let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "1", "kind": {"group": group, "kind": kind}, "namespace": "bank", "operation": "CREATE",
            "object": object,
        }});
        let Some(answer) = asked(webhook, body.to_string().as_bytes()) else { panic!("no review: {body}") };
        assert_eq!(answer["response"]["uid"], "1");
        let Some(patch) = answer["response"]["patch"].as_str() else { return };
        let patch = STANDARD.decode(patch).expect("base64");
        assert!(!already, "a second patch: {} for {object}", String::from_utf8_lossy(&patch));
        let patch: json_patch::Patch = serde_json::from_slice(&patch).expect("a patch");
        json_patch::patch(&mut object, &patch).expect("it fits");
    }
}

fn asked(webhook: &Webhook, body: &[u8]) -> Option<Value> {
    let answer: Value = serde_json::from_slice(&webhook.answer(body).ok()?).expect("JSON");
    assert_eq!(answer["response"]["allowed"], true);
    Some(answer)
}

fn webhook(spec: Value) -> Webhook {
    let tracing = json!({
        "apiVersion": "agenttracing.dev/v1alpha1", "kind": "AgentTracing",
        "metadata": {"name": "tracing", "namespace": "bank"}, "spec": spec,
        "status": {"mlflow": {"url": "https://mlflow.example.com", "version": "3.10.1", "workspaces": false, "source": "Spec"}},
    });
    let policies = PolicyCache::default();
    policies.fill(vec![serde_json::from_value(tracing).expect("an AgentTracing")], ["bank"]);
    Webhook::new(Arc::new(policies), Arc::default(), Platform::default())
}

const KINDS: [(&str, &str); 6] = [
    ("apps", "Deployment"),
    ("apps", "StatefulSet"),
    ("apps", "DaemonSet"),
    ("batch", "CronJob"),
    ("batch", "Job"),
    ("", "Pod"),
];
