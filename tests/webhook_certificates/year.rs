//! The year, and what follows of it.

use crate::cluster::Cluster;
use crate::walk::{DAY, World, certificates, start};

#[tokio::test]
async fn in_400_days_under_load_no_call_is_refused() {
    let mut world = World::begin(Cluster::new(), start()).await;
    let first = world.certificates();
    let mut signed = std::collections::BTreeSet::new();
    for _ in 0..400 {
        world.walk(DAY).await;
        signed.extend(world.replicas.iter().map(|replica| replica.expires()));
        assert!(
            world.replicas.iter().all(|replica| replica.is_ready_now()),
            "{}",
            world.replicas[0].readiness.report().1
        );
    }
    assert_eq!(world.refused, [] as [&str; 0]);
    assert!(world.calls > 3_000, "{}", world.calls);
    // One whole rotation, and a leaf each 60 days and at the rotation.
    assert_ne!(world.certificates(), first);
    assert_eq!(certificates(&world.cluster.bundle()), world.certificates());
    assert!((7..=8).contains(&signed.len()), "{signed:?}");
    let writes = world.cluster.writes();
    let updates = writes.iter().filter(|write| *write == "update secrets").count();
    assert_eq!((updates, writes.len()), (4, 8), "at rest nothing is written: {writes:?}");
}
