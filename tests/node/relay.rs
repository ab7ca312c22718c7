//! The relay that the operator runs, before the real shared MLflow: agents that speak OTLP and one with MLflow's SDK need its
//! address and nothing else, and lose nothing while MLflow is away.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use agent_tracing::names;
use jiff::Timestamp;
use serde_json::json;

use crate::mlflow::Mlflow;
use crate::shared::{agent, start_model};
use crate::world::{Scene, env, kubectl, say, scene, typed, typed_script, until};

const TRACING: &str = "
apiVersion: agenttracing.dev/v1alpha1
kind: AgentTracing
metadata: {name: tracing}
spec: {mlflow: {mode: CR}, auth: {method: Relay}, otlp: {mode: Relay}}
";
const ADDRESS: &str = "https://mlflow.redhat-ods-applications.svc:8443";
const POD: &str = "tracing-relay-0";
/// Two that speak OTLP, in Python and in Go, and one with MLflow's SDK.
const AGENTS: [(&str, &str); 3] =
    [("courier", "demo/adk-agent:1"), ("dispatcher", "demo/go-agent:1"), ("teller", "demo/langgraph-agent:1")];

#[test]
#[ignore = "needs the node cluster: make test"]
fn agents_of_the_relay_need_an_address_alone_and_lose_nothing() {
    scene("relayed", true, |scene| {
        start_model();
        typed_script("tests/cr/world.sh", &["up", "a", &scene.namespace, names::OPERATOR_NAMESPACE]);
        for (name, image) in AGENTS {
            scene.apply(&agent(name, image, json!({"automountServiceAccountToken": false})));
        }
        scene.apply(TRACING);
        the_relay_is_ready_and_then_the_agents_are_wired(scene);
        the_relay_alone_is_bound(scene);
        // No other account of the namespace may look.
        let mlflow = Mlflow::shared_as(scene, ADDRESS, "tracing-relay");
        for (name, _) in AGENTS {
            let trace = mlflow.until_traced_since(name, Timestamp::UNIX_EPOCH);
            say(&format!("{:>9}  trace {} of {name} by the relay", "", trace.id));
        }
        nothing_is_lost_while_mlflow_is_away(scene, &mlflow);
        an_unused_relay_goes_and_its_claim_stays(scene);
        typed_script("tests/cr/world.sh", &["down"]);
    });
}

fn the_relay_is_ready_and_then_the_agents_are_wired(scene: &Scene) {
    scene.until_condition("MLflowReady", "True", "Available");
    scene.until_condition("RelayReady", "True", "Available").ends_with_a_command();
    let base = format!("http://tracing-relay.{}.svc", scene.namespace);
    for (name, _) in AGENTS {
        scene.until_wired(name);
        scene.until_rolled_out(name);
        let live = scene.live("deployments", name);
        let endpoint = format!("{base}:4318/w/deployment/{name}/v1/traces");
        assert_eq!(env(&live, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), Some(&*endpoint));
        assert_eq!(env(&live, "MLFLOW_TRACKING_URI"), Some(&*format!("{base}:5500/w/deployment/{name}")));
        for absent in ["MLFLOW_WORKSPACE", "MLFLOW_TRACKING_TOKEN_FILE", "REQUESTS_CA_BUNDLE"] {
            assert_eq!(env(&live, absent), None, "{absent}");
        }
        assert!(live["spec"]["template"]["spec"]["initContainers"].is_null(), "no init container");
    }
}

fn the_relay_alone_is_bound(scene: &Scene) {
    let binding = scene.live("rolebindings", names::ROLE_BINDING);
    let subjects: Vec<_> =
        binding["subjects"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(subjects, [names::OBSERVER, "tracing-relay"]);
}

/// The agents ask every three seconds and hear of no trouble; what they sent meanwhile is there afterwards, with its spans.
fn nothing_is_lost_while_mlflow_is_away(scene: &Scene, mlflow: &Mlflow) {
    let before = AGENTS.map(|(name, _)| (answers(scene, name), mlflow.finished(name)));
    let scale = |replicas: &str| {
        typed(&["-n", "redhat-ods-applications", "scale", "deployment/mlflow", &format!("--replicas={replicas}")]);
    };
    scale("0");
    sleep(Duration::from_secs(30));
    let evidence = evidence(scene);
    for (name, _) in AGENTS {
        let held = evidence["workloads"][format!("deployment/{name}")]["held"].as_u64();
        assert!(held.is_some_and(|held| held > 0), "{name}: {evidence}");
    }
    scale("1");
    for ((name, _), (answered, stored)) in AGENTS.into_iter().zip(before) {
        let during = answers(scene, name);
        assert!(during >= answered + 5, "{name} was at work: {answered} and {during}");
        let arrived = until(&format!("everything of {name} that was held is in MLflow"), || {
            let found: BTreeSet<_> = mlflow.traces(name)?.into_iter().map(|trace| trace.id).collect();
            let new: BTreeSet<_> = found.difference(&stored).cloned().collect();
            match new.len() >= during - answered {
                true => Ok(new),
                false => Err(format!("{} of {} traces", new.len(), during - answered)),
            }
        });
        until(&format!("each of {name} has its spans"), || {
            arrived.iter().try_for_each(|trace| match mlflow.spans(trace)? {
                0 => Err(format!("{trace} has none")),
                _ => Ok(()),
            })
        });
    }
    until("nothing is held", || match self::evidence(scene)["held"].clone() {
        held if held.is_null() => Ok(()),
        held => Err(held.to_string()),
    });
}

/// Questions that an agent has answered since its pod is there.
fn answers(scene: &Scene, name: &str) -> usize {
    scene.kubectl(&["logs", &format!("deployment/{name}")]).lines().filter(|line| line.contains(" -> ")).count()
}

/// What the relay knows of traces, through the API server.
fn evidence(scene: &Scene) -> serde_json::Value {
    let path = format!("/api/v1/namespaces/{}/pods/{POD}:8080/proxy/evidence", scene.namespace);
    serde_json::from_str(&typed(&["get", "--raw", &path])).unwrap()
}

fn an_unused_relay_goes_and_its_claim_stays(scene: &Scene) {
    let off = r#"{"spec": {"auth": null, "otlp": null}}"#;
    scene.kubectl(&["patch", "agenttracing", "tracing", "--type=merge", "-p", off]);
    for (name, _) in AGENTS {
        scene.kubectl(&["delete", "deployment", name]);
    }
    for resource in ["statefulsets", "services", "serviceaccounts", "networkpolicies"] {
        until(&format!("the relay's {resource} are gone"), || match scene.get(resource, "tracing-relay") {
            None => Ok(()),
            Some(_) => Err("it is there".to_owned()),
        });
    }
    assert!(scene.get("persistentvolumeclaims", &format!("spool-{POD}")).is_some(), "it may hold traces");
    assert!(kubectl(&["-n", &scene.namespace, "get", "role", names::RELAY_ROLE], "").is_err());
}
