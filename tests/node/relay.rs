//! The relay that the operator runs, before the real shared MLflow: an agent that speaks OTLP needs its address and nothing else,
//! and loses nothing while MLflow is away.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use agent_tracing::names;
use jiff::Timestamp;
use serde_json::json;

use crate::mlflow::Mlflow;
use crate::shared::{agent, start_model};
use crate::world::{Scene, env, is_wired, kubectl, say, scene, typed, typed_script, until};

const TRACING: &str = "
apiVersion: agenttracing.dev/v1alpha1
kind: AgentTracing
metadata: {name: tracing}
spec: {mlflow: {mode: CR}, auth: {method: Relay}, otlp: {mode: Relay}}
";
const ADDRESS: &str = "https://mlflow.redhat-ods-applications.svc:8443";
const POD: &str = "tracing-relay-0";

#[test]
#[ignore = "needs the node cluster: make test"]
fn an_agent_of_the_relay_needs_an_address_alone_and_loses_nothing() {
    scene("relayed", true, |scene| {
        start_model();
        typed_script("tests/cr/world.sh", &["up", "a", &scene.namespace, names::OPERATOR_NAMESPACE]);
        scene.apply(&agent("courier", "demo/adk-agent:1", json!({"automountServiceAccountToken": false})));
        scene.apply(TRACING);
        the_relay_is_ready_and_then_the_agent_is_wired(scene);
        the_relay_alone_is_bound(scene);
        // No other account of the namespace may look.
        let mlflow = Mlflow::shared_as(scene, ADDRESS, "tracing-relay");
        let trace = mlflow.until_traced_since("courier", Timestamp::UNIX_EPOCH);
        say(&format!("{:>9}  trace {} by the relay", "", trace.id));
        nothing_is_lost_while_mlflow_is_away(scene, &mlflow);
        an_unused_relay_goes_and_its_claim_stays(scene);
        typed_script("tests/cr/world.sh", &["down"]);
    });
}

fn the_relay_is_ready_and_then_the_agent_is_wired(scene: &Scene) {
    scene.until_condition("MLflowReady", "True", "Available");
    scene.until_condition("RelayReady", "True", "Available").ends_with_a_command();
    until("courier is wired", || match is_wired(&scene.live("deployments", "courier")) {
        true => Ok(()),
        false => Err(scene.live("agenttracings", "tracing")["status"]["workloads"].to_string()),
    });
    scene.until_rolled_out("courier");
    let live = scene.live("deployments", "courier");
    let base = format!("http://tracing-relay.{}.svc", scene.namespace);
    let endpoint = format!("{base}:4318/w/deployment/courier/v1/traces");
    assert_eq!(env(&live, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), Some(&*endpoint));
    assert_eq!(env(&live, "MLFLOW_TRACKING_URI"), Some(&*format!("{base}:5500/w/deployment/courier")));
    for absent in ["MLFLOW_WORKSPACE", "MLFLOW_TRACKING_TOKEN_FILE", "REQUESTS_CA_BUNDLE"] {
        assert_eq!(env(&live, absent), None, "{absent}");
    }
    assert!(live["spec"]["template"]["spec"]["initContainers"].is_null(), "no init container");
}

fn the_relay_alone_is_bound(scene: &Scene) {
    let binding = scene.live("rolebindings", names::ROLE_BINDING);
    let subjects: Vec<_> =
        binding["subjects"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(subjects, [names::OBSERVER, "tracing-relay"]);
}

/// The agent asks every three seconds and hears of no trouble; what it sent meanwhile is there afterwards, each once.
fn nothing_is_lost_while_mlflow_is_away(scene: &Scene, mlflow: &Mlflow) {
    let answers = || answers(scene);
    let before = (answers(), mlflow.finished("courier"));
    let scale = |replicas: &str| {
        typed(&["-n", "redhat-ods-applications", "scale", "deployment/mlflow", &format!("--replicas={replicas}")]);
    };
    scale("0");
    let gone = Instant::now();
    let held = scene.until_condition("TracesFlowing", "False", "TracesHeld");
    let told = gone.elapsed();
    say(&format!("{:>8.1}s  until status says TracesHeld", told.as_secs_f64()));
    held.ends_with_a_command();
    assert!(held.message.contains("deployment/courier"), "{}", held.message);
    // The pod of MLflow takes some seconds of these to end.
    assert!(told < Duration::from_secs(30), "{told:?}");
    sleep(Duration::from_secs(30).saturating_sub(told));
    let evidence = evidence(scene);
    assert!(evidence["workloads"]["deployment/courier"]["held"].as_u64().unwrap() > 0, "{evidence}");
    scale("1");
    let during = answers();
    assert!(during >= before.0 + 5, "the agent was at work: {} and {during}", before.0);
    until("everything that was held is in MLflow", || {
        let found: BTreeSet<_> = mlflow.traces("courier")?.into_iter().map(|trace| trace.id).collect();
        let new = found.difference(&before.1).count();
        if new >= during - before.0 { Ok(()) } else { Err(format!("{new} of {} traces", during - before.0)) }
    });
    until("nothing is held", || match self::evidence(scene)["held"].clone() {
        held if held.is_null() => Ok(()),
        held => Err(held.to_string()),
    });
    scene.until_condition("TracesFlowing", "True", "TracesReceived");
}

/// Questions that the agent has answered since its pod is there.
fn answers(scene: &Scene) -> usize {
    scene.kubectl(&["logs", "deployment/courier"]).lines().filter(|line| line.contains(" -> ")).count()
}

/// What the relay knows of traces, through the API server.
fn evidence(scene: &Scene) -> serde_json::Value {
    let path = format!("/api/v1/namespaces/{}/pods/{POD}:8080/proxy/evidence", scene.namespace);
    serde_json::from_str(&typed(&["get", "--raw", &path])).unwrap()
}

fn an_unused_relay_goes_and_its_claim_stays(scene: &Scene) {
    let off = r#"{"spec": {"auth": null, "otlp": null}}"#;
    scene.kubectl(&["patch", "agenttracing", "tracing", "--type=merge", "-p", off]);
    scene.kubectl(&["delete", "deployment", "courier"]);
    for resource in ["statefulsets", "services", "serviceaccounts", "networkpolicies"] {
        until(&format!("the relay's {resource} are gone"), || match scene.get(resource, "tracing-relay") {
            None => Ok(()),
            Some(_) => Err("it is there".to_owned()),
        });
    }
    assert!(scene.get("persistentvolumeclaims", &format!("spool-{POD}")).is_some(), "it may hold traces");
    assert!(kubectl(&["-n", &scene.namespace, "get", "role", names::RELAY_ROLE], "").is_err());
}
