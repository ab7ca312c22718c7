//! What stays behind when an AgentTracing goes.

use super::*;
use crate::controller::{release_authorities, sweep};

#[tokio::test]
async fn the_wiring_of_a_deleted_agent_tracing_is_taken_out_to_the_last_byte() {
    let world = World::new().await;
    let before = world.api.get(TELLER).unwrap();
    let world = wired(world).await;
    assert!(world.api.get(TELLER).unwrap()["metadata"]["labels"]["agenttracing.dev/wired"].is_string());
    world.api.take_writes();

    sweep::namespace_of_orphans(&world.ctx, "bank-agents").await.unwrap();
    assert_eq!(world.api.take_writes(), Vec::<String>::new(), "its AgentTracing is there");

    world.api.delete(TRACING);
    sweep::namespace_of_orphans(&world.ctx, "bank-agents").await.unwrap();
    let after = world.api.get(TELLER).unwrap();
    assert_eq!(after["spec"], before["spec"]);
    let annotations = |object: &Value| object["metadata"]["annotations"].as_object().map_or(0, |all| all.len());
    assert_eq!((annotations(&after), after["metadata"]["labels"].clone()), (0, before["metadata"]["labels"].clone()));
    assert!(world.api.events().contains(&"Removed teller".to_owned()), "{:?}", world.api.events());
    world.api.take_writes();
    sweep::namespace_of_orphans(&world.ctx, "bank-agents").await.unwrap();
    assert_eq!(world.api.take_writes(), Vec::<String>::new());
}

#[tokio::test]
async fn what_another_agent_tracing_selects_is_not_orphaned() {
    let world = wired(World::new().await).await;
    let mut heir = world.api.get(TRACING).unwrap();
    heir["metadata"]["name"] = json!("heir");
    world.api.put("/apis/agenttracing.dev/v1alpha1/namespaces/bank-agents/agenttracings/heir", heir);
    world.api.delete(TRACING);
    world.api.take_writes();
    sweep::namespace_of_orphans(&world.ctx, "bank-agents").await.unwrap();
    assert_eq!(world.api.take_writes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_user_who_stripped_the_template_loses_the_rest_too() {
    let world = wired(World::new().await).await;
    strip(&world);
    world.api.delete(TRACING);
    sweep::namespace_of_orphans(&world.ctx, "bank-agents").await.unwrap();
    let metadata = world.api.get(TELLER).unwrap()["metadata"].clone();
    assert!(metadata["labels"]["agenttracing.dev/wired"].is_null(), "{metadata}");
    assert!(metadata["annotations"]["agenttracing.dev/touch"].is_null(), "{metadata}");
}

/// Finding A3: the file is never taken from an agent that runs.
#[tokio::test]
async fn merged_authorities_stay_until_the_last_pod_that_mounts_them_has_ended() {
    const MAP: &str = "/api/v1/namespaces/bank-agents/configmaps/agenttracing-ca";
    const POD: &str = "/api/v1/namespaces/bank-agents/pods/import-x7f2k";
    let world = World::new().await;
    let ours = json!({"app.kubernetes.io/managed-by": "agent-tracing-operator"});
    let map = json!({"metadata": {"name": "agenttracing-ca", "namespace": "bank-agents", "labels": ours}});
    world.api.put(MAP, map.clone());
    // The list of all namespaces.
    world.api.put("/api/v1/configmaps/agenttracing-ca", world.api.get(MAP).unwrap());
    let volume = json!({"name": "ca-bundle", "configMap": {"name": "agenttracing-ca", "optional": true}});
    let spec = json!({"containers": [], "volumes": [volume]});
    world.api.put(POD, json!({"metadata": {"name": "import-x7f2k"}, "spec": spec, "status": {"phase": "Running"}}));
    assert_eq!(release_authorities(&world.ctx.client, |_| true).await.unwrap(), ["bank-agents"]);
    assert!(world.api.get(MAP).is_some(), "a Job's pod runs with it");

    world.api.edit(POD, json!({"status": {"phase": "Succeeded"}}));
    assert_eq!(release_authorities(&world.ctx.client, |_| false).await.unwrap(), Vec::<String>::new());
    assert!(world.api.get(MAP).is_some(), "an AgentTracing wants it");
    assert_eq!(release_authorities(&world.ctx.client, |_| true).await.unwrap(), Vec::<String>::new());
    assert!(world.api.get(MAP).is_none());
}

async fn wired(mut world: World) -> World {
    world.pass().await;
    world.mlflow_answers().await;
    world.pass().await;
    world.pass().await;
    world
}
