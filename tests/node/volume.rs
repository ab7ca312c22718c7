//! MLflow's volume: it grows where its class allows, and what becomes of it is the user's choice. No MLflow runs here: the
//! volume is bound as soon as a pod that wants it has a node.

use serde_json::{Value, json};

use crate::world::{Scene, scene, until};

/// Where no Python is, no MLflow starts, and it costs nothing.
const SERVER: &str = "image: 'demo/idle:1'";

#[test]
#[ignore = "needs the node cluster: make test"]
fn a_volume_grows_where_its_class_allows_and_goes_where_its_owner_says_so() {
    scene("volume-grows", true, |scene| {
        scene.apply_tracing(&format!("{{{SERVER}, storage: {{storageClassName: expandable, size: 1Gi}}}}"));
        bound(scene);
        change(scene, json!({"storage": {"size": "2Gi"}}));
        until("the claim asks for more", || match requested(scene).as_str() {
            "2Gi" => Ok(()),
            other => Err(format!("{other}; {:?}", scene.condition("MLflowReady"))),
        });

        let claim = scene.live("persistentvolumeclaims", "tracing-mlflow");
        assert!(claim["metadata"]["ownerReferences"].is_null(), "traces are data: nobody owns the claim");
        change(scene, json!({"deletionPolicy": "Delete"}));
        until("the claim belongs to the AgentTracing", || {
            match &scene.live("persistentvolumeclaims", "tracing-mlflow")["metadata"]["ownerReferences"] {
                Value::Null => Err("it does not".to_owned()),
                _ => Ok(()),
            }
        });
        scene.kubectl(&["delete", "agenttracing", "tracing", "--timeout=10s"]);
        until("the claim went with it", || match scene.get("persistentvolumeclaims", "tracing-mlflow") {
            None => Ok(()),
            Some(claim) => Err(claim["metadata"].to_string()),
        });
    });
}

#[test]
#[ignore = "needs the node cluster: make test"]
fn a_volume_that_cannot_grow_says_what_to_do() {
    scene("volume-fixed", true, |scene| {
        scene.apply_tracing(&format!("{{{SERVER}, storage: {{storageClassName: standard, size: 1Gi}}}}"));
        bound(scene);
        change(scene, json!({"storage": {"size": "2Gi"}}));
        let told = scene.until_condition("MLflowReady", "False", "StorageNotBound");
        told.ends_with_a_command()
            .says("1Gi")
            .says("2Gi")
            .says("StorageClass \"standard\"")
            .says("allowVolumeExpansion");
        assert_eq!(requested(scene), "1Gi", "what would be refused is not tried");
        // The remedy, as it was told.
        told.says("go back to 1Gi").says("kubectl delete agenttracing -n volume-fixed tracing");
        let claim = scene.live("persistentvolumeclaims", "tracing-mlflow")["metadata"]["uid"].clone();
        scene.kubectl(&["delete", "agenttracing", "tracing", "--timeout=10s"]);
        until("its Deployment is gone", || match scene.get("deployments", "tracing-mlflow") {
            None => Ok(()),
            Some(_) => Err("it is still there".to_owned()),
        });
        let retained = || scene.live("persistentvolumeclaims", "tracing-mlflow")["metadata"].clone();
        assert_eq!((&retained()["uid"], &retained()["deletionTimestamp"]), (&claim, &Value::Null));
        scene.apply_tracing(&format!("{{{SERVER}, storage: {{storageClassName: standard, size: 1Gi}}}}"));
        until("the volume is no matter any more", || match scene.condition("MLflowReady") {
            Some(now) if now.reason != "StorageNotBound" => Ok(()),
            other => Err(format!("{other:?}")),
        });
        assert_eq!(retained()["uid"], claim);
    });
}

fn bound(scene: &Scene) {
    until("the claim is bound", || match scene.get("persistentvolumeclaims", "tracing-mlflow") {
        Some(claim) if claim["status"]["phase"] == "Bound" => Ok(()),
        other => Err(format!("{}; {:?}", other.unwrap_or_default()["status"], scene.condition("MLflowReady"))),
    });
}

fn requested(scene: &Scene) -> String {
    let claim = scene.live("persistentvolumeclaims", "tracing-mlflow");
    claim["spec"]["resources"]["requests"]["storage"].as_str().unwrap().to_owned()
}

/// Changes `spec.mlflow.standalone`.
fn change(scene: &Scene, standalone: Value) {
    let patch = json!({"spec": {"mlflow": {"standalone": standalone}}});
    scene.kubectl(&["patch", "agenttracing", "tracing", "--type=merge", "-p", &patch.to_string()]);
}
