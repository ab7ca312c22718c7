//! What needs a look inside: panics and a full house. Everything else goes through the router in tests/webhook_http.rs.

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
async fn large_bodies_have_a_limit_together_and_keep_no_small_one_out() {
    let webhook = Arc::new(webhook());
    let padded = |length: usize| {
        let mut review = review("7f1d");
        review.resize(length, b' ');
        Body::from(review)
    };
    let taken = webhook.room.try_acquire_many(ROOM as u32 - 7).unwrap();
    assert_eq!(post_to(&webhook, padded(SMALL + (8 << 10))).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(post_to(&webhook, padded(SMALL + (7 << 10))).await, StatusCode::OK);
    let all = webhook.room.try_acquire_many(7).unwrap();
    assert_eq!(post_to(&webhook, padded(SMALL + 1)).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(post_to(&webhook, padded(SMALL)).await, StatusCode::OK);
    drop((taken, all));
    // Without a length it may become the largest one.
    let without = || Body::from_stream(stream::iter([Ok::<_, std::io::Error>(vec![b' '; SMALL + 1])]));
    let taken = webhook.room.try_acquire_many((ROOM - (MAX_BODY - SMALL) / 1024 + 1) as u32).unwrap();
    assert_eq!(post_to(&webhook, without()).await, StatusCode::SERVICE_UNAVAILABLE);
    drop(taken);
    assert_eq!(post_to(&webhook, without()).await, StatusCode::BAD_REQUEST);
    assert_eq!(webhook.room.available_permits(), ROOM);
}

#[tokio::test(start_paused = true)]
async fn large_reviews_are_decided_one_at_a_time() {
    let webhook = Arc::new(webhook());
    let turn = webhook.turn.try_acquire().unwrap();
    let large = || Body::from(vec![b' '; SMALL + 1]);
    assert_eq!(post_to(&webhook, large()).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(post_to(&webhook, Body::from(review("7f1d"))).await, StatusCode::OK);
    drop(turn);
    assert_eq!(post_to(&webhook, large()).await, StatusCode::BAD_REQUEST);
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
    assert_eq!(webhook.room.available_permits(), ROOM);
}

async fn post_to(webhook: &Arc<Webhook>, body: Body) -> StatusCode {
    router(webhook.clone()).oneshot(Request::post("/mutate").body(body).unwrap()).await.unwrap().status()
}

fn counted(webhook: &Webhook, line: &str) -> bool {
    webhook.metrics.text().contains(line)
}

fn webhook() -> Webhook {
    let cache = PolicyCache::default();
    cache.fill(Vec::new(), ["bank"]);
    Webhook::new(Arc::new(cache), Arc::default(), Platform::default())
}

fn review(uid: &str) -> Vec<u8> {
    format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"{uid}","operation":"CREATE",
        "kind":{{"group":"apps","version":"v1","kind":"Deployment"}},"namespace":"bank","object":
        {{"metadata":{{"name":"teller"}},"spec":{{"template":{{"spec":{{"containers":[{{"name":"agent"}}]}}}}}}}}}}}}"#
    )
    .into_bytes()
}
