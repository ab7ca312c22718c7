//! The likely mistakes. Each is told where the user looks, and the message ends with what to type next.

use agent_tracing::names;
use serde_json::json;

use crate::world::{idle, kubectl, scene, tracing, until};

#[test]
#[ignore = "needs the node cluster: make test"]
fn a_namespace_without_the_label_says_how_to_label_it() {
    scene("no-label", false, |scene| {
        scene.apply(&idle("teller"));
        scene.apply_tracing("{}");
        let told = scene.until_condition("InjectionReady", "False", "NamespaceNotLabelled");
        told.ends_with_a_command();
        let command = format!("kubectl label namespace no-label {}={}", names::LABEL_INJECTION, names::ENABLED);
        assert!(told.message.ends_with(&command), "{}", told.message);
        assert_eq!(scene.until_condition("Ready", "False", "NamespaceNotLabelled").message, told.message);
        // The remedy, as it was told.
        kubectl(&["label", "namespace", "no-label", &format!("{}={}", names::LABEL_INJECTION, names::ENABLED)], "")
            .unwrap();
        scene.until_condition("InjectionReady", "True", "Enabled");
        scene.until_wired("teller");
    });
}

#[test]
#[ignore = "needs the node cluster: make test"]
fn a_storage_class_that_does_not_exist_is_named() {
    scene("no-class", true, |scene| {
        scene.apply_tracing("{storage: {storageClassName: fsat}}");
        let told = until("the class is named", || match scene.condition("MLflowReady") {
            Some(told) if told.reason == "StorageNotBound" && told.message.contains("StorageClass fsat") => Ok(told),
            other => Err(format!("{other:?}")),
        });
        told.ends_with_a_command().says("does not exist").says("kubectl get storageclass");
        scene.until_condition("Ready", "False", "StorageNotBound");
        // The remedy, as it was told.
        scene.kubectl(&["delete", "agenttracing", "tracing", "--timeout=10s"]);
        told.says("'kubectl delete pvc -n no-class tracing-mlflow'");
        scene.kubectl(&["delete", "pvc", "tracing-mlflow", "--timeout=30s"]);
        scene.apply_tracing("{storage: {storageClassName: standard}}");
        until("the claim is bound", || match scene.get("persistentvolumeclaims", "tracing-mlflow") {
            Some(claim) if claim["status"]["phase"] == "Bound" => Ok(()),
            other => Err(format!("{}; {:?}", other.unwrap_or_default()["status"], scene.condition("MLflowReady"))),
        });
    });
}

#[test]
#[ignore = "needs the node cluster: make test"]
fn a_wrong_image_is_told_with_the_kubelets_reason() {
    scene("wrong-image", true, |scene| {
        let image = "ghcr.io/mlflow/mlflow:v3.10.l";
        scene.apply_tracing(&format!("{{image: '{image}'}}"));
        let told = scene.until_condition("MLflowReady", "False", "PodsNotReady");
        told.ends_with_a_command().says(image).says("mlflow.standalone.image");
        assert!(
            ["ErrImagePull", "ImagePullBackOff"].iter().any(|reason| told.message.contains(reason)),
            "{}",
            told.message
        );
        // The remedy, as it was told: `kubectl edit`.
        let right = json!({"spec": {"mlflow": {"standalone": {"image": "ghcr.io/mlflow/mlflow:v3.10.1"}}}});
        scene.kubectl(&["patch", "agenttracing", "tracing", "--type=merge", "-p", &right.to_string()]);
        scene.until_condition("MLflowReady", "True", "Available");
    });
}

