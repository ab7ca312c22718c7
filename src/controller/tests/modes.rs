//! The modes in which somebody else runs the server.

use super::*;
use crate::api::Reason;

const BINDING: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/bank-agents/rolebindings/agenttracing-mlflow";
const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/mlflow-operator-mlflow-integration";

/// A namespace whose AgentTracing has this `spec.mlflow`.
async fn world(mlflow: Value) -> World {
    let world = World::new().await;
    let mut tracing = world.api.get(TRACING).unwrap();
    tracing["spec"] = json!({"mlflow": mlflow});
    world.api.put(TRACING, tracing);
    world
}

fn wired_to(world: &World) -> Option<String> {
    let teller = world.api.get(TELLER).unwrap();
    let env = teller["spec"]["template"]["spec"]["containers"][0]["env"].as_array()?.clone();
    let uri = env.into_iter().find(|e| e["name"] == "MLFLOW_TRACKING_URI")?;
    uri["value"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn a_listed_server_is_asked_and_an_unlisted_one_never() {
    for listed in [true, false] {
        let mut world = world(json!({})).await;
        let uri = world.mlflow.uri();
        let mut tracing = world.api.get(TRACING).unwrap();
        tracing["spec"] = json!({"mlflow": {"mode": "External", "external": {"trackingURI": uri}}});
        world.api.put(TRACING, tracing);
        if listed {
            world.ctx.options.trusted_hosts = Hosts::parse(["127.0.0.1"]).unwrap();
        }
        world.api.put(SERVER, json!({"metadata": {"name": "tracing-mlflow"}, "spec": {"template": {"spec": {}}}}));
        world.mlflow_answers().await;
        world.api.delete(SERVER);
        for _ in 0..3 {
            world.pass().await;
        }
        assert_eq!(wired_to(&world).as_deref(), Some(uri.as_str()));
        let (status, reason, message) = world.condition("MLflowReady");
        let asked = world.mlflow.received_requests().await.unwrap().len();
        match listed {
            true => assert_eq!((status.as_str(), reason.as_str(), asked > 0), ("True", "Available", true), "{message}"),
            false => {
                assert_eq!((status.as_str(), reason.as_str(), asked), ("Unknown", "NotObservable", 0), "{message}")
            }
        }
        assert!(world.api.get(CLAIM).is_none(), "there is nothing of ours to run");
    }
}

#[tokio::test]
async fn an_address_whose_api_is_elsewhere_is_told_with_the_right_one() {
    let mut world = world(json!({})).await;
    let uri = world.mlflow.uri();
    let mut tracing = world.api.get(TRACING).unwrap();
    tracing["spec"] = json!({"mlflow": {"mode": "External", "external": {"trackingURI": uri}}});
    world.api.put(TRACING, tracing);
    world.ctx.options.trusted_hosts = Hosts::parse(["127.0.0.1"]).unwrap();
    let info = ResponseTemplate::new(200).set_body_json(json!({"workspaces_enabled": false}));
    Mock::given(path("/mlflow/api/3.0/mlflow/server-info")).respond_with(info).mount(&world.mlflow).await;
    let version = ResponseTemplate::new(200).set_body_string("3.14.0");
    Mock::given(path("/mlflow/version")).respond_with(version).mount(&world.mlflow).await;
    world.pass().await;
    let (_, reason, message) = world.condition("MLflowReady");
    assert_eq!(reason, "WrongPath");
    assert!(message.contains(&format!("{uri}/mlflow")), "{message}");
    assert_eq!(wired_to(&world), None);
}

#[tokio::test]
async fn the_binding_follows_the_role_is_healed_and_proven() {
    let mut world = world(json!({"mode": "CR"})).await;
    world.pass().await;
    assert_eq!(world.reason("MLflowReady"), "MLflowCRDMissing");
    assert_eq!(world.reason("RBACReady"), "ClusterRoleMissing");
    assert!(world.api.get(BINDING).is_none(), "OpenShift refuses a binding to a role that does not exist");

    world.api.put(ROLE, json!({"metadata": {"name": "mlflow-operator-mlflow-integration"}}));
    world.pass().await;
    assert_eq!(world.reason("RBACReady"), "Bound");
    assert_eq!(world.status()["serviceAccounts"], json!(["default"]));
    let bound = world.api.get(BINDING).unwrap();
    world.pass().await; // what the agent waits for is another thing now
    world.api.take_writes();
    world.pass().await;
    assert_eq!(world.api.take_writes(), Vec::<String>::new(), "at rest");

    let mut edited = bound.clone();
    edited["subjects"].as_array_mut().unwrap().push(json!({"kind": "ServiceAccount", "name": "x", "namespace": "y"}));
    world.api.put(BINDING, edited);
    world.pass().await;
    assert_eq!(world.api.get(BINDING).unwrap()["subjects"], bound["subjects"]);

    world.api.delete(BINDING);
    world.pass().await;
    assert_eq!(world.api.get(BINDING).unwrap()["subjects"], bound["subjects"]);
    assert_eq!(wired_to(&world), None, "there is no server");
}

/// The namespace's AgentTracing, as the code reads it.
fn settings(world: &World) -> crate::core::settings::Settings {
    let tracing: AgentTracing = serde_json::from_value(world.api.get(TRACING).unwrap()).unwrap();
    crate::core::settings::parse(&tracing).unwrap()
}

/// A server that answered, with a client that reaches the stand-in whatever its address says.
fn answered(world: &World) -> mlflow_server::Server {
    let client = mlflow::MlflowClient::new(&world.ctx.http().unwrap(), &world.mlflow.uri());
    mlflow_server::Server::that_answered("https://mlflow.example.com:8443", client)
}

/// What MLflow was shown.
async fn shown(world: &World) -> Vec<String> {
    let requests = world.mlflow.received_requests().await.unwrap();
    let header = |r: &wiremock::Request| r.headers.get("authorization").map(|h| h.to_str().unwrap().to_owned());
    requests.iter().filter_map(header).collect()
}

fn may_ask() -> rbac::Rights {
    rbac::Rights { verdict: None, bound: BTreeSet::new(), may_ask: true }
}

/// Review B1: the token is the observer's, whatever the mode.
#[tokio::test]
async fn mlflow_is_shown_the_observers_token_which_is_kept_and_renewed() {
    let world = world(json!({"mode": "CR"})).await;
    let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
    for (seconds, expected) in [(0, 1), (900, 1), (1900, 2)] {
        let client = mlflow_credentials::client(
            &world.ctx,
            &settings(&world),
            &mut answered(&world),
            &mut may_ask(),
            at(seconds),
        )
        .await;
        let client = client.unwrap().expect("a client");
        let _ = client.at(at(seconds)).await.unwrap().takes_otlp().await;
        let last = shown(&world).await.pop();
        assert_eq!(last.as_deref(), Some(&*format!("Bearer token-{expected}-of-agent-tracing-observer")), "{seconds}");
    }
}

/// What asks between two passes had the token of the last one, which may be a quarter of an hour old.
#[tokio::test]
async fn a_question_between_two_passes_shows_the_token_of_its_own_time() {
    let world = world(json!({"mode": "CR"})).await;
    let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
    let (settings, mut server) = (settings(&world), answered(&world));
    let client = mlflow_credentials::client(&world.ctx, &settings, &mut server, &mut may_ask(), at(0)).await.unwrap();
    let client = client.expect("a client");
    for (seconds, expected) in [(900, 1), (1900, 2), (2000, 2)] {
        let _ = client.at(at(seconds)).await.unwrap().takes_otlp().await;
        let last = shown(&world).await.pop();
        assert_eq!(last.as_deref(), Some(&*format!("Bearer token-{expected}-of-agent-tracing-observer")), "{seconds}");
    }
}

/// A workspace turns every answer of a server without them into an error 500, and nothing is in status yet.
#[tokio::test]
async fn a_server_that_has_just_said_that_it_has_no_workspaces_is_asked_without_one() {
    let world = world(json!({"mode": "CR"})).await;
    for (workspaces, expected) in [(false, None), (true, Some("bank-agents"))] {
        let mut server = answered(&world);
        server.answered.as_mut().unwrap().workspaces = workspaces;
        let (settings, now) = (settings(&world), Timestamp::now());
        let client = mlflow_credentials::client(&world.ctx, &settings, &mut server, &mut may_ask(), now).await.unwrap();
        let _ = client.expect("a client").at(now).await.unwrap().takes_otlp().await;
        let request = world.mlflow.received_requests().await.unwrap().pop().unwrap();
        let workspace = request.headers.get("x-mlflow-workspace").map(|name| name.to_str().unwrap().to_owned());
        assert_eq!(workspace.as_deref(), expected);
    }
}

/// Review B1: an install whose rights are older than the operator.
#[tokio::test]
async fn an_observer_without_a_token_is_told_and_mlflow_is_not_asked() {
    let world = world(json!({"mode": "CR"})).await;
    let token = "/api/v1/namespaces/agent-tracing-system/serviceaccounts/agent-tracing-observer/token";
    for (code, message) in [(403, "serviceaccounts/token is forbidden"), (404, "there is no such account")] {
        world.api.refuse(token, code, message);
        let mut rights = may_ask();
        let now = Timestamp::now();
        let client =
            mlflow_credentials::client(&world.ctx, &settings(&world), &mut answered(&world), &mut rights, now).await;
        assert!(client.unwrap().is_none());
        let verdict = rights.verdict.unwrap();
        assert_eq!((verdict.good, verdict.reason), (Some(false), Reason::AccessDenied));
        assert!(verdict.message.contains(message) && verdict.message.contains("kubectl get serviceaccount"));
    }
    assert_eq!(shown(&world).await, [] as [String; 0]);
}

/// Review B1: whoever may edit an AgentTracing chooses the address, in mode External and with `mlflow.cr.url`.
#[tokio::test]
async fn a_host_that_may_only_be_asked_is_shown_no_token() {
    let external = json!({"mode": "External", "external": {"trackingURI": "https://mlflow.example.com:8443"}});
    let mut world = world(external).await;
    let mut tracing = world.api.get(TRACING).unwrap();
    tracing["spec"]["auth"] = json!({"method": "TokenFile"});
    world.api.put(TRACING, tracing);
    let url = "https://mlflow.example.com:8443";
    for (trusted, shows, listed) in [
        (&["mlflow.example.com"][..], &[][..], false),
        (&["mlflow.example.com"], &["mlflow.example.com:443", "example.com"], false),
        (&[], &["mlflow.example.com:8443"], true),
    ] {
        world.ctx.options.trusted_hosts = Hosts::parse(trusted.iter().copied()).unwrap();
        world.ctx.options.token_hosts = Hosts::parse(shows.iter().copied()).unwrap();
        let mut server = answered(&world).without_token_unless_listed(&world.ctx, &settings(&world), url);
        assert_eq!(server.client.is_some(), listed);
        if !listed {
            assert_eq!((server.verdict.good, server.verdict.reason), (None, Reason::NotObservable));
            assert!(server.verdict.message.contains("list mlflow.example.com:8443 in --mlflow-token-hosts"));
            let known = server.answered.as_ref().unwrap();
            assert_eq!((known.version.as_str(), known.source.as_str()), ("3.10.1", "Unobserved"), "agents are wired");
        }
        let asked = settings(&world);
        let now = Timestamp::now();
        let client = mlflow_credentials::client(&world.ctx, &asked, &mut server, &mut may_ask(), now).await.unwrap();
        if let Some(client) = client {
            let _ = client.at(now).await.unwrap().takes_otlp().await;
        }
        assert_eq!(shown(&world).await.is_empty(), !listed);
    }
}

/// Review B1: a binding of an install in which the operator's own account was the subject.
#[tokio::test]
async fn an_earlier_binding_is_moved_to_the_observer_and_agents_stay_bound_throughout() {
    let mut world = world(json!({"mode": "CR"})).await;
    world.api.put(ROLE, json!({"metadata": {"name": "mlflow-operator-mlflow-integration"}}));
    world.pass().await;
    let mut earlier = world.api.get(BINDING).unwrap();
    let bound = earlier["subjects"].clone();
    assert_eq!(bound[0]["name"], names::OBSERVER);
    assert!(!bound.to_string().contains(names::SERVICE_ACCOUNT), "the operator's own account may write nowhere");
    earlier["subjects"][0]["name"] = json!(names::SERVICE_ACCOUNT);
    world.api.put(BINDING, earlier);
    world.api.take_writes();
    world.pass().await;
    // One write, so that there is no moment without the agents.
    assert_eq!(world.api.take_writes().into_iter().filter(|w| w.ends_with(BINDING)).collect::<Vec<_>>().len(), 1);
    assert_eq!(world.api.get(BINDING).unwrap()["subjects"], bound);
    assert_eq!(world.status()["serviceAccounts"], json!(["default"]));
}

#[tokio::test]
async fn a_binding_of_somebody_elses_is_left_alone_and_a_role_that_gives_too_little_is_told() {
    let mut world = world(json!({"mode": "CR"})).await;
    world.api.put(ROLE, json!({"metadata": {"name": "mlflow-operator-mlflow-integration"}}));
    world.api.put(
        BINDING,
        json!({"metadata": {"name": "agenttracing-mlflow"}, "roleRef": {"kind": "ClusterRole", "name": "view"}}),
    );
    world.pass().await;
    assert_eq!(world.reason("RBACReady"), "NameConflict");
    assert_eq!(world.api.get(BINDING).unwrap()["roleRef"]["name"], "view");

    world.api.delete(BINDING);
    world.api.deny_reviews();
    world.pass().await;
    assert_eq!(world.reason("RBACReady"), "Progressing", "authorization follows with a delay");
    world.pass().await;
    let (_, reason, message) = world.condition("RBACReady");
    assert_eq!(reason, "AccessDenied");
    assert!(message.contains("may not get experiments.mlflow.kubeflow.org"), "{message}");
    assert_eq!(world.status()["serviceAccounts"], Value::Null);
}
