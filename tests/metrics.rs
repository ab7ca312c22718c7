//! What is said about the metrics agrees with the metrics: the reference's table, the alerts, the dashboard. That Prometheus'
//! own tool agrees too, also with a running operator, is for tests/install and tests/api_server.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[path = "support/exposition.rs"]
#[allow(dead_code, reason = "each test file uses its own part")]
mod exposition;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use agent_tracing::api::WorkloadState;
use agent_tracing::mlflow::Outcome;
use agent_tracing::telemetry::metrics::{Metrics, ReconcileStep};
use agent_tracing::telemetry::{self, Readiness};
use axum::body::Body;
use axum::http::{Request, header};
use exposition::Family;
use jiff::Timestamp;
use serde_json::Value;
use tower::ServiceExt;

const ALERTS: &str = "charts/agent-tracing-operator/files/alerts.yaml";
const RULE: &str = "config/prometheus/rule.yaml";
const DASHBOARD: &str = "charts/agent-tracing-operator/files/dashboard.json";
const PAGE: &str = "docs/reference/metrics.md";
const BEGIN: &str = "<!-- metrics: begin (written by `make generate`; do not edit) -->\n\n";
const END: &str = "\n<!-- metrics: end -->";

#[tokio::test]
async fn the_reference_is_what_the_operator_says_of_its_metrics() {
    let page = read(PAGE);
    let table = exposition::table(&families().await);
    let (before, rest) = page.split_once(BEGIN).expect("the mark in the page");
    let (found, after) = rest.split_once(END).expect("the mark in the page");
    if updating() {
        return write(PAGE, &format!("{before}{BEGIN}{table}{END}{after}"));
    }
    assert!(found == table, "{PAGE} is stale; run `make generate`; it should be\n{table}");
}

#[test]
fn the_reference_names_every_step_and_every_end_of_a_request() {
    let listed = |of: &str, words: &[&str]| {
        let (last, others) = words.split_last().unwrap();
        format!("{of} is {} or {last}.", others.join(", "))
    };
    let page = read(PAGE).replace('\n', " ");
    for said in [
        listed("`step`", &ReconcileStep::ALL.map(ReconcileStep::as_str)),
        listed("`outcome`", &Outcome::ALL.map(Outcome::as_str)),
    ] {
        assert!(page.contains(&said), "{PAGE} does not say: {said}");
    }
}

#[tokio::test]
async fn alerts_and_dashboard_name_no_metric_that_does_not_exist_and_the_dashboard_names_all() {
    let families = families().await;
    let exist: BTreeSet<_> = families.iter().flat_map(|family| &family.samples).cloned().collect();
    for path in [ALERTS, DASHBOARD] {
        let unknown: Vec<_> = exposition::named_in(&read(path)).difference(&exist).cloned().collect();
        assert!(unknown.is_empty(), "{path} names {unknown:?}");
    }
    let shown = exposition::named_in(&read(DASHBOARD));
    let hidden = families.iter().filter(|family| family.samples.is_disjoint(&shown)).map(|family| &family.name);
    assert_eq!(hidden.collect::<Vec<_>>(), [] as [&String; 0], "no panel shows them");
}

#[test]
fn the_rule_of_kustomize_has_the_alerts_of_the_chart() {
    let alerts = read(ALERTS);
    let groups = alerts.find("groups:").expect("groups");
    let indented: String = alerts[groups..].lines().map(|line| format!("  {line}\n")).collect();
    let wanted = format!(
        "# Written by `make generate` from {ALERTS}.\napiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  \
         name: agent-tracing-operator\n  namespace: agent-tracing-system\nspec:\n{indented}"
    );
    if updating() {
        return write(RULE, &wanted);
    }
    assert!(read(RULE) == wanted, "{RULE} is stale; run `make generate`");
}

