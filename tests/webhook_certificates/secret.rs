//! Somebody deletes, spoils or replaces the Secret on the way through a rotation: no call is refused.

use std::time::Duration;

use agent_tracing::tls::rotation::AuthoritySet;
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::cluster::{Cluster, secret_of};
use crate::kills::WRITES;
use crate::walk::{DAY, MINUTE, World, certificates, start};

#[tokio::test]
async fn a_deleted_secret_is_back_within_a_minute_in_every_phase() {
    in_every_phase(|_| None).await;
}

#[tokio::test]
async fn a_secret_with_a_spoilt_key_is_mended_within_a_minute_in_every_phase() {
    for key in ["tls.key", "next.key"] {
        in_every_phase(|before| {
            let mut spoilt = before.clone();
            spoilt["data"][key] = json!(ByteString(b"garbage".to_vec()));
            Some(spoilt)
        })
        .await;
    }
}

#[tokio::test]
async fn a_secret_of_garbage_is_mended_within_a_minute_in_every_phase() {
    in_every_phase(|before| {
        let mut spoilt = before.clone();
        spoilt["data"] = json!({"tls.crt": "", "tls.key": "Z2FyYmFnZQ=="});
        Some(spoilt)
    })
    .await;
}

/// Mended is what is there as it was before, or further on.
async fn in_every_phase(spoil: impl Fn(&Value) -> Option<Value>) {
    for phase in 1..=WRITES.len() {
        let mut world = in_phase(phase).await;
        let before = world.cluster.get("secrets").unwrap();
        world.cluster.set("secrets", spoil(&before));
        world.step(MINUTE).await;
        let after = world.cluster.get("secrets").expect("it is back");
        assert_eq!(after["data"]["tls.crt"], before["data"]["tls.crt"], "phase {phase}");
        assert_eq!(after["data"]["tls.key"], before["data"]["tls.key"], "phase {phase}");
        assert_eq!(after["type"], before["type"]);
        ends_well(world, phase).await;
    }
}

#[tokio::test]
async fn another_authority_in_the_secret_is_taken_over_by_everybody_without_a_refused_call() {
    for phase in 1..=WRITES.len() {
        let mut world = in_phase(phase).await;
        let other = AuthoritySet::generate(world.now()).unwrap();
        world.cluster.set("secrets", Some(secret_of(&other)));
        world.walk(DAY / 2).await;
        assert_eq!(world.certificates()[0], *other.signer().certificate(), "phase {phase}");
        let world = ends_well(world, phase).await;
        assert_eq!(world.certificates(), [other.signer().certificate().clone()], "phase {phase}");
    }
}

#[tokio::test]
async fn a_copy_of_the_secret_from_before_the_rotation_is_rotated_again_without_a_refused_call() {
    let mut world = World::aged(start() + 243 * DAY).await;
    let old = world.cluster.get("secrets").unwrap();
    world.walk(3 * DAY).await;
    world.cluster.set("secrets", Some(old));
    world.walk(3 * DAY).await;
    ends_well(world, 0).await;
}

/// An older operator that puts the Secret right knows two keys of it.
#[tokio::test]
async fn a_secret_that_lost_what_an_older_operator_does_not_know_costs_no_call() {
    for phase in 1..=WRITES.len() {
        let world = in_phase(phase).await;
        let mut less = world.cluster.get("secrets").unwrap();
        less["data"].as_object_mut().unwrap().retain(|key, _| key.starts_with("tls."));
        world.cluster.set("secrets", Some(less));
        ends_well(world, phase).await;
    }
}

#[tokio::test]
async fn an_older_installs_authority_of_ten_years_goes_on_and_is_rotated_without_a_refused_call() {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "agent-tracing-webhook-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.not_before = rcgen::date_time_ymd(2026, 3, 1);
    params.not_after = rcgen::date_time_ymd(2036, 2, 27);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let bytes = |text: String| ByteString(text.into_bytes());
    let data = json!({"tls.crt": bytes(certificate.pem()), "tls.key": bytes(key.serialize_pem())});
    let cluster = Cluster::new();
    cluster.set("secrets", Some(crate::cluster::secret(data)));
    let mut world = World::begin(cluster, start() + DAY).await;
    world.walk(200 * DAY).await;
    assert_eq!(world.cluster.writes(), ["patch mutatingwebhookconfigurations"]);
    // What an older leader publishes is the text of tls.crt: they agree, byte for byte.
    assert_eq!(world.cluster.bundle(), certificate.pem().into_bytes());
    world.walk(50 * DAY).await;
    let world = ends_well(world, 0).await;
    assert_ne!(world.certificates(), [certificate.der().clone()]);
}

/// A world in which a rotation has come to its nth write.
pub async fn in_phase(writes: usize) -> World {
    let mut world = World::aged(start() + 243 * DAY).await;
    while world.cluster.writes().len() < writes {
        assert!(world.now() < start() + 250 * DAY, "it does not come to its {writes}. write");
        world.walk(Duration::from_secs(1)).await;
    }
    world
}

/// The rotation comes to its end, one authority is left, and nobody was refused.
pub async fn ends_well(mut world: World, phase: usize) -> World {
    world.walk(4 * DAY).await;
    assert_eq!(world.refused, [] as [&str; 0], "phase {phase}");
    let left = world.certificates();
    assert_eq!(left.len(), 1, "phase {phase}");
    assert_eq!(certificates(&world.cluster.bundle()), left, "phase {phase}");
    assert!(world.replicas.iter().all(|replica| replica.is_ready_now()), "phase {phase}");
    world
}
