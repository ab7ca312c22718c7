//! SIGKILL at every single write: whatever was written, the next start makes the rest of it, and nothing twice.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Herd, change_spec, is_soak, label_namespace, seeds};
use crate::cluster::{STRICT, wait_for, wait_until};
use crate::operator::Site;
use crate::operator::process::Operator;
use crate::proxy::{Fault, Moment, Proxy, Random};

const TOUCH: &str = agent_tracing::names::ANNOTATION_TOUCH;
const MOMENTS: [Moment; 3] = [Moment::Before, Moment::Unheard, Moment::Heard];

/// Something that a start of the operator has to bring about.
struct Path {
    name: &'static str,
    /// Makes the state that the operator finds; it is down meanwhile.
    arrange: fn(&Site, &mut Herd, usize),
    verdict: fn(&Site, &mut Herd, &str),
}

const PATHS: [Path; 6] = [
    Path {
        name: "first wiring",
        arrange: |site, herd, _| herd.create(site),
        verdict: |site, herd, after| herd.assert_wired_once(site, after),
    },
    Path {
        name: "changed spec",
        arrange: |site, herd, round| {
            let wired = herd.wired(site);
            herd.create_as(site, &wired);
            change_spec(site, 10 + round);
        },
        verdict: |site, herd, after| herd.assert_wired_once(site, after),
    },
    Path {
        name: "stripped entries",
        arrange: |site, herd, _| {
            let mut stripped = herd.wired(site);
            stripped.iter_mut().for_each(strip);
            herd.create_as(site, &stripped);
        },
        verdict: |site, herd, after| herd.assert_wired_once(site, after),
    },
    Path {
        name: "namespace without its label",
        arrange: |site, herd, _| {
            label_namespace(site, true);
            let wired = herd.wired(site);
            herd.create_as(site, &wired);
            label_namespace(site, false);
        },
        verdict: |site, herd, after| {
            herd.assert_given_back_once(site, after);
            label_namespace(site, true);
        },
    },
    Path {
        name: "new server",
        arrange: |site, _, round| {
            if round > 0 {
                site.admin.delete("AgentTracing", &site.namespace.0, &format!("server-{}", round - 1));
            }
            site.admin.create(&server(site, round), STRICT).unwrap();
        },
        verdict: |site, _, after| assert_served(site, after),
    },
    // The last: there is nothing to be wired by afterwards.
    Path {
        name: "AgentTracing deleted",
        arrange: |site, herd, _| {
            if herd.manifests_wired.is_empty() {
                herd.manifests_wired = herd.wired(site);
            }
            let wired = herd.manifests_wired.clone();
            herd.create_as(site, &wired);
            // The next one would take them over.
            for tracing in site.admin.list("AgentTracing", &site.namespace.0) {
                site.admin.delete("AgentTracing", &site.namespace.0, tracing["metadata"]["name"].as_str().unwrap());
            }
        },
        verdict: |site, herd, after| herd.assert_given_back_once(site, after),
    },
];

/// Takes a variable of ours out of the first container.
fn strip(workload: &mut Value) {
    let env = workload.pointer_mut(&crate::support::in_template(workload, "/spec/containers/0/env")).unwrap();
    let env = env.as_array_mut().unwrap();
    let before = env.len();
    env.retain(|entry| entry["name"] != "MLFLOW_TRACKING_URI");
    assert_eq!(env.len() + 1, before);
}

/// A further AgentTracing; the workloads belong to the first one.
fn server(site: &Site, round: usize) -> Value {
    let mut tracing = site.tracing();
    tracing["metadata"]["name"] = json!(format!("server-{round}"));
    tracing
}

fn assert_served(site: &Site, after: &str) {
    let ns = site.namespace.0.as_str();
    let all = || site.admin.list("AgentTracing", ns);
    let newest = all().into_iter().max_by_key(|t| t["metadata"]["creationTimestamp"].to_string()).unwrap();
    let child = format!("{}-mlflow", newest["metadata"]["name"].as_str().unwrap());
    let kinds = ["Deployment", "Service", "PersistentVolumeClaim", "NetworkPolicy"];
    wait_until(&format!("{after}: the server's objects"), || {
        kinds.iter().all(|kind| site.admin.get(kind, ns, &child).is_ok())
    });
    std::thread::sleep(Duration::from_millis(1500));
    let deployment = site.admin.get("Deployment", ns, &child).unwrap();
    assert_eq!(deployment["metadata"]["generation"], 1, "{after}: {deployment:#}");
}

