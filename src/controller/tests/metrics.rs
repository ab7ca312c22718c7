use super::*;

fn metric(world: &World, series: &str) -> Option<i64> {
    let text = world.ctx.options.metrics.text();
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned));
    found.map(|value| value.parse().unwrap())
}

const LAST_TRACE: &str =
    r#"agent_tracing_last_trace_timestamp_seconds{tracing_namespace="bank-agents",tracing="tracing"}"#;
const INJECTED: &str = r#"agent_tracing_workloads{state="Injected"}"#;
const READY: &str = r#"agent_tracing_agenttracings{condition="Ready",status="True"}"#;
const NOT_READY: &str = r#"agent_tracing_agenttracings{condition="Ready",status="False"}"#;

#[tokio::test]
async fn a_pass_tells_the_leaders_metrics_what_it_found_until_it_is_known_no_more() {
    let mut world = World::at_rest().await;
    world.ctx.options.metrics.leads(true);
    world.pass().await;
    assert_eq!((metric(&world, INJECTED), metric(&world, READY)), (Some(1), Some(1)));
    assert_eq!(metric(&world, LAST_TRACE), None, "there is none");
    assert!(metric(&world, r#"agent_tracing_reconcile_step_duration_seconds_count{step="status"}"#).unwrap() > 0);

    trace_at(&world, "2026-11-21T10:31:00Z").await;
    world.ctx.reconcile_states.lock().unwrap().clear();
    world.pass().await;
    let at = "2026-11-21T10:31:00Z".parse::<Timestamp>().unwrap().as_second();
    assert_eq!(metric(&world, LAST_TRACE), Some(at));

    // Wired anew it has no trace yet; that traces arrived stays true.
    world.api.edit(TELLER, json!({"metadata": {"labels": {"agenttracing.dev/inject": "false"}}}));
    world.pass().await;
    assert_eq!((metric(&world, INJECTED), metric(&world, LAST_TRACE)), (Some(0), Some(at)));

    world.api.edit(TRACING, json!({"spec": {"suspend": true}}));
    world.pass().await;
    assert_eq!((metric(&world, READY), metric(&world, NOT_READY)), (Some(0), Some(1)));
    assert_eq!(metric(&world, LAST_TRACE), None, "nobody looks any more");

    world.ctx.forget_deleted("bank-agents", "tracing");
    assert_eq!(metric(&world, NOT_READY), Some(0));
}

async fn trace_at(world: &World, at: &str) {
    let record = world.api.get(TELLER).unwrap()["spec"]["template"]["metadata"]["annotations"].clone();
    let pod =
        json!({"metadata": {"name": "teller-0", "creationTimestamp": "2026-11-21T10:30:00Z", "annotations": record}});
    world.api.put("/api/v1/namespaces/bank-agents/pods/teller-0", pod);
    let tags = json!({"mlflow.trace.spansLocation": "TRACKING_STORE"});
    let body = json!({"traces": [{"trace_id": "tr-1", "request_time": at, "state": "OK", "tags": tags}]});
    let search = Mock::given(path("/api/3.0/mlflow/traces/search"));
    search.respond_with(ResponseTemplate::new(200).set_body_json(body)).with_priority(1).mount(&world.mlflow).await;
}
