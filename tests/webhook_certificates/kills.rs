//! The leader dies on the way through a rotation.

use std::time::Duration;

use crate::cluster::Fault;
use crate::walk::{DAY, World, certificates, start};

/// What a leader writes from the start of a rotation to its end, and once before for the empty caBundle.
pub const WRITES: [&str; 7] = [
    "patch mutatingwebhookconfigurations",
    "update secrets",
    "patch mutatingwebhookconfigurations",
    "update secrets",
    "update secrets",
    "update secrets",
    "patch mutatingwebhookconfigurations",
];

#[tokio::test]
async fn a_rotation_that_nobody_disturbs_takes_these_writes() {
    let mut world = World::aged(start() + 243 * DAY).await;
    world.walk(3 * DAY).await;
    assert_eq!(world.cluster.writes(), WRITES);
    is_rotated(&world);
}

#[tokio::test]
async fn a_leader_that_dies_before_a_write_of_a_rotation_is_followed_by_one_that_goes_on() {
    for write in 1..WRITES.len() {
        dies(write, Fault::Lost).await;
    }
}

#[tokio::test]
async fn a_leader_that_dies_after_a_write_of_a_rotation_is_followed_by_one_that_goes_on() {
    for write in 1..WRITES.len() {
        dies(write, Fault::Unanswered).await;
    }
}

#[tokio::test]
async fn two_leaders_at_once_do_not_hurry_a_rotation() {
    let mut world = World::aged(start() + 243 * DAY).await;
    world.replicas[1].lead();
    world.walk(3 * DAY).await;
    is_rotated(&world);
    let updates = world.cluster.writes().iter().filter(|write| *write == "update secrets").count();
    assert_eq!(updates, 4, "of two that write at once one wins");
}

async fn dies(write: usize, fault: Fault) {
    let mut world = World::aged(start() + 243 * DAY).await;
    world.cluster.spoil_write(write, fault);
    let mut deaths = 0;
    while world.now() < start() + 247 * DAY {
        world.walk(Duration::from_secs(1)).await;
        if world.cluster.a_sender_hangs() {
            deaths += 1;
            world.kill_leader().await;
        }
    }
    assert_eq!(deaths, 1, "{write} {fault:?}");
    is_rotated(&world);
}

/// Another authority, alone, everywhere, and nobody was refused on the way.
fn is_rotated(world: &World) {
    assert_eq!(world.refused, [] as [&str; 0]);
    let now = world.certificates();
    assert_eq!(now.len(), 1);
    assert_eq!(certificates(&world.cluster.bundle()), now);
    let validity = agent_tracing::tls::serving::Validity::of(&now[0]).unwrap();
    assert!(validity.from > start() + 242 * DAY, "it is the old one");
    assert!(world.replicas.iter().all(|replica| replica.is_ready_now()));
}
