//! The five frameworks that MLflow documents, each as its page has it, against both kinds of server. LangGraph and ADK are
//! part of other tests; all five take gigabytes of images and minutes, so this one is for `make soak`.

use std::time::Instant;

use agent_tracing::names;
use serde_json::json;

use crate::shared::{TRACING, agent, start_model};
use crate::world::{Scene, say, scene, tracing, typed, typed_script, until};

const FRAMEWORKS: [&str; 5] = ["langgraph", "crewai", "autogen", "llamaindex", "adk"];

#[test]
#[ignore = "needs the node cluster: make soak"]
fn each_documented_framework_traces_to_both_servers() {
    if std::env::var_os("SOAK").is_none() {
        return say("\nframeworks: only in make soak");
    }
    scene("frameworks", true, |scene| {
        start_model();
        scene.apply(&tracing("tracing", "{}"));
        scene.until_condition("MLflowReady", "True", "Available");
        each_traces(scene, "Standalone");
        let second = Scene::second("frameworks-cr", true);
        typed_script("tests/cr/world.sh", &["up", "a", &second.namespace, names::OPERATOR_NAMESPACE]);
        second.apply(TRACING);
        second.until_condition("MLflowReady", "True", "Available");
        each_traces(&second, "CR");
        typed_script("tests/cr/world.sh", &["down"]);
    });
}

/// Where its own environment names `<tracking URI>/v1/traces`, which MLflow 3.14 has at the origin alone, that is told, with the
/// value that works. Silence alone says nothing of OTLP.
#[test]
#[ignore = "needs the node cluster: make soak"]
fn adk_under_a_prefix_is_told_where_its_traces_belong() {
    if std::env::var_os("SOAK").is_none() {
        return say("\nadk under a prefix: only in make soak");
    }
    scene("prefix", true, |scene| {
        start_model();
        typed_script("tests/cr/world.sh", &["up", "b", &scene.namespace, names::OPERATOR_NAMESPACE]);
        scene.apply(TRACING);
        scene.until_condition("MLflowReady", "True", "Available").says("3.14");
        scene.apply(&agent("courier", "demo/adk-agent:1", json!({})));
        scene.until_condition("WorkloadsReady", "True", "AllCurrent");
        assert_eq!(scene.condition("TracesFlowing").unwrap().reason, "NoTracesYet");
        let endpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=$(MLFLOW_TRACKING_URI)/v1/traces";
        scene.kubectl(&["set", "env", "deployment/courier", endpoint]);
        let told = scene.until_condition("TracesFlowing", "False", "OTLPPathMissing");
        let right = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://mlflow.redhat-ods-applications.svc:8443/v1/traces";
        told.ends_with_a_command().says("courier").says(right);
        scene.until_condition("Ready", "False", "OTLPPathMissing");
        typed_script("tests/cr/world.sh", &["down"]);
    });
}

/// One at a time, so that the times can be compared.
fn each_traces(scene: &Scene, mode: &str) {
    for framework in FRAMEWORKS {
        let began = Instant::now();
        scene.apply(&agent(framework, &format!("demo/{framework}-agent:1"), json!({})));
        until(&format!("a trace of {framework} with its spans ({mode})"), || {
            let status = scene.live("agenttracings", "tracing")["status"].clone();
            let rows = status["workloads"].as_array().cloned().unwrap_or_default();
            let row = rows.into_iter().find(|row| row["name"] == framework).unwrap_or_default();
            if row["lastTraceTime"].is_string() { Ok(()) } else { Err(row.to_string()) }
        });
        say(&format!(
            "{:>7.1} s  {framework} in mode {mode}, from apply to a trace in status",
            began.elapsed().as_secs_f64()
        ));
        typed(&["-n", &scene.namespace, "delete", "deployment", framework]);
    }
}
