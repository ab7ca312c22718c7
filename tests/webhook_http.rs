//! The webhook as the API server sees it: HTTP in, HTTP out, through the real router and no socket.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[path = "webhook_http/cluster.rs"]
mod cluster;

use std::sync::Arc;

use agent_tracing::api::AgentTracing;
use agent_tracing::core::selection::kind::Kind;
use agent_tracing::telemetry::Metrics;
use agent_tracing::webhook::policy_cache::PolicyCache;
use agent_tracing::webhook::{Webhook, router};
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use tower::ServiceExt;

use cluster::{Cluster, allowed, create, patched, teller, update, workload};

const OPERATOR: &str = "system:serviceaccount:operators:agent-tracing-operator";

#[tokio::test]
async fn an_unmodified_deployment_leaves_with_its_wiring() {
    let answer = Cluster::with_mlflow().admits(create(teller())).await;
    assert_eq!(answer["response"]["uid"], "0d0c7d44");
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    let wired = patched(teller(), &answer);
    let env = &wired["spec"]["template"]["spec"]["containers"][0]["env"];
    assert_eq!(env[0], json!({"name": "MODEL", "value": "small"}));
    assert_eq!(env[1], json!({"name": "MLFLOW_TRACKING_URI", "value": "http://tracing-mlflow.bank.svc:5500"}));
    assert_eq!(env[2], json!({"name": "MLFLOW_EXPERIMENT_NAME", "value": "teller"}));
    assert_eq!(wired["metadata"]["labels"]["agenttracing.dev/wired"], "tracing");
}

