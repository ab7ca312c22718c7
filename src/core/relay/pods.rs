//! Where the pods of a relay are asked what they know.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodStatus};

/// The pods of this StatefulSet that are ready, by name, with their addresses. Whoever may create pods may label them so; what
/// names another owner or has the address of its node is not asked.
pub fn addresses(pods: &[Pod], stateful_set: &str) -> BTreeMap<String, IpAddr> {
    let is_its = |pod: &&Pod| {
        let mut owners = pod.metadata.owner_references.iter().flatten();
        owners.any(|o| o.controller == Some(true) && o.kind == "StatefulSet" && o.name == stateful_set)
    };
    let stays = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none();
    let address = |pod: &Pod| {
        let status = pod.status.as_ref().filter(|status| is_ready(status) && status.host_ip != status.pod_ip)?;
        Some((pod.metadata.name.clone()?, status.pod_ip.as_ref()?.parse().ok()?))
    };
    pods.iter().filter(is_its).filter(stays).filter_map(address).collect()
}

fn is_ready(status: &PodStatus) -> bool {
    status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(change: Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": "tracing-relay-0", "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "tracing-relay", "uid": "u", "controller": true},
            ]},
            "status": {"podIP": "10.0.0.7", "hostIP": "192.0.2.1", "conditions": [{"type": "Ready", "status": "True"}]},
        });
        json_patch::merge(&mut pod, &change);
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn only_ready_pods_of_the_relay_itself_are_asked() {
        let found = |change| addresses(&[pod(change)], "tracing-relay").into_values().next().map(|ip| ip.to_string());
        assert_eq!(found(json!({})).as_deref(), Some("10.0.0.7"));
        assert_eq!(found(json!({"status": {"podIP": "fd00::7"}})).as_deref(), Some("fd00::7"));
        for other in [
            json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}),
            json!({"status": {"podIP": null}}),
            json!({"status": {"podIP": "192.0.2.1"}}),
            json!({"metadata": {"deletionTimestamp": "2026-11-29T10:10:00Z"}}),
            json!({"metadata": {"ownerReferences": null}}),
        ] {
            assert_eq!(found(other.clone()), None, "{other}");
        }
        assert!(addresses(&[pod(json!({}))], "other-relay").is_empty());
    }
}
