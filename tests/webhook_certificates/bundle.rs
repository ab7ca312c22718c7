//! Somebody overwrites caBundle on the way through a rotation.

use agent_tracing::tls::rotation::AuthoritySet;
use k8s_openapi::ByteString;
use serde_json::json;

use crate::cluster::CONFIGURATION;
use crate::kills::WRITES;
use crate::secret::{ends_well, in_phase};
use crate::walk::{DAY, MINUTE, certificates, start};

#[tokio::test]
async fn an_emptied_bundle_is_put_right_within_a_minute_in_every_phase() {
    in_every_phase(|_| Vec::new()).await;
}

#[tokio::test]
async fn a_bundle_of_garbage_is_put_right_within_a_minute_in_every_phase() {
    in_every_phase(|_| b"garbage".to_vec()).await;
}

#[tokio::test]
async fn a_foreign_authority_in_the_bundle_goes_within_a_minute_in_every_phase() {
    let foreign = AuthoritySet::generate(start() + 240 * DAY).unwrap().bundle();
    in_every_phase(|_| foreign.clone().into_bytes()).await;
    in_every_phase(|bundle| [bundle, foreign.as_bytes()].concat()).await;
}

#[tokio::test]
async fn a_bundle_without_the_next_authority_is_put_right_and_the_next_one_waits_its_hour_again() {
    let mut world = in_phase(4).await;
    let (whole, marked) = (world.cluster.bundle(), world.now());
    world.walk(40 * MINUTE).await;
    let old = certificates(&whole)[0].clone();
    overwrite(&mut world, agent_tracing::core::ca_bundle::pem_block(&old).into_bytes());
    world.step(2 * MINUTE).await;
    world.step(2 * MINUTE).await;
    assert_eq!(world.cluster.bundle(), whole);
    while world.certificates()[0] == old {
        world.walk(MINUTE).await;
    }
    let waited = world.now().duration_since(marked).as_mins();
    assert!((105..140).contains(&waited), "{waited} minutes");
    ends_well(world, 4).await;
}

async fn in_every_phase(overwritten: impl Fn(&[u8]) -> Vec<u8>) {
    for phase in 1..=WRITES.len() {
        let mut world = in_phase(phase).await;
        let vandalised = overwritten(&world.cluster.bundle());
        overwrite(&mut world, vandalised.clone());
        for _ in 0..2 {
            world.step(MINUTE / 2).await;
        }
        assert_ne!(world.cluster.bundle(), vandalised, "phase {phase}");
        ends_well(world, phase).await;
    }
}

fn overwrite(world: &mut crate::walk::World, bundle: Vec<u8>) {
    let mut configuration = world.cluster.get(CONFIGURATION).unwrap();
    configuration["webhooks"][0]["clientConfig"]["caBundle"] = json!(ByteString(bundle.clone()));
    world.cluster.set(CONFIGURATION, Some(configuration));
    world.vandalised = Some(bundle);
}
