//! Workloads of every kind that send traces.

use agent_tracing::names;
use serde_json::{Value, json};

use crate::shared::agent;
use crate::world::{Scene, template};

/// The name that the API server made of `batch-`.
pub fn batch(scene: &Scene) -> String {
    let jobs = scene.list("jobs", "");
    let mut names = jobs.iter().map(|job| job["metadata"]["name"].as_str().unwrap());
    names.find(|name| name.starts_with("batch-")).unwrap().to_owned()
}

pub fn tracer_deployment(name: &str) -> String {
    agent(name, "demo/langgraph-agent:1", json!({"terminationGracePeriodSeconds": 5}))
}

pub fn tracer(kind: &str, name: &str) -> String {
    of_kind(kind, name, &tracer_deployment(name)).to_string()
}

/// The pod of a Deployment, in something else.
pub fn of_kind(kind: &str, name: &str, deployment: &str) -> Value {
    let deployment: Value = serde_json::from_str(deployment).unwrap();
    let spec = match kind {
        "StatefulSet" => {
            let mut spec = deployment["spec"].clone();
            spec["serviceName"] = json!(name);
            spec
        }
        "DaemonSet" => deployment["spec"].clone(),
        "CronJob" => json!({"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": finite(&deployment)}}}),
        _ => panic!("{kind} is not in the list"),
    };
    let version = if kind == "CronJob" { "batch/v1" } else { "apps/v1" };
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

pub fn job(name: &str, deployment: &str) -> String {
    let deployment: Value = serde_json::from_str(deployment).unwrap();
    let (metadata, spec) = (json!({"generateName": name}), json!({"template": finite(&deployment)}));
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}).to_string()
}

pub fn pod(name: &str) -> String {
    let deployment: Value = serde_json::from_str(&tracer_deployment(name)).unwrap();
    let mut pod = template(&deployment).clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"] = json!({"name": name, "labels": {names::LABEL_INJECT: "true"}});
    pod.to_string()
}

/// Without a controller that keeps it up.
pub fn finite(deployment: &Value) -> Value {
    let mut template = template(deployment).clone();
    template["spec"]["restartPolicy"] = json!("Never");
    template
}

pub fn on_delete(mut object: Value) -> String {
    object["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
    object.to_string()
}

pub fn two_replicas(deployment: &str) -> String {
    let mut deployment: Value = serde_json::from_str(deployment).unwrap();
    deployment["spec"]["replicas"] = json!(2);
    deployment.to_string()
}

/// Long enough in rolling to be seen at it.
pub fn slow(deployment: &str) -> String {
    let mut deployment: Value = serde_json::from_str(deployment).unwrap();
    deployment["spec"]["minReadySeconds"] = json!(3);
    deployment.to_string()
}
