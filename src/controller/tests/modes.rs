//! The modes in which somebody else runs the server.

use super::*;

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
            world.ctx.options.trusted_hosts.insert("127.0.0.1".into());
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
    world.ctx.options.trusted_hosts.insert("127.0.0.1".into());
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
