//! The init container `merge-ca` where policies do not admit it (review A4; cases B05, B06, B07, B19).

use super::*;

const MAP: &str = "/api/v1/namespaces/bank-agents/configmaps/agenttracing-ca";
/// Nothing but `merge-ca` has it, and the operator's own image.
const IMAGE: &str = "ghcr.io/agenttracing/agent-tracing-operator";

/// Every pod of the agent has it.
const AGENT: &str = "\"image\":\"i\"";

fn template(world: &World) -> Value {
    world.api.get(TELLER).unwrap()["spec"]["template"].clone()
}

fn row(world: &World) -> Value {
    world.status()["workloads"][0].clone()
}

async fn with_authorities() -> World {
    let world = World::new().await;
    world.api.edit(TRACING, json!({"spec": {"caBundle": {"mode": "Always"}}}));
    world
}

/// The agent has the init container, and nobody objects yet.
async fn wired_with_it() -> World {
    let mut world = with_authorities().await;
    world.pass().await;
    world.mlflow_answers().await;
    passes(&mut world, 2).await;
    world
}

/// As its controller says it.
fn no_pod_of_teller_is_created(world: &World) {
    let failing = json!([{
        "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "pods \"teller-1\" is forbidden: denied",
    }]);
    world.api.edit(TELLER, json!({"status": {"observedGeneration": 9, "availableReplicas": 0, "conditions": failing}}));
}

async fn passes(world: &mut World, count: usize) {
    for _ in 0..count {
        world.pass().await;
    }
}

#[tokio::test]
async fn a_policy_against_it_on_pods_is_known_before_the_first_workload_is_wired() {
    let mut world = with_authorities().await;
    world.api.admit_nothing_with(IMAGE, false);
    world.pass().await;
    let refused = world.status()["mergeCa"].clone();
    assert!(refused["message"].as_str().unwrap().contains("not from our registry"), "{refused}");
    world.mlflow_answers().await;
    passes(&mut world, 3).await;
    assert!(template(&world)["spec"].get("initContainers").is_none_or(Value::is_null), "{}", template(&world));
    assert_eq!(template(&world)["spec"]["volumes"][0]["configMap"]["name"], "agenttracing-ca");
    assert!(world.api.get(MAP).is_some());
    assert_eq!(row(&world)["reason"], "MergeCARefused");
    assert!(row(&world)["message"].as_str().unwrap().ends_with("{.status.mergeCa.message}'"), "{}", row(&world));
    // What its owner creates now is wired without it, so that no policy has a reason to refuse it.
    const VAULT: &str = "/apis/apps/v1/namespaces/bank-agents/deployments/vault";
    let mut vault = world.api.get(TELLER).unwrap();
    vault["metadata"] = json!({"name": "vault", "namespace": "bank-agents"});
    vault["spec"]["template"] = json!({"metadata": {}, "spec": {"containers": [{"name": "agent", "image": "i"}]}});
    world.api.put(VAULT, vault);
    world.api.wire_as_created(VAULT);
    let vault = world.api.get(VAULT).unwrap();
    assert_eq!(vault["spec"]["template"]["spec"].get("initContainers"), None, "{vault}");

    world.api.take_writes();
    world.pass().await;
    world.pass().await;
    world.api.take_writes();
    world.pass().await;
    assert_eq!(world.api.take_writes(), Vec::<String>::new(), "it rests");
}

#[tokio::test]
async fn a_policy_that_refuses_the_agents_pods_too_says_nothing_about_it() {
    let mut world = with_authorities().await;
    world.api.admit_nothing_with(AGENT, true);
    world.pass().await;
    assert_eq!(world.status().get("mergeCa"), None);
    world.api.admit_everything();
    world.mlflow_answers().await;
    passes(&mut world, 2).await;
    assert_eq!(template(&world)["spec"]["initContainers"][0]["name"], "merge-ca");
}

#[tokio::test]
async fn a_workload_that_is_refused_with_it_is_wired_without() {
    let mut world = with_authorities().await;
    world.pass().await;
    world.mlflow_answers().await;
    // The policy comes after the namespace was asked for.
    world.api.admit_nothing_with(IMAGE, true);
    passes(&mut world, 5).await;
    assert!(template(&world)["spec"].get("initContainers").is_none_or(Value::is_null), "{}", template(&world));
    assert_eq!(template(&world)["spec"]["volumes"][0]["configMap"]["name"], "agenttracing-ca");
    assert_eq!(row(&world)["reason"], "MergeCARefused");
    assert!(row(&world)["message"].as_str().unwrap().ends_with("agenttracing.dev/merge-ca-refused-"));
}

#[tokio::test]
async fn pods_that_are_not_created_because_of_it_come_without() {
    let mut world = wired_with_it().await;
    assert_eq!(template(&world)["spec"]["initContainers"][0]["name"], "merge-ca");
    no_pod_of_teller_is_created(&world);
    // A quota refuses any pod: no fault of the init container.
    world.api.admit_nothing_with(AGENT, false);
    passes(&mut world, 2).await;
    assert_eq!(template(&world)["spec"]["initContainers"][0]["name"], "merge-ca");

    let mut world = wired_with_it().await;
    no_pod_of_teller_is_created(&world);
    world.api.admit_nothing_with(IMAGE, false);
    passes(&mut world, 4).await;
    assert!(template(&world)["spec"].get("initContainers").is_none_or(Value::is_null), "{}", template(&world));
    assert_eq!(row(&world)["reason"], "MergeCARefused");
}

