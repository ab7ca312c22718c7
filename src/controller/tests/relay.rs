//! The relay: brought about, wired to, taken away.

use super::*;

const PLACE: &str = "namespaces/bank-agents";
const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/mlflow-operator-mlflow-integration";
const BINDING: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/bank-agents/rolebindings/agenttracing-mlflow";

fn pods() -> String {
    format!("/apis/apps/v1/{PLACE}/statefulsets/tracing-relay")
}

/// Every object of a relay.
fn objects() -> [String; 7] {
    let rbac = format!("/apis/rbac.authorization.k8s.io/v1/{PLACE}");
    [
        pods(),
        format!("/api/v1/{PLACE}/services/tracing-relay"),
        format!("/api/v1/{PLACE}/serviceaccounts/tracing-relay"),
        format!("/apis/networking.k8s.io/v1/{PLACE}/networkpolicies/tracing-relay"),
        format!("/apis/policy/v1/{PLACE}/poddisruptionbudgets/tracing-relay"),
        format!("{rbac}/roles/agenttracing-relay"),
        format!("{rbac}/rolebindings/agenttracing-relay"),
    ]
}

fn env(world: &World, name: &str) -> Option<String> {
    let teller = world.api.get(TELLER).unwrap();
    let env = teller["spec"]["template"]["spec"]["containers"][0]["env"].as_array()?.clone();
    env.into_iter().find(|e| e["name"] == name)?["value"].as_str().map(str::to_owned)
}

async fn passes(world: &mut World, count: usize) {
    for _ in 0..count {
        world.pass().await;
    }
}

