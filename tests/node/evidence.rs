//! What counts as evidence that traces arrive: only those of the current wiring, in an experiment that MLflow has. What was
//! seen once on a real cluster and said otherwise, each as it happened.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::mlflow::Mlflow;
use crate::shared::{agent, start_model};
use crate::world::{Scene, say, scene, tracing, until};

/// Section 3, points 1, 3, 5 and 6.
#[test]
#[ignore = "needs the node cluster: make test"]
fn only_traces_of_the_current_wiring_in_an_experiment_that_exists_are_evidence() {
    scene("evidence", true, |scene| {
        start_model();
        scene.apply(&tracing("tracing", "{}"));
        scene.until_condition("MLflowReady", "True", "Available");
        scene.apply(&slow_to_be_ready("teller"));
        scene.until_condition("TracesFlowing", "True", "TracesReceived").ends_with_a_command();
        an_experiment_that_is_deleted_is_told_within_a_minute(scene);
        a_database_that_is_lost_is_looked_at_anew(scene);
        nothing_is_rolled_while_mlflow_is_away(scene);
        traces_of_the_old_pod_say_nothing_about_the_new_one(scene);
    });
}

/// Section 3, point 2. Silence is worth a word after two minutes.
#[test]
#[ignore = "needs the node cluster: make soak"]
fn a_database_that_cannot_be_written_is_named_when_traces_stop() {
    if std::env::var_os("SOAK").is_none() {
        return say("\na database that cannot be written: only in make soak");
    }
    scene("writes", true, |scene| {
        start_model();
        scene.apply(&tracing("tracing", "{}"));
        scene.until_condition("MLflowReady", "True", "Available");
        scene.apply(&agent("teller", "demo/langgraph-agent:1", json!({})));
        scene.until_condition("TracesFlowing", "True", "TracesReceived");
        // A rhythm takes a while to be one.
        std::thread::sleep(Duration::from_secs(75));
        in_mlflow(scene, "chmod a-w /mlflow/mlflow.db* /mlflow");
        scene
            .until_condition("TracesFlowing", "False", "TracesStopped")
            .ends_with_a_command()
            .says("experiment teller");
        scene.until_condition("MLflowReady", "False", "WritesRefused").ends_with_a_command();
        let ready = scene.condition("Ready").unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "WritesRefused"));
        in_mlflow(scene, "chmod u+w /mlflow /mlflow/mlflow.db*");
        scene.until_condition("TracesFlowing", "True", "TracesReceived");
        scene.until_condition("MLflowReady", "True", "Available");
    });
}

/// Point 6.
fn an_experiment_that_is_deleted_is_told_within_a_minute(scene: &Scene) {
    Mlflow::of(scene).delete_experiment("teller").unwrap();
    let began = Instant::now();
    scene.until_condition("ExperimentsReady", "False", "ExperimentDeleted").ends_with_a_command();
    assert!(began.elapsed() < Duration::from_secs(75), "{:?}", began.elapsed());
    let flowing = scene.condition("TracesFlowing").unwrap();
    assert_eq!(flowing.status, "False", "nothing arrives in what is deleted: {}", flowing.message);
    patch(scene, json!({"experiment": {"restoreDeleted": true}}));
    scene.until_condition("ExperimentsReady", "True", "Ensured");
    scene.until_condition("TracesFlowing", "True", "TracesReceived");
}

/// Point 5.
fn a_database_that_is_lost_is_looked_at_anew(scene: &Scene) {
    in_mlflow(scene, "rm -f /mlflow/mlflow.db*");
    scene.kubectl(&["delete", "pod", "-l", "app.kubernetes.io/instance=tracing,app.kubernetes.io/component=mlflow"]);
    let lost = Timestamp::now();
    let mlflow = Mlflow::of(scene);
    until("the experiment is there again", || mlflow.traces("teller").map(|_| ()));
    scene.until_condition("MLflowReady", "True", "Available");
    mlflow.until_traced_since("teller", lost);
    until("status has the id of the new database", || {
        let status = scene.live("agenttracings", "tracing")["status"].clone();
        let id = mlflow.experiment("teller")?;
        let known = status["experiments"].as_array().cloned().unwrap_or_default();
        match known.iter().find(|known| known["name"] == "teller") {
            Some(known) if known["id"] == *id => Ok(()),
            other => Err(format!("{other:?} and not {id}")),
        }
    });
    scene.until_condition("TracesFlowing", "True", "TracesReceived");
}

/// Point 3: an agent looks for MLflow once, when it starts.
fn nothing_is_rolled_while_mlflow_is_away(scene: &Scene) {
    let before = scene.live("deployments", "teller")["spec"]["template"].clone();
    // No MLflow is in this image.
    patch(scene, json!({"mlflow": {"standalone": {"image": "demo/idle:1"}}}));
    until("MLflow is away", || match scene.condition("MLflowReady") {
        Some(found) if found.status == "False" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    patch(scene, json!({"sdk": {"samplingRatio": "0.9"}}));
    scene
        .until_condition("WorkloadsReady", "False", "WaitingForMLflow")
        .ends_with_a_command()
        .says("1 workload (teller)");
    std::thread::sleep(Duration::from_secs(15));
    assert_eq!(scene.live("deployments", "teller")["spec"]["template"], before, "it was rolled against a dead server");
    patch(scene, json!({"mlflow": {"standalone": {"image": null}}, "sdk": null}));
    scene.until_condition("MLflowReady", "True", "Available");
    scene.until_condition("WorkloadsReady", "True", "AllCurrent");
}

/// Point 1: the old pod goes on sending until the new one is ready, which takes half a minute.
fn traces_of_the_old_pod_say_nothing_about_the_new_one(scene: &Scene) {
    // Nothing is behind this proxy, so that the SDK reaches no server.
    patch(scene, json!({"injection": {"env": [{"name": "HTTP_PROXY", "value": "http://127.0.0.1:9"}]}}));
    scene.until_condition("WorkloadsReady", "False", "RolloutInProgress");
    let began = Instant::now();
    scene.until_rolled_out("teller");
    scene.until_condition("WorkloadsReady", "True", "AllCurrent");
    while began.elapsed() < Duration::from_secs(75) {
        let flowing = scene.condition("TracesFlowing").unwrap();
        assert_ne!(flowing.status, "True", "{}", flowing.message);
        std::thread::sleep(Duration::from_secs(3));
    }
    assert!(row(scene, "teller")["lastTraceTime"].is_null(), "{}", row(scene, "teller"));
    patch(scene, json!({"injection": null}));
    scene.until_condition("TracesFlowing", "True", "TracesReceived");
}

/// An agent that sends every three seconds and is ready after thirty.
fn slow_to_be_ready(name: &str) -> String {
    let mut deployment: Value = serde_json::from_str(&agent(name, "demo/langgraph-agent:1", json!({}))).unwrap();
    deployment["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] =
        json!({"exec": {"command": ["true"]}, "initialDelaySeconds": 30});
    deployment.to_string()
}

fn row(scene: &Scene, name: &str) -> Value {
    let status = scene.live("agenttracings", "tracing")["status"].clone();
    let rows = status["workloads"].as_array().cloned().unwrap_or_default();
    rows.into_iter().find(|row| row["name"] == name).unwrap_or_default()
}

fn patch(scene: &Scene, spec: Value) {
    let patch = json!({ "spec": spec }).to_string();
    scene.kubectl(&["patch", "agenttracing", "tracing", "--type=merge", "-p", &patch]);
}

fn in_mlflow(scene: &Scene, script: &str) {
    scene.kubectl(&["exec", "deployment/tracing-mlflow", "--", "sh", "-c", script]);
}
