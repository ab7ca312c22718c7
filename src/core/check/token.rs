//! Whether a running pod has the token that its wiring names: a policy may have taken it away after the template was wired.

use k8s_openapi::api::core::v1::Pod;

use crate::core::inject::record::Record;
use crate::core::inject::view::Workload;
use crate::core::selection::kind::Kind;
use crate::core::wiring::AUTH_GROUP;
use crate::names;

/// The first container to which we gave a variable that needs a token, and that has none (case B45).
pub fn tokenless(pod: &Pod) -> Option<String> {
    let record = Record::parse(pod.metadata.annotations.as_ref()?.get(names::ANNOTATION_RECORD)?).ok()?;
    let object = serde_json::to_value(pod).ok()?;
    let pod = Workload::read(Kind::Pod, &object).ok()?;
    let needs_token = |name: &str| {
        record
            .containers
            .get(name)
            .is_some_and(|ours| AUTH_GROUP.iter().any(|variable| ours.env.contains_key(*variable)))
    };
    let mut containers = pod.pod.containers.iter().chain(pod.pod.init_containers.iter().flatten());
    // The API server has added the mount to a pod that gets one.
    let found = containers.find(|container| needs_token(&container.name) && !pod.gives_token(container, false))?;
    Some(found.name.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(variable: &str, mounts: &Value) -> Pod {
        let record = json!({
            "tracing": "tracing", "hash": "0", "version": 1, "created": [],
            "containers": {"agent": {"env": {(variable): "0"}}},
        });
        let token = json!({"serviceAccountToken": {"path": "token"}});
        serde_json::from_value(json!({
            "metadata": {"name": "teller-1", "annotations": {(names::ANNOTATION_RECORD): record.to_string()}},
            "spec": {
                "containers": [{"name": "helper"}, {"name": "agent", "volumeMounts": mounts}],
                "volumes": [{"name": "kube-api-access-x", "projected": {"sources": [token]}}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_that_lost_its_token_to_a_policy_is_told_with_its_container() {
        let mounted = json!([{"name": "kube-api-access-x", "mountPath": names::TOKEN_FOLDER}]);
        for variable in ["MLFLOW_TRACKING_TOKEN_FILE", "MLFLOW_TRACKING_AUTH"] {
            assert_eq!(tokenless(&pod(variable, &mounted)), None, "{variable}");
            assert_eq!(tokenless(&pod(variable, &json!([]))).as_deref(), Some("agent"), "{variable}");
        }
        assert_eq!(tokenless(&pod("MLFLOW_TRACKING_URI", &json!([]))), None, "this wiring needs none");
    }
}
