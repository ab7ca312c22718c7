//! What Prometheus and Grafana get: the same by both ways to install, and right by Prometheus' own tool.
//!
//! `promtool` comes from the variable `PROMTOOL` or from PATH.

use std::path::{Path, PathBuf};

use agent_tracing::names;
use serde_json::{Value, json};

use crate::rendered::{read, same, template};
use crate::{CHART, documents, helm, kubectl, object, run};

const ALL: &[&str] =
    &["metrics.serviceMonitor.enabled=true", "metrics.prometheusRule.enabled=true", "metrics.dashboard.enabled=true"];

/// What the options add to the chart.
fn added(namespace: &str, set: &[&str]) -> Vec<Value> {
    let default = template(namespace, &[]);
    let mut all = template(namespace, set);
    all.retain(|object| !default.contains(object));
    all
}

#[test]
#[ignore = "needs kubectl and helm: make test"]
fn kustomize_and_helm_render_the_same_objects_for_prometheus() {
    let kustomize = documents(&kubectl(&["kustomize", "config/prometheus"]).ok());
    let chart = added(names::OPERATOR_NAMESPACE, ALL);
    assert_eq!(chart.len(), 3);
    same("config/prometheus", kustomize, chart);
}

#[test]
#[ignore = "needs kubectl and helm: make test"]
fn each_option_adds_its_object_and_no_other() {
    for (set, kind) in ALL.iter().zip(["ServiceMonitor", "PrometheusRule", "ConfigMap"]) {
        let added = added("tools", &[set]);
        let kinds: Vec<_> = added.iter().map(|object| object["kind"].as_str().expect("a kind")).collect();
        assert_eq!(kinds, [kind], "{set}");
        assert_eq!(added[0]["metadata"]["namespace"], "tools", "{set}");
        assert!(!added[0].to_string().contains(names::OPERATOR_NAMESPACE), "{set}: commands name another namespace");
    }
    let labelled =
        [ALL, &["metrics.serviceMonitor.labels.release=a", "metrics.prometheusRule.labels.release=b"]].concat();
    let added = added("tools", &[&labelled[..], &["metrics.serviceMonitor.interval=2m"]].concat());
    let label = |kind: &str| &object(&added, kind, "agent-tracing-operator")["metadata"]["labels"]["release"];
    assert_eq!((label("ServiceMonitor"), label("PrometheusRule")), (&json!("a"), &json!("b")));
    let monitor = object(&added, "ServiceMonitor", "agent-tracing-operator");
    assert_eq!(monitor["spec"]["endpoints"], json!([{"port": "http", "interval": "2m"}]));
    for wrong in
        ["metrics.serviceMonitor.interval=often", "metrics.dashbord.enabled=true", "metrics.serviceMonitor.enabled=2"]
    {
        assert!(helm(&["template", "x", CHART, "--set", wrong]).err().contains("metrics"), "{wrong}");
    }
}

#[test]
#[ignore = "needs kubectl and helm: make test"]
fn the_service_monitor_finds_the_port_of_the_metrics() {
    let objects = template("tools", ALL);
    let service = object(&objects, "Service", "agent-tracing-metrics");
    let selector =
        object(&objects, "ServiceMonitor", "agent-tracing-operator")["spec"]["selector"]["matchLabels"].clone();
    let selected: Vec<_> = objects
        .iter()
        .filter(|object| object["kind"] == "Service")
        .filter(|object| {
            selector.as_object().expect("labels").iter().all(|(key, value)| object["metadata"]["labels"][key] == *value)
        })
        .collect();
    assert_eq!(selected, [service], "the metrics' Service, and not the webhook's");
    let container =
        &object(&objects, "Deployment", "agent-tracing-operator")["spec"]["template"]["spec"]["containers"][0];
    let ports = container["ports"].as_array().expect("ports");
    let port = ports.iter().find(|port| port["name"] == service["spec"]["ports"][0]["targetPort"]).expect("the port");
    assert_eq!(port["containerPort"], service["spec"]["ports"][0]["port"]);
}

#[test]
#[ignore = "needs helm and promtool: make test"]
fn the_rendered_alerts_pass_promtools_check() {
    let rule = added("tools", &ALL[1..2]).remove(0);
    let folder = folder("rendered");
    std::fs::write(folder.join("alerts.json"), rule["spec"].to_string()).expect("writes");
    for file in [folder.join("alerts.json"), Path::new(CHART).join("files/alerts.yaml")] {
        promtool(&["check", "rules", "--lint=all", "--lint-fatal", file.to_str().expect("UTF-8")]).ok();
    }
}

#[test]
#[ignore = "needs promtool: make test"]
fn each_alert_fires_when_it_should_and_not_otherwise() {
    let mut alerts: Value = serde_yaml::from_str(&read(&format!("{CHART}/files/alerts.yaml"))).expect("YAML");
    let test = read("tests/install/alerts_test.yaml");
    for rule in alerts["groups"][0]["rules"].as_array_mut().expect("rules") {
        // promtool compares annotations whole, and a test that repeats each runbook tests nothing more.
        rule["annotations"].as_object_mut().expect("annotations").retain(|name, _| name == "description");
        let name = rule["alert"].as_str().expect("a name");
        assert!(test.contains(&format!("alertname: {name}\n    exp_alerts:")), "no test in which {name} fires");
        assert!(test.contains(&format!("alertname: {name}}}")), "no test in which {name} does not fire");
    }
    let folder = folder("alerts");
    std::fs::write(folder.join("alerts.yaml"), alerts.to_string()).expect("writes");
    std::fs::write(folder.join("test.yaml"), test).expect("writes");
    promtool(&["test", "rules", folder.join("test.yaml").to_str().expect("UTF-8")]).ok();
}

#[test]
#[ignore = "needs promtool: make test"]
fn every_query_of_the_dashboard_is_promql() {
    let dashboard: Value = serde_json::from_str(&read(&format!("{CHART}/files/dashboard.json"))).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let queries = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    // What Grafana puts in their place.
    let grafana = |query: &str| query.replace("$__rate_interval", "5m").replace("$job", ".+");
    let rules: Vec<_> = queries
        .map(|target| grafana(target["expr"].as_str().expect("a query")))
        .enumerate()
        .map(|(number, expr)| json!({"record": format!("panel:{number}"), "expr": expr}))
        .collect();
    assert!(rules.len() > 20);
    let folder = folder("dashboard");
    let file = folder.join("queries.json");
    std::fs::write(&file, json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string()).expect("writes");
    promtool(&["check", "rules", file.to_str().expect("UTF-8")]).ok();
}

fn promtool(args: &[&str]) -> crate::Run {
    run("PROMTOOL", "promtool", args, "")
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prometheus").join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}