/// Nothing is written in a pass that changes what the status says of the namespace, and the policy was then not asked again for
/// a minute.
#[tokio::test]
async fn a_refusal_that_is_heard_while_the_status_changes_is_not_forgotten() {
    let mut world = wired_with_it().await;
    no_pod_of_teller_is_created(&world);
    world.api.admit_nothing_with(IMAGE, false);
    // A workload whose experiment is new in the status.
    let mut vault = world.api.get(TELLER).unwrap();
    vault["metadata"] = json!({"name": "vault", "namespace": "bank-agents", "generation": 1});
    vault["spec"]["template"] = json!({"metadata": {}, "spec": {"containers": [{"name": "agent", "image": "i"}]}});
    vault["status"] = json!({});
    world.api.put("/apis/apps/v1/namespaces/bank-agents/deployments/vault", vault);
    passes(&mut world, 5).await;
    let status = world.status();
    let teller = status["workloads"].as_array().unwrap().iter().find(|row| row["name"] == "teller").unwrap();
    assert_eq!(teller["reason"], "MergeCARefused", "{status}");
}

/// A policy that lists images refuses the stand-in, too, whose image is the init container's.
#[tokio::test]
async fn a_policy_that_lists_images_is_known_before_there_is_a_workload() {
    let mut world = with_authorities().await;
    let teller = world.api.get(TELLER).unwrap();
    world.api.delete(TELLER);
    world.api.admit_nothing_with(IMAGE, true);
    world.pass().await;
    world.mlflow_answers().await;
    passes(&mut world, 2).await;
    assert!(world.status()["mergeCa"]["message"].is_string(), "{}", world.status());
    world.api.put(TELLER, teller);
    world.api.wire_as_created(TELLER);
    assert!(template(&world)["spec"].get("initContainers").is_none_or(Value::is_null), "{}", template(&world));
    passes(&mut world, 3).await;
    assert!(world.status()["mergeCa"]["message"].is_string(), "now of a workload's template");
    assert_eq!(row(&world)["reason"], "MergeCARefused");
    // Where a workload is taken with it, the stand-in's answer counts no more.
    world.api.admit_everything();
    world.ctx.reconcile_states.lock().unwrap().clear();
    passes(&mut world, 2).await;
    assert_eq!(world.status().get("mergeCa"), None);
}

/// With another image of the operator's everything wired was asked for by the stand-in, whose answer said nothing.
#[tokio::test]
async fn an_upgrade_under_a_policy_keeps_the_config_map() {
    let mut world = with_authorities().await;
    world.api.admit_nothing_with(IMAGE, true);
    world.pass().await;
    world.mlflow_answers().await;
    passes(&mut world, 4).await;
    assert_eq!(row(&world)["reason"], "MergeCARefused");
    let before = template(&world);
    world.api.edit(TRACING, json!({"status": {"mergeCa": {"refusedSource": "the image of an earlier install"}}}));
    world.ctx.reconcile_states.lock().unwrap().clear();
    passes(&mut world, 4).await;
    assert_ne!(world.status()["mergeCa"]["refusedSource"], "the image of an earlier install");
    assert_eq!(template(&world), before, "nothing was rolled");
}

/// Only so many are looked at in a pass, and twenty dead ones were once always the same (review A13).
#[tokio::test]
async fn dead_workloads_of_long_ago_hide_no_new_one_whose_merge_ca_does_not_start() {
    let mut world = wired_with_it().await;
    for number in 0..25 {
        let path = format!("/apis/apps/v1/namespaces/bank-agents/deployments/abandoned-{number:02}");
        let mut abandoned = world.api.get(TELLER).unwrap();
        abandoned["metadata"] =
            json!({"name": format!("abandoned-{number:02}"), "namespace": "bank-agents", "generation": 1});
        abandoned["spec"]["template"] =
            json!({"metadata": {}, "spec": {"containers": [{"name": "agent", "image": "i"}]}});
        world.api.put(&path, abandoned);
        world.api.wire_as_created(&path);
        let touched = json!({"metadata": {"annotations": {(names::ANNOTATION_TOUCH): "x/0/1000"}}});
        world.api.edit(&path, touched);
        world.api.edit(&path, json!({"status": {"availableReplicas": 0}}));
    }
    let waits = json!({"name": "merge-ca", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "ImagePullBackOff"}}});
    let since = Timestamp::now() - jiff::SignedDuration::from_secs(70);
    world.api.put(
        "/api/v1/namespaces/bank-agents/pods/teller-1",
        json!({
            "metadata": {"name": "teller-1", "labels": {"app": "teller"}, "creationTimestamp": since.to_string(),
                "annotations": template(&world)["metadata"]["annotations"]},
            "status": {"initContainerStatuses": [waits]},
        }),
    );
    world.api.edit(TELLER, json!({"status": {"availableReplicas": 0}}));
    passes(&mut world, 3).await;
    let volumes = &template(&world)["spec"]["volumes"];
    assert_eq!(volumes[0]["configMap"]["name"], "agenttracing-ca", "{}", world.status());
}