#[test]
fn every_alert_says_what_it_means_how_to_look_and_what_to_do() {
    let alerts: Value = serde_yaml::from_str(&read(ALERTS)).unwrap();
    let rules = alerts["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() >= 8);
    let page = read(PAGE);
    let listed = page.lines().filter(|line| line.starts_with("| `AgentTracing") && line.matches('|').count() == 4);
    assert_eq!(listed.count(), rules.len(), "{PAGE} lists another number of alerts");
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        assert!(name.starts_with("AgentTracing"), "{name}");
        assert!(rule["for"].is_string(), "{name} wakes somebody for a moment");
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        assert!(page.contains(&format!("| `{name}` | {severity} |")), "{PAGE} lacks {name}");
        let annotation = |of: &str| rule["annotations"][of].as_str().unwrap_or_else(|| panic!("{name} has no {of}"));
        for of in ["summary", "description"] {
            assert!(annotation(of).ends_with('.'), "{name}: {of} is no sentence");
        }
        let runbook = annotation("runbook");
        assert!(runbook.contains("kubectl ") && runbook.len() > 200, "{name}: its runbook has no command");
        assert_eq!(rule["annotations"].as_object().unwrap().len(), 3, "{name}");
    }
}

/// Grafana's own linter (github.com/grafana/dashboard-linter) is not to be had from every module proxy; these are its rules
/// that fit: its names are in the messages.
#[test]
fn the_dashboard_follows_the_rules_of_grafanas_linter() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    assert_eq!(dashboard["editable"], false, "uneditable-dashboard");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert_eq!(variables[0]["type"], "datasource", "template-datasource-rule");
    assert_eq!(variables[0]["query"], "prometheus", "template-datasource-rule");
    assert_eq!(variables[1]["name"], "job", "template-job-rule");
    assert_eq!(variables[1]["refresh"], 2, "template-on-time-change-reload-rule");
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeMap::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another one's");
        let place = |of: &str| panel["gridPos"][of].as_u64().unwrap();
        for (x, y) in (place("x")..place("x") + place("w"))
            .flat_map(|x| (place("y")..place("y") + place("h")).map(move |y| (x, y)))
        {
            assert!(x < 24, "{title} is beyond the right edge");
            assert_eq!(taken.insert((x, y), title), None, "{title} lies on another panel");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(
            !title.is_empty() && panel["description"].as_str().is_some_and(|d| d.ends_with('.')),
            "panel-title-description-rule"
        );
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}: panel-datasource-rule");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}: panel-units-rule");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}: panel-no-targets-rule");
        for target in targets {
            let expr = target["expr"].as_str().unwrap();
            let named = exposition::named_in(expr);
            assert_eq!(
                expr.matches(r#"{job=~"$job""#).count(),
                expr.matches("agent_tracing_").count(),
                "target-job-rule: {expr}"
            );
            let counts = |name: &String| name.ends_with("_total") || name.ends_with("_bucket");
            let rated = expr.contains("rate(") || expr.contains("increase(");
            assert_eq!(named.iter().any(counts), rated, "target-counter-agg-rule, promql: {expr}");
            assert_eq!(rated, expr.contains("[$__rate_interval]"), "target-rate-interval-rule: {expr}");
        }
    }
}

/// What the operator says once everything has happened.
async fn families() -> Vec<Family> {
    let metrics = std::sync::Arc::new(Metrics::default());
    let took = Duration::from_millis(1);
    metrics.leads(true);
    metrics.admission("injected", "wired", took);
    metrics.reconcile("ok", None, took);
    metrics.step(ReconcileStep::Server, took);
    metrics.certificate_expires(1_900_000_000);
    let states = BTreeMap::from([(WorkloadState::Injected, 1)]);
    metrics.tracing("bank", "tracing", &[], states, Some(Timestamp::UNIX_EPOCH));
    let router = telemetry::router(metrics, std::sync::Arc::new(Readiness::default()));
    let request = Request::get("/metrics").header(header::ACCEPT, "text/plain").body(Body::empty()).unwrap();
    let answer = router.oneshot(request).await.unwrap();
    let text = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    exposition::families(std::str::from_utf8(&text).unwrap())
}

fn updating() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

fn path(of: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(of)
}

fn read(of: &str) -> String {
    std::fs::read_to_string(path(of)).unwrap_or_else(|error| panic!("{of}: {error}"))
}

fn write(of: &str, text: &str) {
    // At once, for the tests beside it that read it.
    let new = path(&format!("{of}.new"));
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path(of)).unwrap();
}