#[tokio::test]
async fn our_own_output_comes_back_without_a_patch() {
    let cluster = Cluster::with_mlflow();
    let wired = patched(teller(), &cluster.admits(create(teller())).await);
    let again = cluster.admits(update(teller(), wired)).await;
    assert_eq!(again, allowed());
    assert!(cluster.counted(r#"{result="unchanged",reason="Current"} 1"#));
}

#[tokio::test]
async fn a_dry_run_gets_the_same_answer() {
    let cluster = Cluster::with_mlflow();
    let mut dry = create(teller());
    dry["request"]["dryRun"] = json!(true);
    assert_eq!(cluster.admits(dry).await, cluster.admits(create(teller())).await);
}

#[tokio::test]
async fn the_namespace_is_the_requests_since_the_objects_own_may_be_absent() {
    let cluster = Cluster::with_mlflow();
    let mut elsewhere = create(teller());
    elsewhere["request"]["namespace"] = json!("shop");
    assert_eq!(cluster.admits(elsewhere).await, allowed());
    assert!(cluster.counted(r#"{result="left",reason="NamespaceNotLabelled"} 1"#));

    let mut nameless = teller();
    nameless["metadata"] = json!({"generateName": "teller-"});
    let wired = patched(nameless.clone(), &cluster.admits(create(nameless)).await);
    assert_eq!(wired["spec"]["template"]["spec"]["containers"][0]["env"][2]["value"], "teller");
}

#[tokio::test]
async fn before_mlflow_has_answered_the_deployment_passes_and_the_person_hears_why() {
    let cluster = Cluster::of(None);
    let answer = cluster.admits(create(teller())).await;
    assert_eq!(answer["response"].get("patch"), None);
    let warning = answer["response"]["warnings"][0].as_str().unwrap();
    assert!(warning.ends_with("(kubectl get agenttracing tracing -n bank)"), "{warning}");
    assert!(cluster.counted(r#"{result="left",reason="WaitingForMLflow"} 1"#));
}

#[tokio::test]
async fn what_the_user_keeps_is_said_once_in_at_most_256_characters() {
    let cluster = Cluster::with_mlflow();
    let mut own = teller();
    let container = "c".repeat(300);
    own["spec"]["template"]["spec"]["containers"][0] =
        json!({"name": container, "env": [{"name": "MLFLOW_EXPERIMENT_NAME", "value": "secret-ish"}]});
    let answer = cluster.admits(create(own.clone())).await;
    let warning = answer["response"]["warnings"][0].as_str().unwrap();
    assert!(warning.len() == 256 && warning.ends_with("..."), "{warning}");
    assert!(!answer.to_string().contains("secret-ish"));

    let again = cluster.admits(update(own.clone(), patched(own, &answer))).await;
    assert_eq!(again, allowed());
}

#[tokio::test]
async fn a_container_with_its_own_address_is_left_alone_and_the_person_hears_it() {
    let mut own = teller();
    own["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "MLFLOW_TRACKING_URI", "value": "http://x"}]);
    let cluster = Cluster::with_mlflow();
    let answer = cluster.admits(create(own)).await;
    assert_eq!(answer["response"].get("patch"), None);
    assert!(answer["response"]["warnings"][0].as_str().unwrap().contains("agent sets MLFLOW_TRACKING_URI itself"));
    assert!(cluster.counted(r#"{result="left",reason="OwnTrackingURI"} 1"#));
}

#[tokio::test]
async fn opting_out_takes_our_wiring_out_in_the_same_request() {
    let cluster = Cluster::with_mlflow();
    let wired = patched(teller(), &cluster.admits(create(teller())).await);
    let mut opted_out = wired.clone();
    opted_out["metadata"]["labels"]["agenttracing.dev/inject"] = json!("false");
    let answer = cluster.admits(update(wired, opted_out.clone())).await;
    let mut expected = teller();
    expected["metadata"]["labels"]["agenttracing.dev/inject"] = json!("false");
    assert_eq!(patched(opted_out, &answer), expected);
    assert!(cluster.counted(r#"{result="removed",reason="OptedOut"} 1"#));
}

#[tokio::test]
async fn the_operators_own_write_comes_back_changed_only_when_it_touches() {
    let cluster = Cluster::with_mlflow();
    let own = |old: Value, new: Value| {
        let mut review = update(old, new);
        review["request"]["userInfo"]["username"] = json!(OPERATOR);
        review
    };
    assert_eq!(cluster.admits(own(teller(), teller())).await, allowed());
    assert!(cluster.counted(r#"{result="left",reason="OwnWrite"} 1"#));

    let mut touched = teller();
    touched["metadata"]["annotations"] = json!({"agenttracing.dev/touch": "4be1/1/0"});
    let answer = cluster.admits(own(teller(), touched.clone())).await;
    assert!(answer["response"]["patch"].is_string());
    assert_eq!(cluster.admits(own(touched.clone(), touched)).await, allowed());
}

#[tokio::test]
async fn every_kind_leaves_with_its_wiring_once() {
    let cluster = Cluster::with_mlflow();
    for kind in Kind::ALL {
        let plain = workload(kind);
        let answer = cluster.admits(create(plain.clone())).await;
        let wired = patched(plain, &answer);
        let path: String = kind.template().iter().map(|token| format!("/{token}")).collect();
        let template = wired.pointer(&path).unwrap();
        assert_eq!(template["spec"]["containers"][0]["env"][1]["value"], "http://tracing-mlflow.bank.svc:5500");
        assert!(template["metadata"]["annotations"]["agenttracing.dev/injected"].is_string(), "{kind:?}");
        assert_eq!(wired["metadata"]["labels"]["agenttracing.dev/wired"], "tracing", "{kind:?}");
        assert_eq!(cluster.admits(create(wired)).await, allowed(), "{kind:?}");
    }
}

#[tokio::test]
async fn an_update_wires_what_can_still_be_changed() {
    let cluster = Cluster::with_mlflow();
    for kind in Kind::ALL {
        let answer = cluster.admits(update(workload(kind), workload(kind))).await;
        assert_eq!(answer["response"]["patch"].is_string(), kind.template_is_mutable(), "{kind:?}");
    }
    assert!(cluster.counted(r#"{result="left",reason="OtherKind"} 2"#));
}

#[tokio::test]
async fn the_jobs_of_a_cron_job_and_the_pods_of_what_was_wired_are_left_alone() {
    let cluster = Cluster::with_mlflow();
    let owned = |kind: Kind, api_version: &str, owner: &str| {
        let mut object = workload(kind);
        let owner =
            json!({"apiVersion": api_version, "kind": owner, "name": "nightly", "uid": "1", "controller": true});
        object["metadata"]["ownerReferences"] = json!([owner]);
        object
    };
    assert_eq!(cluster.admits(create(owned(Kind::Job, "batch/v1", "CronJob"))).await, allowed());
    assert!(cluster.counted(r#"{result="left",reason="OfCronJob"} 1"#));

    let pod = owned(Kind::Pod, "apps/v1", "StatefulSet");
    let answer = cluster.admits(create(pod.clone())).await;
    let wired = patched(pod, &answer);
    assert_eq!(wired["spec"]["containers"][0]["env"][2]["value"], "nightly");
    // What the template got under another name.
    let mut of_template = wired;
    of_template["metadata"]["ownerReferences"][0]["name"] = json!("nightly-x7k2p");
    assert_eq!(cluster.admits(create(of_template)).await, allowed());
    assert!(cluster.counted(r#"{result="unchanged",reason="Current"} 1"#));
}

#[tokio::test]
async fn who_creates_what_cannot_be_wired_later_is_told_to_create_it_again() {
    // In mode CR only the server knows its address.
    let tracing = json!({
        "apiVersion": "agenttracing.dev/v1alpha1", "kind": "AgentTracing",
        "metadata": {"name": "tracing", "namespace": "bank"}, "spec": {"mlflow": {"mode": "CR"}},
    });
    let cluster = Cluster::context(serde_json::from_value(tracing).unwrap());
    for kind in Kind::ALL {
        let answer = cluster.admits(create(workload(kind))).await;
        let expected = match kind.template_is_mutable() {
            true => "not wired yet; the operator does it as soon as its service account may write".to_owned(),
            false => format!("not wired; create this {} again when MLflow has answered", kind.as_str()),
        };
        let warning = answer["response"]["warnings"][0].as_str().unwrap();
        assert!(warning.contains(&expected), "{warning}");
    }
}

#[tokio::test]
async fn what_is_no_workload_on_its_way_in_is_allowed_and_counted() {
    let cluster = Cluster::with_mlflow();
    let mut of_another_group = create(teller());
    of_another_group["request"]["kind"]["group"] = json!("apps.example.com");
    assert_eq!(cluster.admits(of_another_group).await, allowed());
    let mut delete = create(Value::Null);
    delete["request"]["operation"] = json!("DELETE");
    assert_eq!(cluster.admits(delete).await, allowed());
    assert!(cluster.counted(r#"{result="left",reason="OtherKind"} 2"#));
}

#[tokio::test]
async fn a_kind_behind_the_object_it_belongs_to_is_too_late() {
    let mut review = create(teller());
    let request = review["request"].as_object_mut().unwrap();
    let kind = request.shift_remove("kind").unwrap();
    request.insert("kind".into(), kind);
    let cluster = Cluster::with_mlflow();
    assert_eq!(cluster.admits(review).await, allowed());
    assert!(cluster.counted(r#"{result="failed",reason="Undecodable"} 1"#));
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_allowed_and_counted() {
    let cluster = Cluster::with_mlflow();
    for object in [Value::Null, json!({}), json!({"spec": {"template": {"spec": {"containers": "secret"}}}})] {
        assert_eq!(cluster.admits(create(object)).await, allowed());
    }
    assert!(cluster.counted(r#"{result="failed",reason="Undecodable"} 3"#));
}

#[tokio::test]
async fn what_is_no_review_is_refused_in_words_that_quote_nothing() {
    let cluster = Cluster::with_mlflow();
    let long_uid = |length: usize| {
        let mut review = create(teller());
        review["request"]["uid"] = json!("ü".repeat(length));
        review.to_string()
    };
    for (body, reason) in [
        (String::new(), "the body is not an AdmissionReview: eof error at line 1 column 0\n"),
        (r#"{"apiVersion": 5678}"#.into(), "the body is not an AdmissionReview: data error at line 1 column 19\n"),
        ("{}".into(), "the body is not an AdmissionReview of admission.k8s.io/v1\n"),
        (
            json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"}).to_string(),
            "the body is not an AdmissionReview of admission.k8s.io/v1\n",
        ),
        (
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}).to_string(),
            "the AdmissionReview has no request\n",
        ),
        (long_uid(129), "request.uid is empty or longer than 128 characters\n"),
        (long_uid(0), "request.uid is empty or longer than 128 characters\n"),
    ] {
        let (status, text) = cluster.posts(body.clone()).await;
        assert_eq!((status, text.as_str()), (StatusCode::BAD_REQUEST, reason), "{body}");
    }
    assert_eq!(cluster.posts(long_uid(128)).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_body_above_7_mib_is_refused_with_and_without_an_announced_length() {
    let cluster = Cluster::with_mlflow();
    let padded = |size: usize| {
        let review = create(teller()).to_string();
        format!("{review}{}", " ".repeat(size - review.len()))
    };
    assert_eq!(cluster.posts(padded(7 << 20)).await.0, StatusCode::OK);
    assert_eq!(cluster.posts(padded((7 << 20) + 1)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let chunks = futures::stream::iter([padded(4 << 20), padded(4 << 20)].map(Ok::<_, std::io::Error>));
    assert_eq!(cluster.posts(Body::from_stream(chunks)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn other_methods_and_paths_are_told_so() {
    let cluster = Cluster::with_mlflow();
    for (method, path, status) in [
        (Method::GET, "/mutate", StatusCode::METHOD_NOT_ALLOWED),
        (Method::PUT, "/mutate", StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, "/", StatusCode::NOT_FOUND),
        (Method::POST, "/mutate/", StatusCode::NOT_FOUND),
        (Method::GET, "/metrics", StatusCode::NOT_FOUND),
    ] {
        let request = Request::builder().method(&method).uri(path).body(Body::empty()).unwrap();
        assert_eq!(cluster.answers(request).await.0, status, "{method} {path}");
    }
}