#[test]
#[ignore = "needs an API server: make test"]
fn whatever_write_is_its_last_the_next_start_makes_the_rest_of_it_and_nothing_twice() {
    for seed in seeds(1) {
        let mut site = Site::open(&format!("operator-kills-{seed}"));
        let proxy = Proxy::start(seed);
        let mut random = Random(seed);
        let mut herd = Herd::of(&site, "teller");
        let mut round = 0;
        for path in PATHS {
            let began = Instant::now();
            let mut needed = None;
            for (at, moment) in lives(&mut random) {
                if needed.is_some_and(|needed| at > needed) {
                    break;
                }
                needed = killed_at(&mut site, &proxy, &path, &mut herd, (at, moment), round).or(needed);
                round += 1;
            }
            println!("{}: of {needed:?} writes, {:.0} s", path.name, began.elapsed().as_secs_f64());
            assert!(!is_soak() || needed.is_some(), "{}: there is no end of its writes", path.name);
        }
        let _ = site.operator.take();
    }
}

/// Nobody undid what never came about: the fifth life does not take the earlier ones for somebody who strips it.
#[test]
#[ignore = "needs an API server: make test"]
fn an_operator_that_is_killed_at_the_same_touch_again_and_again_is_not_its_own_opponent() {
    let mut site = Site::open("operator-again");
    let proxy = Proxy::start(1);
    let mut herd = Herd::of(&site, "teller");
    drop(site.operator.take());
    herd.create(&site);
    let touch = || {
        herd.live(&site)
            .iter()
            .filter_map(|l| l["metadata"]["annotations"][TOUCH].as_str().map(String::from))
            .collect::<Vec<_>>()
    };
    for life in 1..=4 {
        let seen = touch();
        // The first write of some is an event or the status.
        for _ in 0..5 {
            let fault = Fault::Signal { signal: "-KILL", at: 1, moment: Moment::Before };
            let mut victim = Operator::start_through(&site.namespace.0, &proxy, fault);
            wait_until("it is killed", || victim.has_ended().is_some());
            if touch() != seen {
                break;
            }
        }
        assert_ne!(touch(), seen, "life {life}");
    }
    assert_eq!(touch().len(), 1, "all of them at the same workload: {:?}", touch());
    site.operator = Some(Operator::start_through(&site.namespace.0, &proxy, Fault::None));
    herd.assert_wired_once(&site, "four lives that ended at a touch");
    drop(site.operator.take());
}

/// At which writes lives end, and how: two for each path in every run, in the soak all there are.
fn lives(random: &mut Random) -> Vec<(usize, Moment)> {
    if is_soak() {
        return (1..40).flat_map(|at| MOMENTS.map(|moment| (at, moment))).collect();
    }
    let mut below = |limit| usize::try_from(random.below(limit)).unwrap();
    vec![(1 + below(4), MOMENTS[below(3)]), (5 + below(4), MOMENTS[below(3)])]
}

/// One life that ends at a write, and the next one. How many writes there were, where there were fewer.
fn killed_at(
    site: &mut Site,
    proxy: &Proxy,
    path: &Path,
    herd: &mut Herd,
    (at, moment): (usize, Moment),
    round: usize,
) -> Option<usize> {
    drop(site.operator.take());
    (path.arrange)(site, herd, round);
    let after = format!("{}, killed at write {at} ({moment:?})", path.name);
    let mut victim = Operator::start_through(&site.namespace.0, proxy, Fault::Signal { signal: "-KILL", at, moment });
    let (mut writes, mut since) = (0, Instant::now());
    wait_for(&after, Duration::from_secs(120), || {
        let seen = proxy.seen().writes.len();
        if seen != writes {
            (writes, since) = (seen, Instant::now());
        }
        victim.has_ended().is_some() || (writes > 0 && since.elapsed() > Duration::from_secs(6))
    });
    let seen = proxy.seen();
    assert_eq!(victim.has_ended().is_some(), seen.signalled, "{after}: {seen:#?}");
    if !seen.signalled {
        proxy.heal();
        site.operator = Some(victim);
        (path.verdict)(site, herd, &after);
        return Some(writes);
    }
    drop(victim);
    site.operator = Some(Operator::start_through(&site.namespace.0, proxy, Fault::None));
    (path.verdict)(site, herd, &after);
    None
}
