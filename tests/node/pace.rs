//! How running workloads are changed: one at a time here, and none after one that does not come back.

use agent_tracing::names;
use serde_json::{Value, json};

use crate::operator;
use crate::world::{Scene, env, idle, scene, typed, until};

const TRACING: &str = "
apiVersion: agenttracing.dev/v1alpha1
kind: AgentTracing
metadata: {name: tracing}
spec:
  mlflow: {mode: Standalone}
  injection: {rollout: {maxConcurrent: 1}}
";

#[test]
#[ignore = "needs the node cluster: make test"]
fn one_that_does_not_come_back_halts_the_rest() {
    scene("pace", true, |scene| {
        scene.apply(&agent_that_ends("MLFLOW_TRACKING_URI"));
        scene.apply(&idle("b-steady"));
        scene.until_rolled_out("a-hasty");
        scene.until_rolled_out("b-steady");
        scene.apply(TRACING);
        a_crash_is_told_and_the_other_is_not_touched(scene);
        mended_it_goes_on_by_itself(scene);
        a_merge_ca_that_cannot_be_pulled_gives_way_to_a_config_map(scene);
        an_install_with_another_image_brings_it_back(scene);
        manual_means_with_their_own_next_change(scene);
    });
}

/// An agent that ends at once where a variable is set, and is up for good where it is not. Without a readiness probe it counts
/// as available in between, unless it has to last for a while.
fn agent_that_ends(variable: &str) -> String {
    let mut agent: Value = serde_json::from_str(&idle("a-hasty")).unwrap();
    agent["spec"]["minReadySeconds"] = json!(5);
    let container = &mut agent["spec"]["template"]["spec"]["containers"][0];
    container["image"] = json!("demo/langgraph-agent:1");
    container["command"] = json!(["sh", "-c", format!("test -z \"${variable}\" && exec sleep 3600; exit 3")]);
    agent.to_string()
}

pub fn row(scene: &Scene, name: &str) -> Value {
    let status = scene.live("agenttracings", "tracing")["status"].clone();
    status["workloads"]
        .as_array()
        .and_then(|rows| rows.iter().find(|row| row["name"] == name).cloned())
        .unwrap_or_default()
}

fn a_crash_is_told_and_the_other_is_not_touched(scene: &Scene) {
    let told = scene.until_condition("WorkloadsReady", "False", "RolloutHalted");
    told.ends_with_a_command().says("a-hasty").says("CrashLoopBackOff").says("b-steady");
    let row = row(scene, "a-hasty");
    assert_eq!((&row["state"], &row["reason"]), (&"Halted".into(), &"CrashLoopBackOff".into()), "{row}");
    assert_eq!(scene.live("deployments", "b-steady")["metadata"]["generation"], 1);
    let available = &scene.live("deployments", "a-hasty")["status"]["availableReplicas"];
    assert_eq!(*available, 1, "the pod from before is there");
    assert_eq!(scene.events("Deployment", "a-hasty", names::event::ROLLOUT_HALTED).len(), 1);
    assert_eq!(scene.events("AgentTracing", "tracing", names::event::ROLLOUT_HALTED).len(), 1);
}

fn mended_it_goes_on_by_itself(scene: &Scene) {
    scene.apply(&agent_that_ends("NOTHING_THAT_IS_SET"));
    scene.until_wired("b-steady");
    scene.until_condition("WorkloadsReady", "True", "AllCurrent");
    assert_eq!(scene.rollouts("b-steady"), 1);
}

fn a_merge_ca_that_cannot_be_pulled_gives_way_to_a_config_map(scene: &Scene) {
    set_merge_ca_image("demo/absent:1");
    scene.kubectl(&[
        "patch",
        "agenttracing",
        "tracing",
        "--type=merge",
        "-p",
        r#"{"spec":{"caBundle":{"mode":"Always"}}}"#,
    ]);
    until("a-hasty takes its authorities from the ConfigMap", || {
        let live = scene.live("deployments", "a-hasty");
        let pod = &live["spec"]["template"]["spec"];
        match pod["volumes"][0]["configMap"]["name"] == names::CA_CONFIG_MAP && pod["initContainers"].is_null() {
            true => Ok(()),
            false => Err(row(scene, "a-hasty").to_string()),
        }
    });
    scene.until_rolled_out("a-hasty");
    let told = scene.until_condition("WorkloadsReady", "False", "RolloutHalted");
    told.ends_with_a_command().says("MergeCAImage").says("b-steady");
    assert_eq!(row(scene, "a-hasty")["reason"], "MergeCAImage");
    assert_eq!(env(&scene.live("deployments", "b-steady"), "REQUESTS_CA_BUNDLE"), None, "it waits");
}

fn an_install_with_another_image_brings_it_back(scene: &Scene) {
    typed(&["apply", "-k", "config/default"]);
    for name in ["a-hasty", "b-steady"] {
        until(&format!("{name} merges for itself"), || {
            let pod = scene.live("deployments", name)["spec"]["template"]["spec"].clone();
            match pod["initContainers"][0]["name"] == names::MERGE_CA {
                true => Ok(()),
                false => Err(row(scene, name).to_string()),
            }
        });
    }
    scene.until_condition("WorkloadsReady", "True", "AllCurrent");
    until("the operator is whole again", operator::ready);
}

fn manual_means_with_their_own_next_change(scene: &Scene) {
    let manual = r#"{"spec":{"injection":{"rollout":{"policy":"Manual"}},"sdk":{"timeoutSeconds":9}}}"#;
    scene.kubectl(&["patch", "agenttracing", "tracing", "--type=merge", "-p", manual]);
    scene.until_condition("WorkloadsReady", "False", "Outdated").ends_with_a_command();
    for name in ["a-hasty", "b-steady"] {
        let told = row(scene, name)["message"].as_str().unwrap().to_owned();
        let command = format!("kubectl rollout restart -n {} deployment/{name}", scene.namespace);
        assert!(told.ends_with(&command), "{told}");
        let arguments: Vec<_> = command.split(' ').skip(1).collect();
        typed(&arguments);
        assert_eq!(env(&scene.live("deployments", name), "MLFLOW_HTTP_REQUEST_TIMEOUT"), Some("9"));
    }
    scene.until_condition("WorkloadsReady", "True", "AllCurrent");
}

pub fn set_merge_ca_image(image: &str) {
    let variable = format!("MERGE_CA_IMAGE={image}");
    typed(&["-n", names::OPERATOR_NAMESPACE, "set", "env", &format!("deployment/{}", names::MANAGED_BY), &variable]);
    until("the operator is whole again", || {
        let pods = operator::pods_that_answer();
        let new = |pod: &Value| pod.to_string().contains(image);
        if pods.len() == 2 && pods.iter().all(new) { operator::ready() } else { Err("it is being replaced".to_owned()) }
    });
}
