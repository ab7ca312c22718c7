//! The objects of a standalone server: created, left alone, refused, lost.

use super::*;

#[tokio::test]
async fn a_namesake_that_is_not_ours_is_left_alone_and_named() {
    let mut world = World::new().await;
    world.api.put(SERVICE, json!({"metadata": {"name": "tracing-mlflow", "namespace": "bank-agents"}}));
    world.pass().await;
    assert_eq!(world.reason("MLflowReady"), "NameConflict");
    assert_eq!(world.reason("Ready"), "NameConflict");
    assert_eq!(world.api.writes_to(SERVICE), 0);
}

/// Review B4: a name that leads elsewhere would have the operator ask there.
#[tokio::test]
async fn only_a_service_of_ours_that_leads_to_our_pods_is_asked() {
    let ours =
        json!({"app.kubernetes.io/managed-by": "agent-tracing-operator", "app.kubernetes.io/instance": "tracing"});
    let elsewhere = [
        // Somebody else's.
        json!({"metadata": {"labels": null, "ownerReferences": null}}),
        // With our labels, which anybody may write.
        json!({"metadata": {"labels": ours, "ownerReferences": null}, "spec": {"type": "ExternalName", "externalName": "metadata.internal"}}),
        json!({"metadata": {"labels": ours}, "spec": {"selector": null}}),
        json!({"metadata": {"labels": ours}, "spec": {"selector": {"app": "mine"}}}),
        json!({"metadata": {"labels": ours}, "spec": {"type": "LoadBalancer"}}),
    ];
    for (object, changes) in [(SERVICE, &elsewhere[..]), (SERVER, &elsewhere[..1])] {
        for change in changes {
            let mut world = World::new().await;
            world.pass().await;
            world.mlflow_answers().await;
            world.api.edit(object, change.clone());
            world.pass().await;
            assert!(world.mlflow.received_requests().await.unwrap().is_empty(), "{object} {change}");
            assert_ne!(world.condition("MLflowReady").0, "True", "{object} {change}");
        }
    }
    let mut world = World::new().await;
    world.pass().await;
    world.mlflow_answers().await;
    world.pass().await;
    assert!(!world.mlflow.received_requests().await.unwrap().is_empty(), "as it was made");
}

/// Review B5: an image that no administrator allowed.
#[tokio::test]
async fn an_image_that_is_not_allowed_is_told_and_nothing_is_applied() {
    let mut world = World::new().await;
    world.ctx.platform.allowed_mlflow_images = BTreeSet::from(["registry.example.com/".to_owned()]);
    world.pass().await;
    let (status, reason, message) = world.condition("Ready");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "InvalidSpec"));
    for part in
        ["spec.mlflow.standalone.image", "ghcr.io/mlflow/mlflow:v3.10.1", "registry.example.com/", "kubectl edit"]
    {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(world.api.take_writes(), [format!("PATCH {TRACING}/status")]);
}

#[tokio::test]
async fn a_lost_volume_is_never_replaced_by_an_empty_one() {
    let mut world = World::at_rest().await;
    world.api.delete(CLAIM);
    world.pass().await;
    assert_eq!(world.api.get(CLAIM), None);
    let (_, reason, message) = world.condition("MLflowReady");
    assert_eq!(reason, "StorageNotBound");
    assert!(message.ends_with("kubectl delete agenttracing -n bank-agents tracing"), "{message}");
}

#[tokio::test]
async fn a_volume_that_cannot_grow_is_told_and_left() {
    let mut world = World::at_rest().await;
    world.api.edit(CLAIM, json!({"spec": {"storageClassName": "fixed"}, "status": {"phase": "Bound"}}));
    world.api.put(
        "/apis/storage.k8s.io/v1/storageclasses/fixed",
        json!({"metadata": {"name": "fixed"}, "provisioner": "p"}),
    );
    world.api.edit(TRACING, json!({"spec": {"mlflow": {"standalone": {"storage": {"size": "9Gi"}}}}}));
    world.pass().await;
    let (_, reason, message) = world.condition("MLflowReady");
    assert_eq!(reason, "StorageNotBound");
    assert!(message.contains("from 5Gi to 9Gi") && message.contains("StorageClass \"fixed\""), "{message}");
    world.api.edit("/apis/storage.k8s.io/v1/storageclasses/fixed", json!({"allowVolumeExpansion": true}));
    world.pass().await;
    assert_eq!(world.api.get(CLAIM).unwrap()["spec"]["resources"]["requests"]["storage"], "9Gi");
    assert_eq!(world.reason("MLflowReady"), "Available");
}

#[tokio::test]
async fn what_is_invalid_is_tried_once_and_a_quota_again_and_again() {
    let mut world = World::new().await;
    world.api.refuse(SERVER, 422, "Deployment is invalid: spec.x: Invalid value");
    world.pass().await;
    world.pass().await;
    assert_eq!(world.api.writes_to(SERVER), 1);
    assert_eq!(world.reason("MLflowReady"), "InvalidSpec");

    world.api.refuse(SERVER, 422, "");
    world.api.refuse(CLAIM, 403, "persistentvolumeclaims \"tracing-mlflow\" is forbidden: exceeded quota: tight");
    world.api.delete(CLAIM);
    world.pass().await;
    world.pass().await;
    let (_, reason, message) = world.condition("MLflowReady");
    assert_eq!(reason, "CreateForbidden");
    assert!(
        message.contains("exceeded quota: tight") && message.ends_with("kubectl describe resourcequota -n bank-agents"),
        "{message}"
    );
}

#[tokio::test]
async fn a_network_policy_that_is_switched_off_is_deleted() {
    let mut world = World::at_rest().await;
    world.api.edit(TRACING, json!({"spec": {"mlflow": {"standalone": {"networkPolicy": {"enabled": false}}}}}));
    world.pass().await;
    assert_eq!(world.api.get(POLICY), None);
}
