//! What a running operator says in /metrics is what happened, in words that Prometheus' own tool accepts.

use std::io::Write;
use std::process::{Command, Stdio};

use agent_tracing::names;
use serde_json::json;

use super::mlflow::mlflow;
use super::process::{Operator, point_the_webhook_at};
use super::rest::pods;
use super::{Site, agent, is_wired};
use crate::cluster::{STRICT, read, wait_until};
use crate::exposition;

const LEADERS_OWN: [&str; 3] = ["agent_tracing_agenttracings", "agent_tracing_workloads", "agent_tracing_last_trace"];

#[test]
#[ignore = "needs an API server: make test"]
#[expect(clippy::too_many_lines, reason = "a table")]
fn metrics_count_exactly_what_happened_and_only_the_leader_adds_up() {
    let mut site = Site::open("operator-metrics");
    let ns = site.namespace.0.clone();
    site.admin.create(&agent(&ns, "teller"), STRICT).unwrap();
    wait_until("its row", || site.row("teller").is_some());
    wait_until("its experiment", || {
        site.admin.live(&site.tracing())["status"]["experiments"].to_string().contains("teller")
    });
    // What began before its pod was made is not its trace.
    wait_until("its pod", || pods(&site.admin, &ns).iter().any(|pod| pod["metadata"]["labels"]["app"] == "teller"));
    let last = mlflow().receive_trace(&site.url(), "teller").as_second() as f64;
    wait_until("its trace is seen", || site.row("teller").is_some_and(|row| row["lastTraceTime"].is_string()));
    // Counters that nobody else has touched.
    site.stop_operator();
    site.start_operator();
    let second = Operator::start_beside("operator-metrics-second");
    let leader = || site.operator();
    wait_until("the first one leads", || leader().leads());
    wait_until("the first pass", || leader().metric("agent_tracing_reconciles_total{") > 0.0);
    assert_eq!(leader().metric(r#"agent_tracing_workloads{state="RollingOut"}"#), 1.0);
    assert_eq!(leader().metric(r#"agent_tracing_workloads{"#), 1.0, "in one state");
    assert_eq!(leader().metric(r#"agent_tracing_agenttracings{condition="InjectionReady",status="True"}"#), 1.0);
    let last_trace =
        format!(r#"agent_tracing_last_trace_timestamp_seconds{{tracing_namespace="{ns}",tracing="tracing"}}"#);
    assert_eq!(leader().metric(&last_trace), last);

    // Admissions.
    assert_eq!(leader().metric("agent_tracing_admissions_total"), 0.0);
    let asked = jiff::Timestamp::now().as_second() as f64;
    for name in ["first", "second", "third"] {
        assert!(is_wired(&site.dry_run(&agent(&ns, name))));
    }
    let mut out = agent(&ns, "out");
    out["metadata"]["labels"][names::LABEL_INJECT] = json!("false");
    assert!(!is_wired(&site.dry_run(&out)));
    for (series, value) in [
        (r#"agent_tracing_admissions_total{result="injected","#, 3.0),
        (r#"agent_tracing_admissions_total{result="left",reason="OptedOut"}"#, 1.0),
        ("agent_tracing_admissions_total{", 4.0),
        ("agent_tracing_admission_duration_seconds_count", 4.0),
        (r#"agent_tracing_admission_duration_seconds_bucket{le="5.0"}"#, 4.0),
        ("agent_tracing_admissions_in_flight ", 0.0),
        ("agent_tracing_repairs_total", 0.0),
        ("agent_tracing_rollouts_total", 0.0),
    ] {
        assert_eq!(leader().metric(series), value, "{series}");
    }
    let answered = leader().metric("agent_tracing_last_admission_timestamp_seconds");
    assert!((asked..asked + 60.0).contains(&answered), "{answered} is not after {asked}");
    assert_eq!(second.metric("agent_tracing_admissions_total"), 0.0, "nobody asked the other one");

    // A repair and a removal by the controller alone.
    point_the_webhook_at(1);
    wait_until("nobody is asked any more", || !is_wired(&site.dry_run(&agent(&ns, "probe"))));
    strip(&site, "teller");
    wait_until("it is wired again", || is_wired(&site.deployment("teller")));
    wait_until("it is counted", || leader().metric("agent_tracing_repairs_total") > 0.0);
    site.kubectl(&["label", "deployment/teller", &format!("{}=false", names::LABEL_INJECT)], "").unwrap();
    wait_until("the wiring is out", || !is_wired(&site.deployment("teller")));
    wait_until("status says so", || leader().metric(r#"agent_tracing_workloads{state="Skipped"}"#) == 1.0);
    for (series, value) in [
        ("agent_tracing_repairs_total", 1.0),
        ("agent_tracing_unanswered_touches_total", 1.0),
        ("agent_tracing_removals_total", 1.0),
        ("agent_tracing_rollouts_total", 2.0),
        ("agent_tracing_workloads{", 1.0),
        (&*last_trace, last),
    ] {
        assert_eq!(leader().metric(series), value, "{series}");
    }

    assert!(leader().metric(r#"agent_tracing_mlflow_requests_total{outcome="ok"}"#) > 0.0, "MLflow was asked");
    site.lose_the_node();
    wait_until("the status says so", || site.condition("MLflowReady").is_some_and(|c| c["status"] == "False"));

    let (of_leader, of_second) = (leader().scrape("text/plain"), second.scrape("text/plain"));
    agrees_with_itself(&of_leader);
    agrees_with_the_documentation(&of_leader);
    for name in LEADERS_OWN {
        assert!(of_leader.contains(name) && !of_second.contains(name), "{name}");
    }
    for text in [&of_leader, &of_second] {
        let said = promtool(&["check", "metrics"], text);
        assert_eq!(said, "", "promtool is not content");
        assert!(!text.contains("127.0.0.1") && !text.contains("http"), "no address:\n{text}");
    }
    for operator in [leader(), &second] {
        prometheus_reads(&operator.scrape("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"));
    }

    // The other one takes over, and the AgentTracing goes.
    let tracing = site.tracing();
    let admin = crate::cluster::Cluster::admin();
    site.stop_operator();
    wait_until("the other one adds up", || {
        second.leads() && second.metric(r#"agent_tracing_workloads{state="Skipped"}"#) == 1.0
    });
    admin.delete("AgentTracing", &ns, tracing["metadata"]["name"].as_str().unwrap());
    wait_until("nothing is left of it", || {
        second.metric("agent_tracing_workloads{") == 0.0 && second.metric("agent_tracing_agenttracings{") == 0.0
    });
    second.stop();
}

/// Somebody brings back the template of before.
fn strip(site: &Site, name: &str) {
    let bare = site.stored_elsewhere(&agent(&site.namespace.0, name));
    wait_until("it is stripped", || {
        let mut live = site.deployment(name);
        live["spec"]["template"] = bare["spec"]["template"].clone();
        // Its status may have been written in between.
        site.admin.replace(&live, STRICT).is_ok()
    });
}

/// One event is never counted in one metric and missed in another.
fn agrees_with_itself(text: &str) {
    let values = exposition::values(text);
    let sum =
        |of: &str| values.iter().filter(|(series, _)| series.starts_with(of)).map(|(_, value)| value).sum::<f64>();
    for (total, count) in [
        ("agent_tracing_admissions_total", "agent_tracing_admission_duration_seconds_count"),
        ("agent_tracing_reconciles_total", "agent_tracing_reconcile_duration_seconds_count"),
        ("agent_tracing_mlflow_requests_total", "agent_tracing_mlflow_request_duration_seconds_count"),
    ] {
        assert_eq!(sum(total), sum(count), "{total}, {count}");
    }
    let failed = sum("agent_tracing_reconciles_total") - sum(r#"agent_tracing_reconciles_total{outcome="ok"}"#);
    assert_eq!(sum("agent_tracing_reconcile_errors_total"), failed, "each in one step");
    let expires = sum("agent_tracing_webhook_certificate_expiry_timestamp_seconds");
    assert!(expires > jiff::Timestamp::now().as_second() as f64 && expires < 4e9, "{expires}");
}

/// Reference, alerts and dashboard know these metrics and no other.
fn agrees_with_the_documentation(text: &str) {
    let families = exposition::families(text);
    let table = exposition::table(&families);
    assert!(
        read("docs/reference/metrics.md").contains(&table),
        "the table in docs/reference/metrics.md is not\n{table}"
    );
    let exist: Vec<_> = families.iter().flat_map(|family| &family.samples).collect();
    for file in ["alerts.yaml", "dashboard.json"] {
        for name in exposition::named_in(&read(&format!("charts/agent-tracing-operator/files/{file}"))) {
            assert!(exist.contains(&&name), "{file} names {name}");
        }
    }
}

/// With its own parser of OpenMetrics, which for this purpose wants a time at each sample.
fn prometheus_reads(text: &str) {
    assert!(text.ends_with("# EOF\n") && text.contains("# UNIT "), "no OpenMetrics:\n{text}");
    let timed = |line: &str| if line.starts_with('#') { format!("{line}\n") } else { format!("{line} 1700000000\n") };
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("openmetrics");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("metrics.txt");
    std::fs::write(&file, text.lines().map(timed).collect::<String>()).unwrap();
    let [file, blocks] = [file, folder.join("blocks")].map(|path| path.to_str().unwrap().to_owned());
    promtool(&["tsdb", "create-blocks-from", "openmetrics", "--quiet", &file, &blocks], "");
}

/// What promtool has to say, once it is content.
fn promtool(args: &[&str], stdin: &str) -> String {
    let program = std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    let mut child = Command::new(&program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "cannot run {program}: {error}; build it with `tests/cluster/binaries.sh promtool`, then set PROMTOOL"
            )
        });
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "promtool {args:?}: {said}");
    said
}
