//! What needs a look inside: panics and full houses. Everything else goes through the router in tests/webhook_http.rs.

use axum::http::Request;
use futures::{StreamExt, stream};
use tower::ServiceExt;

use super::*;

#[test]
fn a_panic_is_an_allowed_review_without_a_patch_and_is_counted() {
    let mut webhook = webhook();
    webhook.decide = |_, _| panic!("this test panics on purpose");
    let answer = webhook.answer(&review("7f1d")).unwrap();
    let expected =
        r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"7f1d","allowed":true}}"#;
    assert_eq!(String::from_utf8(answer).unwrap(), expected);
    assert!(counted(&webhook, r#"{result="failed",reason="Panicked"} 1"#));
}

#[test]
fn before_the_first_lists_are_there_nothing_is_decided() {
    let mut webhook = Webhook::new(Arc::default(), Arc::default(), Platform::default());
    webhook.decide = |_, _| panic!("must not be asked");
    assert!(webhook.answer(&review("7f1d")).is_ok());
    assert!(counted(&webhook, r#"{result="left",reason="NotReady"} 1"#));
}

#[tokio::test]
async fn the_sixty_fifth_review_in_flight_is_refused_and_the_next_one_after_it_is_not() {
    let webhook = Arc::new(webhook());
    let taken = webhook.reviews.try_acquire_many(MAX_REVIEWS as u32).unwrap();
    assert_eq!(post_to(&webhook, Body::from(review("7f1d"))).await, StatusCode::SERVICE_UNAVAILABLE);
    drop(taken);
    assert_eq!(post_to(&webhook, Body::from(review("7f1d"))).await, StatusCode::OK);
}

#[tokio::test]
async fn bodies_in_flight_have_a_limit_together() {
    let webhook = Arc::new(webhook());
    let taken = webhook.kibibytes.try_acquire_many(MAX_KIBIBYTES - 7).unwrap();
    let eight = Request::post("/mutate").header("content-length", "8192").body(Body::from(vec![b' '; 8192])).unwrap();
    let refused = router(webhook.clone()).oneshot(eight).await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop(taken);
    assert_eq!(webhook.kibibytes.available_permits(), MAX_KIBIBYTES as usize);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_is_given_up_within_the_api_servers_patience() {
    let webhook = Arc::new(webhook());
    let trickle = stream::unfold((), async |()| {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Some((Ok::<_, std::io::Error>("{"), ()))
    });
    let started = tokio::time::Instant::now();
    assert_eq!(post_to(&webhook, Body::from_stream(trickle.boxed())).await, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(started.elapsed(), DEADLINE);
    assert_eq!(webhook.reviews.available_permits(), MAX_REVIEWS);
}

async fn post_to(webhook: &Arc<Webhook>, body: Body) -> StatusCode {
    router(webhook.clone()).oneshot(Request::post("/mutate").body(body).unwrap()).await.unwrap().status()
}

fn counted(webhook: &Webhook, line: &str) -> bool {
    webhook.metrics.text().contains(line)
}

fn webhook() -> Webhook {
    let memory = Memory::default();
    memory.fill(Vec::new(), ["bank"]);
    Webhook::new(Arc::new(memory), Arc::default(), Platform::default())
}

fn review(uid: &str) -> Vec<u8> {
    format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"{uid}","operation":"CREATE",
        "kind":{{"group":"apps","version":"v1","kind":"Deployment"}},"namespace":"bank","object":
        {{"metadata":{{"name":"teller"}},"spec":{{"template":{{"spec":{{"containers":[{{"name":"agent"}}]}}}}}}}}}}}}"#
    )
    .into_bytes()
}
