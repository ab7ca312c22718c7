//! What is said of traces, and what a new leader goes on with.

use wiremock::matchers::body_string_contains;

use super::*;

/// The agent has a pod of its current wiring.
pub(super) fn put_pod(world: &World) {
    let record = world.api.get(TELLER).unwrap()["spec"]["template"]["metadata"]["annotations"].clone();
    let pod =
        json!({"metadata": {"name": "teller-0", "creationTimestamp": "2026-11-21T10:30:00Z", "annotations": record}});
    world.api.put("/api/v1/namespaces/bank-agents/pods/teller-0", pod);
}

/// The newest trace began then; of several the lowest priority counts.
fn trace(at: &str, priority: u8) -> Mock {
    let tags = json!({"mlflow.trace.spansLocation": "TRACKING_STORE"});
    let body = json!({"traces": [{"trace_id": "tr-1", "request_time": at, "state": "OK", "tags": tags}]});
    let template = ResponseTemplate::new(200).set_body_json(body);
    Mock::given(path("/api/3.0/mlflow/traces/search")).respond_with(template).with_priority(priority)
}

/// MLflow knows the experiment of the agent.
fn experiment_exists() -> Mock {
    let found = json!({"experiments": [{"experiment_id": "4", "name": "teller", "lifecycle_stage": "active"}]});
    let template = ResponseTemplate::new(200).set_body_json(found);
    Mock::given(path("/api/2.0/mlflow/experiments/search")).respond_with(template).with_priority(1)
}

#[tokio::test]
async fn a_trace_with_spans_makes_it_ready_and_is_written_once() {
    let mut world = World::at_rest().await;
    put_pod(&world);
    let fresh = |world: &mut World| world.ctx.reconcile_states.lock().unwrap().clear();

    trace("2026-11-21T10:29:59Z", 3).mount(&world.mlflow).await;
    fresh(&mut world);
    world.pass().await;
    assert_eq!(world.reason("TracesFlowing"), "NoTracesFrom");

    trace("2026-11-21T10:31:00Z", 2).mount(&world.mlflow).await;
    fresh(&mut world);
    world.pass().await;
    assert_eq!(world.reason("Ready"), "TracesReceived");
    assert_eq!(world.status()["workloads"][0]["lastTraceTime"], "2026-11-21T10:31:00Z");

    trace("2026-11-21T10:32:00Z", 1).mount(&world.mlflow).await;
    world.api.take_writes();
    world.pass().await;
    assert_eq!(world.api.take_writes(), Vec::<String>::new());

    fresh(&mut world);
    world.pass().await;
    assert_eq!(world.status()["workloads"][0]["lastTraceTime"], "2026-11-21T10:32:00Z");
}

/// A new leader said that traces arrive and that MLflow writes, until it had found out again that neither is so.
#[tokio::test]
async fn a_new_leader_goes_on_with_traces_that_have_stopped_and_with_writes_that_fail() {
    let mut world = World::at_rest().await;
    put_pod(&world);
    experiment_exists().mount(&world.mlflow).await;
    trace("2026-11-21T10:31:00Z", 3).mount(&world.mlflow).await;
    world.restart(UNTIL_IT_COMES);
    world.pass().await;
    assert_eq!(world.reason("TracesFlowing"), "TracesReceived");

    let mut status = world.status();
    status["workloads"][0]["notes"] =
        json!(["TracesStopped: the last one of its experiment began at 2026-11-21T10:31:00Z"]);
    let told =
        "MLflow answers at http://m, but it does not write (it answers 500), so that it loses every trace; read why: x";
    for condition in status["conditions"].as_array_mut().unwrap() {
        if condition["type"] == "MLflowReady" {
            (condition["status"], condition["reason"]) = (json!("False"), json!("WritesRefused"));
            condition["message"] = json!(told);
        }
    }
    world.api.edit(TRACING, json!({"status": status}));
    for patience in [Duration::ZERO, UNTIL_IT_COMES] {
        world.restart(patience);
        world.pass().await;
        assert_eq!(world.reason("TracesFlowing"), "TracesStopped", "{patience:?}");
        assert_eq!(world.reason("MLflowReady"), "WritesRefused", "{patience:?}");
    }

    let told = world.status();
    trace("2026-11-21T10:40:00Z", 2).mount(&world.mlflow).await;
    world.restart(UNTIL_IT_COMES);
    world.pass().await;
    assert_eq!(world.reason("TracesFlowing"), "TracesReceived");
    assert_eq!(world.condition("MLflowReady").0, "True");

    // Of another database, in which the experiment has to be made anew, the status says nothing.
    world.api.edit(TRACING, json!({"status": told}));
    world.mlflow.reset().await;
    world.mlflow_answers().await;
    trace("2026-11-21T10:20:00Z", 1).mount(&world.mlflow).await;
    world.restart(UNTIL_IT_COMES);
    world.pass().await;
    assert_eq!(world.reason("TracesFlowing"), "NoTracesFrom");
    assert_eq!(world.condition("MLflowReady").0, "True");
}

/// Whoever asks for the newest trace alone sees one that is too young to be told spanless, again and again.
#[tokio::test]
async fn a_busy_agent_whose_spans_are_refused_is_told() {
    let mut world = World::at_rest().await;
    put_pod(&world);
    let now = Timestamp::now();
    let spanless = |seconds: i64| {
        let at = (now - jiff::SignedDuration::from_secs(seconds)).to_string();
        let body = json!({"traces": [{"trace_id": "tr-1", "request_time": at, "state": "OK"}]});
        ResponseTemplate::new(200).set_body_json(body)
    };
    let search = || Mock::given(path("/api/3.0/mlflow/traces/search"));
    search().respond_with(spanless(1)).with_priority(3).mount(&world.mlflow).await;
    world.ctx.reconcile_states.lock().unwrap().clear();
    world.pass().await;
    assert_eq!(world.condition("Ready").0, "True", "its spans may still be on their way");

    let older = search().and(body_string_contains("timestamp_ms < ")).respond_with(spanless(90));
    older.with_priority(2).mount(&world.mlflow).await;
    world.ctx.reconcile_states.lock().unwrap().clear();
    world.pass().await;
    assert_eq!(world.reason("TracesFlowing"), "TracesWithoutSpans");
    assert_eq!(world.condition("Ready").0, "False");
}
