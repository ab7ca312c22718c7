//! The wall clock jumps.

use crate::cluster::{Cluster, secret_of};
use crate::walk::{DAY, MINUTE, World, start};
use agent_tracing::tls::rotation::AuthoritySet;

#[tokio::test]
async fn a_start_200_days_later_signs_anew_with_the_same_authority() {
    let mut world = World::aged(start() + 200 * DAY).await;
    world.walk(DAY).await;
    assert_eq!(world.refused, [] as [&str; 0]);
    assert_eq!(world.cluster.writes(), ["patch mutatingwebhookconfigurations"]);
}

#[tokio::test]
async fn a_start_200_days_before_the_authority_was_made_makes_another() {
    is_reissued(start() - 200 * DAY).await;
}

#[tokio::test]
async fn a_start_when_the_authority_has_expired_makes_another() {
    is_reissued(start() + 400 * DAY).await;
}

async fn is_reissued(now: jiff::Timestamp) {
    let old = AuthoritySet::generate(start()).unwrap();
    let cluster = Cluster::new();
    cluster.set("secrets", Some(secret_of(&old)));
    let mut world = World::begin(cluster, now).await;
    world.walk(DAY).await;
    assert_eq!(world.refused, [] as [&str; 0]);
    assert_ne!(world.certificates(), [old.signer().certificate().clone()]);
    assert_eq!(world.cluster.writes(), ["update secrets", "patch mutatingwebhookconfigurations"]);
}

#[tokio::test]
async fn a_running_replica_signs_anew_within_a_minute_when_its_certificate_expired_in_its_sleep() {
    let mut world = World::aged(start()).await;
    world.clock.set(start() + 100 * DAY);
    world.step(MINUTE).await;
    world.refused.clear();
    world.walk(DAY).await;
    assert_eq!(world.refused, [] as [&str; 0]);
    assert_eq!(world.cluster.writes(), ["patch mutatingwebhookconfigurations"]);
}

#[tokio::test]
async fn a_running_operator_recovers_within_minutes_when_the_clock_is_set_back_before_its_authority() {
    let mut world = World::aged(start()).await;
    world.clock.set(start() - 200 * DAY);
    for _ in 0..4 {
        world.step(MINUTE).await;
    }
    assert!(world.replicas.iter().all(|replica| replica.is_ready_now()), "{}", world.replicas[0].readiness.report().1);
    world.refused.clear();
    world.walk(DAY).await;
    assert_eq!(world.refused, [] as [&str; 0]);
}

#[tokio::test]
async fn a_running_replica_signs_anew_within_a_minute_when_the_clock_is_set_back_before_its_certificate() {
    let mut world = World::aged(start() + 100 * DAY).await;
    world.clock.set(start() + 50 * DAY);
    world.step(MINUTE).await;
    world.refused.clear();
    world.walk(DAY).await;
    assert_eq!(world.refused, [] as [&str; 0]);
    assert_eq!(world.cluster.writes(), ["patch mutatingwebhookconfigurations"], "the authority was valid then");
}
