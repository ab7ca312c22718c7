use super::*;
use crate::telemetry::tracings::MAX_NAMED;

fn condition(kind: &str, status: &str) -> Condition {
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time("2026-03-01T12:00:00Z".parse().unwrap());
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: "Any".to_owned(),
        message: String::new(),
        observed_generation: None,
        last_transition_time: now,
    }
}

fn see(metrics: &Metrics, name: &str, injected: usize, last_trace: Option<i64>) {
    let conditions = [condition("Ready", "True"), condition("MLflowReady", "False"), condition("Foreign", "True")];
    let states = BTreeMap::from([(WorkloadState::Injected, injected), (WorkloadState::Halted, 1)]);
    let last_trace = last_trace.map(|at| Timestamp::from_second(at).unwrap());
    metrics.tracing("bank", name, &conditions, states, last_trace);
}

/// Whether the metrics have these lines.
#[track_caller]
fn says(metrics: &Metrics, lines: &[&str]) {
    let text = metrics.text();
    for line in lines {
        assert!(text.lines().any(|l| l == *line), "{line} is missing in\n{text}");
    }
}

#[test]
fn what_happens_is_counted_and_timed() {
    let metrics = Metrics::default();
    metrics.admission("injected", "wired", Duration::from_micros(80));
    metrics.reconcile("ok", None, Duration::from_millis(20));
    metrics.reconcile("apply", Some(ReconcileStep::Rollout), Duration::from_millis(20));
    metrics.step(ReconcileStep::Status, Duration::from_millis(6));
    metrics.wired(true, true);
    metrics.wired(false, true);
    metrics.wired(true, false);
    metrics.removed(true);
    metrics.unanswered();
    metrics.mlflow(Outcome::Timeout, Duration::from_secs(5));
    metrics.certificate_expires(1_900_000_000);
    drop(metrics.in_flight());
    says(
        &metrics,
        &[
            r#"agent_tracing_admissions_total{result="injected",reason="wired"} 1"#,
            r#"agent_tracing_admission_duration_seconds_bucket{le="0.0001"} 1"#,
            "agent_tracing_admissions_in_flight 0",
            r#"agent_tracing_reconciles_total{outcome="ok"} 1"#,
            r#"agent_tracing_reconciles_total{outcome="apply"} 1"#,
            "agent_tracing_reconcile_duration_seconds_count 2",
            r#"agent_tracing_reconcile_errors_total{step="rollout"} 1"#,
            r#"agent_tracing_reconcile_errors_total{step="server"} 0"#,
            r#"agent_tracing_reconcile_step_duration_seconds_bucket{le="0.01",step="status"} 1"#,
            "agent_tracing_repairs_total 2",
            "agent_tracing_rollouts_total 3",
            "agent_tracing_removals_total 1",
            "agent_tracing_unanswered_touches_total 1",
            r#"agent_tracing_mlflow_requests_total{outcome="timeout"} 1"#,
            r#"agent_tracing_mlflow_requests_total{outcome="ok"} 0"#,
            r#"agent_tracing_mlflow_request_duration_seconds_bucket{le="5.0"} 1"#,
            "agent_tracing_leader 0",
            "agent_tracing_webhook_certificate_expiry_timestamp_seconds 1900000000",
            "# EOF",
        ],
    );
}

#[test]
fn a_moment_that_has_not_come_is_not_told() {
    let metrics = Metrics::default();
    for name in ["last_admission_timestamp", "certificate_expiry"] {
        assert!(!metrics.text().contains(name), "1970 would be believed: {name}");
    }
    let before = Timestamp::now().as_second();
    metrics.admission("left", "NotReady", Duration::ZERO);
    let text = metrics.text();
    let last = text.lines().find_map(|line| line.strip_prefix("agent_tracing_last_admission_timestamp_seconds "));
    assert!((before..=Timestamp::now().as_second()).contains(&last.unwrap().parse().unwrap()));
}

#[test]
fn the_leader_adds_up_what_its_passes_found() {
    let metrics = Metrics::default();
    metrics.leads(true);
    see(&metrics, "first", 3, Some(1_700_000_000));
    see(&metrics, "second", 9, None);
    see(&metrics, "second", 4, None);
    says(
        &metrics,
        &[
            "agent_tracing_leader 1",
            r#"agent_tracing_workloads{state="Injected"} 7"#,
            r#"agent_tracing_workloads{state="Halted"} 2"#,
            r#"agent_tracing_workloads{state="Contested"} 0"#,
            r#"agent_tracing_agenttracings{condition="Ready",status="True"} 2"#,
            r#"agent_tracing_agenttracings{condition="MLflowReady",status="False"} 2"#,
            r#"agent_tracing_agenttracings{condition="MLflowReady",status="True"} 0"#,
            r#"agent_tracing_last_trace_timestamp_seconds{tracing_namespace="bank",tracing="first"} 1700000000"#,
            "agent_tracing_last_trace_omitted 0",
        ],
    );
    let text = metrics.text();
    assert!(!text.contains("Foreign") && !text.contains(r#"tracing="second""#), "{text}");

    metrics.tracing_is_gone("bank", "first");
    says(&metrics, &[r#"agent_tracing_workloads{state="Injected"} 4"#]);
    assert!(!metrics.text().contains(r#"tracing="first""#));
}

#[test]
fn who_does_not_lead_says_nothing_of_the_agent_tracings() {
    let metrics = Metrics::default();
    let silent = |when| {
        see(&metrics, "late", 1, Some(1_700_000_000));
        let text = metrics.text();
        for name in ["agent_tracing_workloads", "agent_tracing_agenttracings", "agent_tracing_last_trace"] {
            assert!(!text.contains(name), "{when}: {text}");
        }
    };
    silent("before it leads");
    metrics.leads(true);
    see(&metrics, "early", 1, Some(1_700_000_000));
    metrics.leads(false);
    silent("after it led");
    metrics.leads(true);
    says(&metrics, &[r#"agent_tracing_workloads{state="Injected"} 0"#]);
}

#[test]
fn however_many_agent_tracings_there_are_few_are_named() {
    let metrics = Metrics::default();
    metrics.leads(true);
    for number in 0..MAX_NAMED + 3 {
        see(&metrics, &format!("tracing-{number:03}"), 1, Some(1_700_000_000));
    }
    see(&metrics, "silent", 1, None);
    let text = metrics.text();
    let named = text.lines().filter(|line| line.contains("tracing=")).count();
    assert_eq!(named, MAX_NAMED);
    assert!(!text.contains("tracing-200"), "the first by name, so that they stay the same");
    says(&metrics, &["agent_tracing_last_trace_omitted 3", r#"agent_tracing_workloads{state="Injected"} 204"#]);
}
