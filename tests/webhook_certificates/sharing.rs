//! Two replicas share one authority, by the wall clock.

use std::time::Duration;

use agent_tracing::tls::rotation::AuthoritySet;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde_json::json;
use tokio::time::sleep;

use crate::cluster::{CONFIGURATION, Cluster, configuration, secret, secret_of};
use crate::replica::{Leads, Replica};

#[tokio::test]
async fn from_nothing_two_replicas_share_one_authority_and_the_leader_publishes_it() {
    let cluster = Cluster::new();
    let leader = Replica::start(&cluster, Leads::Yes).await;
    let other = Replica::start(&cluster, Leads::No).await;
    for replica in [&leader, &other] {
        replica.is_ready().await;
        assert_eq!(replica.answers_whoever_trusts(&cluster.bundle()).await, Ok(()));
    }
    assert_eq!(cluster.writes(), ["create secrets", "patch mutatingwebhookconfigurations"]);
}

#[tokio::test]
async fn a_replica_that_does_not_lead_publishes_nothing_and_says_what_it_waits_for() {
    let cluster = Cluster::new();
    let replica = Replica::start(&cluster, Leads::No).await;
    replica.lacks("caBundle of MutatingWebhookConfiguration agent-tracing-webhook is not ours yet").await;
    assert_eq!(cluster.writes(), ["create secrets"]);
}

#[tokio::test]
async fn whoever_comes_second_to_the_secret_takes_what_is_there() {
    let cluster = Cluster::new();
    // Its list was empty, its create comes too late.
    cluster.refuse_next_create(secret_of(&AuthoritySet::generate(Timestamp::now()).unwrap()));
    let replica = Replica::start(&cluster, Leads::Yes).await;
    replica.is_ready().await;
    assert_eq!(cluster.writes(), ["patch mutatingwebhookconfigurations"]);
}

#[tokio::test]
async fn a_deleted_secret_comes_back_with_the_same_authority() {
    let cluster = Cluster::new();
    let replica = Replica::start(&cluster, Leads::Yes).await;
    replica.is_ready().await;
    let before = cluster.get("secrets").unwrap()["data"].clone();
    cluster.set("secrets", None);
    cluster.sees(|c| c.get("secrets").is_some_and(|secret| secret["data"] == before)).await;
    assert!(replica.readiness.report().0);
}

#[tokio::test]
async fn a_spoilt_secret_is_put_right_with_the_same_authority_and_keeps_its_type() {
    let cluster = Cluster::new();
    let replica = Replica::start(&cluster, Leads::Yes).await;
    replica.is_ready().await;
    let before = cluster.get("secrets").unwrap();
    let mut spoilt = before.clone();
    spoilt["data"]["tls.crt"] = json!(ByteString(b"garbage".to_vec()));
    cluster.set("secrets", Some(spoilt));
    cluster.sees(|c| c.get("secrets").is_some_and(|secret| secret["data"] == before["data"])).await;
    assert_eq!(cluster.get("secrets").unwrap()["type"], "kubernetes.io/tls");
    assert_eq!(replica.answers_whoever_trusts(&cluster.bundle()).await, Ok(()));
}

#[tokio::test]
async fn a_secret_of_rubbish_from_before_the_first_start_is_replaced() {
    let cluster = Cluster::new();
    cluster.set("secrets", Some(secret(json!({"tls.crt": "", "tls.key": ""}))));
    let replica = Replica::start(&cluster, Leads::Yes).await;
    replica.is_ready().await;
    assert_eq!(cluster.writes(), ["update secrets", "patch mutatingwebhookconfigurations"]);
    assert_eq!(replica.answers_whoever_trusts(&cluster.bundle()).await, Ok(()));
}

#[tokio::test]
async fn an_overwritten_bundle_is_put_right_and_nothing_is_written_at_rest() {
    let cluster = Cluster::new();
    let replica = Replica::start(&cluster, Leads::Yes).await;
    replica.is_ready().await;
    let bundle = cluster.bundle();
    cluster.set(CONFIGURATION, Some(configuration()));
    cluster.sees(|c| c.bundle() == bundle).await;
    replica.is_ready().await;

    let writes = cluster.writes().len();
    // Somebody else's change of the same object is none of our business.
    let mut labelled = cluster.get(CONFIGURATION).unwrap();
    labelled["metadata"]["labels"] = json!({"by": "gitops"});
    cluster.set(CONFIGURATION, Some(labelled));
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(cluster.writes().len(), writes);
}

#[tokio::test]
async fn without_a_configuration_it_is_not_ready_and_says_so_until_there_is_one() {
    let cluster = Cluster::new();
    cluster.set(CONFIGURATION, None);
    let replica = Replica::start(&cluster, Leads::Yes).await;
    replica.lacks("there is no MutatingWebhookConfiguration agent-tracing-webhook").await;
    cluster.set(CONFIGURATION, Some(configuration()));
    replica.is_ready().await;
}

#[tokio::test]
async fn the_webhook_speaks_http_1_1_and_only_over_tls() {
    let cluster = Cluster::new();
    let replica = Replica::start(&cluster, Leads::Yes).await;
    replica.is_ready().await;
    let client = replica.client(&cluster.bundle());
    let answer = client.get(replica.url()).send().await.unwrap();
    assert_eq!(answer.version(), axum::http::Version::HTTP_11);
    assert!(reqwest::get(format!("http://{}", replica.address)).await.is_err(), "plain HTTP");
}