#[tokio::test]
async fn agents_are_wired_to_a_relay_that_was_ready_once_and_it_goes_after_them() {
    let mut world = World::new().await;
    world.api.edit(TRACING, json!({"spec": {"otlp": {"mode": "Relay"}, "relay": {"replicas": 2}}}));
    world.pass().await;
    for object in objects() {
        assert!(world.api.get(&object).is_some(), "{object}");
    }
    world.mlflow_answers().await;
    passes(&mut world, 2).await;
    assert_eq!(world.reason("RelayReady"), "Progressing");
    assert_eq!(env(&world, "MLFLOW_TRACKING_URI"), None, "the relay has never been ready");

    world.api.edit(&pods(), json!({"status": {"readyReplicas": 1}}));
    passes(&mut world, 2).await;
    assert_eq!(world.condition("RelayReady").0, "True");
    let endpoint = "http://tracing-relay.bank-agents.svc:4318/w/deployment/teller/v1/traces";
    assert_eq!(env(&world, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").as_deref(), Some(endpoint));

    // One that is away for a moment is told and rolls nobody.
    world.api.edit(&pods(), json!({"status": {"readyReplicas": 0}}));
    world.api.take_writes();
    passes(&mut world, 2).await;
    assert_eq!(world.reason("Ready"), "Progressing");
    assert_eq!(world.api.writes_to(TELLER), 0);
    world.api.edit(&pods(), json!({"status": {"readyReplicas": 2}}));
    world.pass().await;
    world.api.take_writes();
    world.pass().await;
    assert_eq!(world.api.take_writes(), Vec::<String>::new(), "at rest");

    // Nothing wants it any more, and the agent still sends to it.
    world.api.webhook(false);
    world.api.edit(TRACING, json!({"spec": {"otlp": null, "relay": null}}));
    world.ctx.reconcile_states.lock().unwrap().clear();
    world.api.edit(TELLER, json!({"spec": {"paused": true}}));
    world.pass().await;
    assert!(world.api.get(&pods()).is_some(), "who was wired to it must not lose it");
    world.api.webhook(true);
    world.api.edit(TELLER, json!({"spec": {"paused": false}}));
    passes(&mut world, 3).await;
    assert_eq!(env(&world, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), None);
    world.api.edit(
        TELLER,
        json!({"status": {
            "observedGeneration": 9, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1,
        }}),
    );
    passes(&mut world, 2).await;
    for object in objects() {
        assert!(world.api.get(&object).is_none(), "{object}");
    }
    assert_eq!(world.status()["relay"], Value::Null);
    let conditions = world.status()["conditions"].to_string();
    assert!(!conditions.contains("RelayReady"), "{conditions}");
}

#[tokio::test]
async fn who_has_no_relay_is_asked_for_none() {
    let mut world = World::at_rest().await;
    world.pass().await;
    for object in objects() {
        assert!(world.api.get(&object).is_none(), "{object}");
    }
}

#[tokio::test]
async fn the_relay_alone_is_bound_where_it_writes_for_all() {
    let mut world = World::new().await;
    let mut tracing = world.api.get(TRACING).unwrap();
    tracing["spec"] = json!({"mlflow": {"mode": "CR"}, "auth": {"method": "TokenFile"}});
    world.api.put(TRACING, tracing);
    world.api.put(ROLE, json!({"metadata": {"name": "mlflow-operator-mlflow-integration"}}));
    let subjects = |world: &World| {
        let binding = world.api.get(BINDING).unwrap();
        let names = binding["subjects"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    world.pass().await;
    assert_eq!(subjects(&world), ["agent-tracing-observer", "default"]);
    world.api.edit(TRACING, json!({"spec": {"auth": {"method": "Relay"}}}));
    world.pass().await;
    assert_eq!(subjects(&world), ["agent-tracing-observer", "tracing-relay"]);
    assert_eq!(world.status()["serviceAccounts"], Value::Null, "nobody's account has to wait");
    assert!(world.condition("RBACReady").2.contains("and of the relay"), "{:?}", world.condition("RBACReady"));
    world.api.edit(TRACING, json!({"spec": {"auth": {"method": "TokenFile"}, "otlp": {"mode": "Relay"}}}));
    world.pass().await;
    assert_eq!(subjects(&world), ["agent-tracing-observer", "default", "tracing-relay"]);
}

#[tokio::test]
async fn a_namesake_of_the_relay_is_left_alone_and_named() {
    let mut world = World::new().await;
    world.api.edit(TRACING, json!({"spec": {"otlp": {"mode": "Relay"}}}));
    let theirs = json!({
        "metadata": {"name": "tracing-relay", "namespace": "bank-agents"},
        "spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "x"}]}}},
    });
    world.api.put(&pods(), theirs);
    world.pass().await;
    assert_eq!(world.reason("RelayReady"), "NameConflict");
    assert_eq!(world.api.writes_to(&pods()), 0);
}

/// An agent is wired to a relay of one pod, whose `/evidence` is this server's.
async fn with_relay() -> (World, MockServer) {
    let mut world = World::new().await;
    let relay = MockServer::start().await;
    world.ctx.relays.port = relay.address().port();
    world.api.edit(TRACING, json!({"spec": {"otlp": {"mode": "Relay"}}}));
    world.pass().await;
    world.mlflow_answers().await;
    let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "tracing-relay", "uid": "u", "controller": true});
    let pod = json!({
        "metadata": {"name": "tracing-relay-0", "namespace": "bank-agents", "ownerReferences": [owner]},
        "status": {"podIP": "127.0.0.1", "hostIP": "192.0.2.1", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    world.api.put(&format!("/api/v1/{PLACE}/pods/tracing-relay-0"), pod);
    world.api.edit(&pods(), json!({"status": {"readyReplicas": 1}}));
    passes(&mut world, 3).await;
    world.api.edit(
        TELLER,
        json!({"status": {
            "observedGeneration": 9, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1,
        }}),
    );
    super::traces::put_pod(&world);
    passes(&mut world, 2).await;
    (world, relay)
}

/// From now on the relay knows this, and is asked. Says whether the AgentTracing is woken.
async fn knows(world: &World, relay: &MockServer, evidence: Value) -> bool {
    relay.reset().await;
    Mock::given(path("/evidence")).respond_with(ResponseTemplate::new(200).set_body_json(evidence)).mount(relay).await;
    while world.ctx.wakeups.next().now_or_never().is_some() {}
    world.ctx.relays.ask_all().await;
    world.ctx.wakeups.next().now_or_never().is_some()
}

/// What is known of the agent, and what holds it up.
fn teller(held: u64, last_forwarded: Option<&str>, cause: Option<&str>, spool: u64) -> Value {
    let since = (Timestamp::now() - jiff::SignedDuration::from_secs(60)).to_string();
    json!({
        "workloads": {"deployment/teller": {"accepted": 40, "forwarded": 40 - held, "held": held, "lastForwarded": last_forwarded}},
        "held": cause.map(|cause| json!({"cause": cause, "since": since})),
        "spool": {"bytes": spool, "limit": 100},
    })
}

async fn searches(world: &World) -> usize {
    let asked = world.mlflow.received_requests().await.unwrap();
    asked.iter().filter(|request| request.url.path().ends_with("/traces/search")).count()
}

#[tokio::test]
async fn what_the_relay_holds_is_told_and_what_mlflow_took_is_evidence() {
    let (mut world, relay) = with_relay().await;
    assert_eq!(world.condition("RelayReady").0, "True");
    let held = teller(40, None, Some("Forbidden"), 10);
    assert!(knows(&world, &relay, held.clone()).await, "news");
    world.pass().await;
    let (status, reason, message) = world.condition("TracesFlowing");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "TracesHeld"));
    assert!(message.contains("at least 20 requests of deployment/teller (20)"), "{message}");
    assert_eq!(world.reason("RelayReady"), "RelayRefused");
    assert_eq!(world.condition("Ready").0, "False");
    let notes = world.status()["workloads"][0]["notes"].to_string();
    assert!(notes.contains("TracesHeld: its traces wait in the relay (Forbidden)"), "{notes}");

    world.api.take_writes();
    assert!(!knows(&world, &relay, held).await, "one request more is no news");
    world.pass().await;
    assert_eq!(world.api.take_writes(), Vec::<String>::new(), "at rest");

    let taken = || teller(0, Some("2026-11-21T10:31:00Z"), None, 0);
    assert!(knows(&world, &relay, taken()).await, "news");
    world.pass().await;
    assert_eq!(world.reason("TracesFlowing"), "TracesReceived");
    assert_eq!(world.condition("RelayReady").0, "True");
    assert_eq!(world.status()["workloads"][0]["lastTraceTime"], "2026-11-21T10:31:00Z");

    // The relay counts since its start, the status goes on.
    knows(&world, &relay, json!({"workloads": {}, "spool": {"bytes": 0, "limit": 100}})).await;
    world.pass().await;
    assert_eq!(world.reason("TracesFlowing"), "TracesReceived");
    assert_eq!(world.status()["workloads"][0]["lastTraceTime"], "2026-11-21T10:31:00Z");
}

#[tokio::test]
async fn mlflow_is_not_searched_for_what_the_relay_knows_and_is_while_it_does_not_answer() {
    let (mut world, relay) = with_relay().await;
    assert!(searches(&world).await > 0, "the relay has not answered yet");
    knows(&world, &relay, teller(0, None, None, 0)).await;
    let before = searches(&world).await;
    for answers in [true, false] {
        if !answers {
            relay.reset().await;
        }
        world.restart(UNTIL_IT_COMES);
        world.ctx.relays.port = relay.address().port();
        passes(&mut world, 2).await;
        assert_eq!(searches(&world).await > before, !answers);
    }
}

#[tokio::test]
async fn a_spool_that_fills_up_is_told_before_it_is_full() {
    let (mut world, relay) = with_relay().await;
    knows(&world, &relay, teller(0, None, None, 79)).await;
    world.pass().await;
    assert_eq!(world.reason("RelayReady"), "Available");
    assert!(knows(&world, &relay, teller(40, None, Some("Unreachable"), 86)).await);
    world.pass().await;
    let (status, reason, message) = world.condition("RelayReady");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "SpoolFull"));
    assert!(message.contains("85 % full") && message.contains("(Unreachable)"), "{message}");
}