#[test]
#[ignore = "needs the node cluster: make test"]
fn a_misspelt_mode_and_a_long_name_are_refused_by_the_api_server() {
    scene("misspelt", true, |scene| {
        let misspelt = tracing("tracing", "{}").replace("Standalone", "StandAlone");
        let refusal = scene.try_apply(&misspelt).unwrap_err();
        for part in ["spec.mlflow.mode", "Unsupported value: \"StandAlone\"", "\"Standalone\""] {
            assert!(refusal.contains(part), "{part}: {refusal}");
        }
        let refusal = scene.try_apply(&tracing(&"t".repeat(57), "{}")).unwrap_err();
        for part in ["metadata.name prefixes the name of a Service", "at most 56", "for example 'tracing'"] {
            assert!(refusal.contains(part), "{part}: {refusal}");
        }
        let unknown = tracing("tracing", "{}").replace("standalone:", "standAlone:");
        let refusal = scene.try_apply(&unknown).unwrap_err();
        assert!(refusal.contains("unknown field \"spec.mlflow.standAlone\""), "{refusal}");
        assert!(scene.kubectl(&["get", "agenttracings", "-o", "name"]).is_empty(), "none of them came in");
    });
}

/// Issue 11, section 3, point 8: the second one also said that nothing matches, and one silent agent of four turned `Ready` around.
#[test]
#[ignore = "needs the node cluster: make test"]
fn a_second_agent_tracing_says_that_it_conflicts_and_nothing_else() {
    scene("two-tracings", true, |scene| {
        let external = |name: &str| {
            let standalone = "mode: Standalone, standalone: {}";
            let external = "mode: External, external: {trackingURI: 'http://mlflow.example.com:5000'}";
            tracing(name, "{}").replace(standalone, external)
        };
        scene.apply(&idle("teller"));
        scene.apply(&external("first"));
        scene.until_wired("teller");
        scene.apply(&external("second"));
        let conditions = until("the second one says so", || {
            let conditions = scene.live("agenttracings", "second")["status"]["conditions"].clone();
            let conditions = conditions.as_array().cloned().unwrap_or_default();
            let is_told = conditions.iter().any(|c| c["type"] == "Ready" && c["reason"] == "Conflict");
            if is_told { Ok(conditions) } else { Err(format!("{conditions:?}")) }
        });
        let injection = conditions.iter().find(|c| c["type"] == "InjectionReady").unwrap();
        assert_ne!(injection["reason"], "NothingMatches", "{injection}");
        until("the first one goes on", || match scene.live("agenttracings", "first")["status"]["injected"].take() {
            injected if injected == "1/1" => Ok(()),
            injected => Err(injected.to_string()),
        });
    });
}

#[test]
#[ignore = "needs the node cluster: make test"]
fn an_exhausted_quota_is_told_and_made_room_for() {
    scene("quota", true, |scene| {
        let quota =
            |hard: serde_json::Value| {
                scene.apply(&json!({
                "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "tight"}, "spec": {"hard": hard},
            }).to_string());
                until("the quota counts", || {
                    let live: serde_json::Value =
                        serde_json::from_str(&scene.kubectl(&["get", "resourcequota", "tight", "-o", "json"])).unwrap();
                    if live["status"]["hard"] == hard { Ok(()) } else { Err(live["status"].to_string()) }
                });
            };
        quota(json!({"persistentvolumeclaims": "0", "pods": "0"}));
        scene.apply_tracing("{}");
        let told = scene.until_condition("MLflowReady", "False", "CreateForbidden");
        told.ends_with_a_command().says("PersistentVolumeClaim").says("exceeded quota: tight");
        quota(json!({"pods": "0"}));
        let told = until("the pod is what the quota forbids now", || match scene.condition("MLflowReady") {
            Some(told) if told.reason == "CreateForbidden" && told.message.contains("pods") => Ok(told),
            other => Err(format!("{other:?}")),
        });
        told.ends_with_a_command().says("exceeded quota: tight");
        scene.until_condition("Ready", "False", "CreateForbidden");
        // The remedy.
        scene.kubectl(&["delete", "resourcequota", "tight"]);
        until("MLflow's pod is there", || match scene.list("pods", "app.kubernetes.io/instance=tracing").len() {
            1 => Ok(()),
            others => Err(format!("{others} pods; {:?}", scene.condition("MLflowReady"))),
        });
    });
}
