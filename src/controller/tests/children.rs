//! The objects that the operator owns, whatever their kind and name (review 3.2(3)).

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;
use crate::core::children::child::{Adopt, Child, Owners, TracingOwner};

const AUTHORITIES: &str = "/api/v1/namespaces/bank-agents/configmaps/agenttracing-ca";

fn deployment(name: &str) -> Child {
    let owner = TracingOwner { name: "tracing".to_owned(), uid: "uid-of-tracing".to_owned() };
    let (name, namespace) = (Some(name.to_owned()), Some("bank-agents".to_owned()));
    let metadata = ObjectMeta { name, namespace, ..ObjectMeta::default() };
    let deployment = Deployment { metadata, ..Deployment::default() };
    Child::new(deployment, &Owners::Controller(owner.clone()), Adopt::OfTracing(owner))
}

/// Review 4(b): refusals were kept by kind, so that of a second Deployment took the place of the first one's.
#[tokio::test]
async fn two_of_a_kind_that_are_refused_are_tried_once_each() {
    let world = World::new().await;
    let mut refusals = apply::Refusals::new();
    let paths = ["relay", "mlflow"].map(|name| SERVER.replace("tracing-mlflow", name));
    for path in &paths {
        world.api.refuse(path, 422, "Deployment is invalid: spec.x: Invalid value");
    }
    for _ in 0..3 {
        for name in ["relay", "mlflow"] {
            let child = deployment(name);
            let obstacle = apply::child(&world.ctx, &child, None, &mut refusals).await.unwrap().obstacle().unwrap();
            assert!(obstacle.message.starts_with(&format!("The API server refuses Deployment {name} (")));
        }
    }
    assert_eq!(paths.map(|path| world.api.writes_to(&path)), [1, 1]);
}

/// Review 3.2(3): it had neither, as it was written by code of its own.
#[tokio::test]
async fn the_authorities_are_healed_and_what_is_invalid_is_tried_once() {
    let mut world = World::new().await;
    world.api.edit(TRACING, json!({"spec": {"caBundle": {"mode": "Always", "strategy": "ConfigMap"}}}));
    world.api.refuse(AUTHORITIES, 422, "ConfigMap is invalid: data: Too long");
    world.pass().await;
    world.pass().await;
    assert_eq!(world.api.writes_to(AUTHORITIES), 1);
    assert_eq!(world.reason("InjectionReady"), "CreateForbidden");

    world.api.refuse(AUTHORITIES, 422, "");
    world.ctx.reconcile_states.lock().unwrap().clear();
    world.pass().await;
    let applied = world.api.get(AUTHORITIES).unwrap();
    world.api.edit(AUTHORITIES, json!({"metadata": {"labels": {"app.kubernetes.io/part-of": "theirs"}}}));
    world.pass().await;
    assert_eq!(world.api.get(AUTHORITIES).unwrap()["metadata"]["labels"], applied["metadata"]["labels"]);
    world.api.take_writes();
    world.pass().await;
    assert_eq!(world.api.writes_to(AUTHORITIES), 0, "at rest");
}

/// Policies come and go like quotas. The API server's own check of an object stays the same until either side changes.
#[tokio::test]
async fn what_a_policy_denies_is_applied_once_the_policy_is_gone() {
    for (code, message) in [
        (400, "admission webhook \"images.example\" denied the request: not from our registry"),
        (
            422,
            "services \"tracing-mlflow\" is forbidden: ValidatingAdmissionPolicy 'ours' with binding 'ours' denied request: no",
        ),
    ] {
        for path in [SERVICE, AUTHORITIES] {
            let mut world = World::new().await;
            world.api.edit(TRACING, json!({"spec": {"caBundle": {"mode": "Always", "strategy": "ConfigMap"}}}));
            world.api.refuse(path, code, message);
            world.pass().await;
            assert!(world.api.get(path).is_none());
            world.api.refuse(path, code, "");
            world.pass().await;
            assert!(world.api.get(path).is_some(), "{code} {path}");
        }
    }
}
