//! What goes wrong around the operator, one thing at a time. The verdict is the same for all of it: within a minute every
//! workload is as it should be, was rolled once for one cause, and nothing of the user's has changed.

mod kills;
mod server;
mod weather;

use std::time::{Duration, Instant};

use agent_tracing::names;
use serde_json::{Value, json};

use super::{KINDS, Site, agent_of, generation, record};
use crate::cluster::{STRICT, operator, wait_for};

/// How long after a fault everything has to be well.
const A_MINUTE: Duration = Duration::from_secs(60);

/// One workload of each kind, as the user wrote them.
struct Herd {
    manifests: Vec<Value>,
    /// As they are stored without us.
    bare: Vec<Value>,
    /// Causes to roll them since they were created.
    causes: i64,
    /// Wired, for when there is no AgentTracing any more.
    manifests_wired: Vec<Value>,
}

impl Herd {
    fn of(site: &Site, name: &str) -> Self {
        let manifests: Vec<_> = KINDS.iter().map(|kind| agent_of(*kind, &site.namespace.0, name)).collect();
        let bare = manifests.iter().map(|manifest| site.stored_elsewhere(manifest)).collect();
        Self { manifests, bare, causes: 0, manifests_wired: Vec::new() }
    }

    /// Creates these in place of the herd, whatever became of it.
    fn create_as(&mut self, site: &Site, manifests: &[Value]) {
        for manifest in &self.manifests {
            let (kind, name) = (manifest["kind"].as_str().unwrap(), manifest["metadata"]["name"].as_str().unwrap());
            site.admin.delete(kind, &site.namespace.0, name);
            wait_for("it is gone", A_MINUTE, || site.admin.get(kind, &site.namespace.0, name).is_err());
        }
        for manifest in manifests {
            site.admin.create(manifest, STRICT).unwrap();
        }
        self.causes = 0;
        // Changed before its controller has seen it, a Deployment has no ReplicaSet that tells of it. Not for long: an API server
        // that has just restarted may not have its controllers back for a minute.
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end && !self.live(site).iter().all(|live| revision(live).is_some()) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn create(&mut self, site: &Site) {
        let manifests = self.manifests.clone();
        self.create_as(site, &manifests);
    }

    fn live(&self, site: &Site) -> Vec<Value> {
        let mut live: Vec<_> = self.manifests.iter().map(|manifest| site.admin.live(manifest)).collect();
        for object in &mut live {
            object["metadata"].as_object_mut().unwrap().remove("managedFields");
        }
        live
    }

    /// As the webhook would have wired them.
    fn wired(&self, site: &Site) -> Vec<Value> {
        self.manifests.iter().map(|manifest| site.by_command_line(manifest)).collect()
    }

    /// The verdict after one cause for all of them to change.
    #[track_caller]
    fn assert_wired_once(&mut self, site: &Site, after: &str) {
        self.causes += 1;
        self.assert_wired(site, after);
    }

    /// The verdict after as many changes as were counted.
    #[track_caller]
    fn assert_wired(&self, site: &Site, after: &str) {
        let wanted: Vec<_> = self.wired(site).iter().map(hash).collect();
        assert!(wanted.iter().all(Option::is_some), "{after}: {wanted:?}");
        self.assert_become(site, after, |live, index| hash(live) == wanted[index]);
        for (live, bare) in self.live(site).iter().zip(&self.bare) {
            let printed = operator(&["uninject", "-f", "-", "-o", "json"], &live.to_string()).unwrap();
            let without_ours: Value = serde_json::from_str(&printed).unwrap();
            assert_eq!(without_ours["spec"], bare["spec"], "{after}: {} is not the user's", live["kind"]);
        }
    }

    /// The verdict after the end of the reason to wire them: byte for byte what they were.
    #[track_caller]
    fn assert_given_back_once(&mut self, site: &Site, after: &str) {
        self.causes += 1;
        self.assert_become(site, after, |live, index| {
            let ours = live["metadata"]["annotations"].to_string().contains(names::PREFIX);
            live["spec"] == self.bare[index]["spec"]
                && live["metadata"]["labels"] == self.bare[index]["metadata"]["labels"]
                && !ours
        });
    }

    #[track_caller]
    fn assert_become(&self, site: &Site, after: &str, is_well: impl Fn(&Value, usize) -> bool) {
        let mut seen = Vec::new();
        let all_well = |seen: &mut Vec<Value>| {
            *seen = self.live(site);
            seen.iter().enumerate().all(|(index, live)| is_well(live, index))
        };
        let end = Instant::now() + A_MINUTE;
        while !all_well(&mut seen) {
            let unwell = || seen.iter().enumerate().filter(|(index, live)| !is_well(live, *index));
            if Instant::now() > end {
                let status = site.admin.get("AgentTracing", &site.namespace.0, "tracing").map(|t| t["status"].clone());
                let unwell: String = unwell().map(|(_, live)| format!("{live:#}\n")).collect();
                panic!("a minute after {after}: {unwell}{:#}", status.unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        // One pass more, which would roll them once more.
        std::thread::sleep(Duration::from_millis(1500));
        let live = self.live(site);
        for (index, live) in live.iter().enumerate() {
            assert!(is_well(live, index), "{after}: it did not stay so: {live:#}");
        }
        for (live, manifest) in live.iter().zip(&self.manifests) {
            let causes = self.causes;
            let mut rolls = generation(live) - 1;
            if rolls > causes && live["kind"] == "Deployment" {
                let metadata = &live["metadata"];
                wait_for(&format!("{after}: the deployment controller, {metadata:#}"), 3 * A_MINUTE, || {
                    revision(&site.admin.live(manifest)).map(|revision| rolls = revision - 1).is_some()
                });
            }
            assert_eq!(rolls, causes, "{after}: {:#}", live["metadata"]);
        }
    }
}

/// Which template of a workload this is, once its controller has seen it. Every cause changes the spec, and with it the
/// generation, once; a Deployment's grows with every annotation, too, so there its ReplicaSets tell.
fn revision(live: &Value) -> Option<i64> {
    if live["kind"] != "Deployment" {
        return Some(generation(live));
    }
    let seen = live["status"]["observedGeneration"] == live["metadata"]["generation"];
    let revision = live["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str()?;
    seen.then(|| revision.parse().unwrap())
}

/// What its wiring is, by its own record.
fn hash(workload: &Value) -> Option<String> {
    let record: Value = serde_json::from_str(record(workload)?).ok()?;
    Some(record["hash"].as_str()?.to_owned())
}

/// A spec that makes another wiring of every number.
fn change_spec(site: &Site, seconds: usize) {
    let mut changed = site.tracing();
    changed["spec"] = json!({"sdk": {"timeoutSeconds": seconds}});
    site.admin.merge(&changed, STRICT).unwrap();
}

fn label_namespace(site: &Site, enabled: bool) {
    let value = if enabled { json!(names::ENABLED) } else { Value::Null };
    let label =
        json!({"kind": "Namespace", "metadata": {"name": site.namespace.0, "labels": {names::LABEL_INJECTION: value}}});
    site.admin.merge(&label, STRICT).unwrap();
}

/// One in every run, many in the soak; `SEED` chooses another one.
fn seeds(many: u64) -> std::ops::RangeInclusive<u64> {
    let first = std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap());
    if is_soak() { first..=first + many - 1 } else { first..=first }
}

fn is_soak() -> bool {
    std::env::var_os("SOAK").is_some()
}
