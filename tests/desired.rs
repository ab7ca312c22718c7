//! The children of a standalone server and of a relay, as they are applied: one folder of `tests/golden-desired` each.
//!
//! `UPDATE_GOLDEN=1 cargo test --test desired` writes what is expected anew. `tests/golden-desired/api.sh` applies all of
//! them to a real API server and compares what it answers.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use agent_tracing::api::AgentTracing;
use agent_tracing::core::children::child::{Change, TracingOwner};
use agent_tracing::core::children::drift::has_drifted;
use agent_tracing::core::children::namespace::{relay_role, relay_role_binding};
use agent_tracing::core::children::{Desired, DesiredRelay, desired, desired_relay};
use agent_tracing::core::settings::{MergeCa, Platform, Server, Settings, parse};
use agent_tracing::names;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const MIGRATE: &str = include_str!("../src/core/migrate.py");

#[test]
fn the_children_are_those_of_the_golden_files() {
    let mut stale = Vec::new();
    for case in cases() {
        let shown: String = children(&case)
            .iter_mut()
            .map(|child| {
                assert_eq!(hash(child).len(), 8);
                child["metadata"]["annotations"][names::ANNOTATION_APPLIED] = json!("(hash of this object)");
                if let Some(script) = child.pointer_mut("/spec/template/spec/initContainers/0/command/2") {
                    assert_eq!(*script, json!(MIGRATE.replace('$', "$$")));
                    *script = json!("(src/core/migrate.py)");
                }
                format!("---\n{}", serde_yaml::to_string(child).unwrap())
            })
            .collect();
        let expected = case.join("expected.yaml");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, shown).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != shown {
            stale.push(expected);
        }
    }
    assert!(stale.is_empty(), "not as expected; if it is right: UPDATE_GOLDEN=1 cargo test --test desired\n{stale:#?}");
}

#[test]
fn a_child_does_not_drift_from_itself_and_its_hash_tells_a_field_that_is_gone() {
    let with = children(&folder("resources"));
    let without = children(&folder("minimal"));
    for (with, without) in with.iter().zip(&without) {
        assert!(!has_drifted(with, with));
        if with["kind"] == "Deployment" {
            assert_ne!(hash(with), hash(without));
            assert!(has_drifted(without, with), "a toleration that is no longer wanted");
        } else {
            assert_eq!(hash(with), hash(without), "{}", with["kind"]);
        }
    }
}

#[test]
fn the_selector_never_changes_and_always_matches_the_pods() {
    for case in cases() {
        for child in children(&case).iter().filter(|child| !child["spec"]["template"].is_null()) {
            let selector = &child["spec"]["selector"]["matchLabels"];
            let name = if child["kind"] == "Deployment" { "mlflow" } else { "agent-tracing-relay" };
            assert_eq!(*selector, json!({"app.kubernetes.io/instance": "tracing", "app.kubernetes.io/name": name}));
            assert!(!has_drifted(selector, &child["spec"]["template"]["metadata"]["labels"]), "{}", case.display());
        }
    }
}

/// The two servers of an AgentTracing are apart: by the one's selector nobody may find the other's pods.
#[test]
fn no_selector_finds_the_pods_of_the_other_server() {
    let all = children(&folder("relay-standalone-in-memory"));
    let of = |kind: &str| all.iter().find(|child| child["kind"] == kind).unwrap();
    let (mlflow, relay) = (of("Deployment"), of("StatefulSet"));
    for (one, other) in [(mlflow, relay), (relay, mlflow)] {
        let selector = &one["spec"]["selector"]["matchLabels"];
        assert!(has_drifted(selector, &other["spec"]["template"]["metadata"]["labels"]), "{selector}");
    }
}

/// What the API server lets nobody change of a StatefulSet is the same in every version, or it is replaced.
#[test]
fn an_upgrade_of_the_operator_changes_a_relays_pods_alone() {
    let (old, new) = (MergeCa::default(), MergeCa { image: "r.example/operator:v9".into(), ..MergeCa::default() });
    let [old, new] = [old, new].map(|merge_ca| relay(&folder("relay-cr"), merge_ca).stateful_set);
    assert_eq!(new.change(old.object()), Change::Apply);
    let [mut before, mut after] = [&old, &new].map(|child| child.object().unwrap()["spec"].clone());
    assert_ne!(before, after);
    for spec in [&mut before, &mut after] {
        spec.as_object_mut().unwrap().remove("template");
    }
    assert_eq!(before, after);
}

#[test]
fn another_volume_replaces_the_pods_and_a_new_spelling_of_the_size_does_not() {
    let child = relay(&folder("relay-cr"), MergeCa::default()).stateful_set;
    let with = |storage: Value| {
        let mut live = child.object().unwrap().clone();
        live["spec"]["volumeClaimTemplates"] = storage;
        // As an API server answers.
        live["metadata"]["uid"] = json!("u");
        child.change(Some(&live))
    };
    let claim = |size: &str| {
        let mut claims = child.object().unwrap()["spec"]["volumeClaimTemplates"].clone();
        claims[0]["spec"]["resources"]["requests"]["storage"] = json!(size);
        claims[0]["spec"]["volumeMode"] = json!("Filesystem");
        claims[0]["status"] = json!({"phase": "Pending"});
        claims
    };
    assert_eq!(with(claim("1Gi")), Change::Nothing);
    assert_eq!(with(claim("1024Mi")), Change::Nothing);
    assert_eq!(with(claim("2Gi")), Change::Replace);
    assert_eq!(with(json!(null)), Change::Replace, "from memory to a volume");
}

#[test]
fn only_a_claim_that_is_to_be_deleted_belongs_to_the_agenttracing() {
    for case in cases() {
        for child in children(&case) {
            let owned = !child["metadata"]["ownerReferences"].is_null();
            let kept = child["kind"] == "PersistentVolumeClaim" && !case.ends_with("delete-policy");
            assert_eq!(owned, !kept, "{} {}", case.display(), child["kind"]);
        }
    }
}

#[test]
#[ignore = "for tests/golden-desired/api.sh: writes $DIR/<case>/<n>.json, each case in a namespace of its name"]
fn render() {
    for (path, mut child) in on_api_server() {
        // The garbage collector takes whatever names an owner that does not exist.
        child["metadata"].as_object_mut().unwrap().remove("ownerReferences");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, serde_json::to_vec(&child).unwrap()).unwrap();
    }
}

#[test]
#[ignore = "for tests/golden-desired/api.sh: compares $DIR/<case>/<n>.json.live, what an API server answered"]
fn compare() {
    for (path, _) in on_api_server() {
        let read = |path: PathBuf| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
        let (child, live) = (read(path.clone()), read(path.with_extension("json.live")));
        assert!(!has_drifted(&child, &live), "{}: {live:#}", path.display());
    }
}

fn on_api_server() -> Vec<(PathBuf, Value)> {
    let dir = PathBuf::from(std::env::var_os("DIR").unwrap());
    let of_case = |case: PathBuf| {
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        let into = dir.join(&name);
        let children = children_in(&case, &name).into_iter().enumerate();
        children.map(move |(n, child)| (into.join(format!("{n}.json")), child))
    };
    cases().into_iter().flat_map(of_case).collect()
}

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden-desired").join(case)
}

fn cases() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder("")).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    cases.sort();
    assert!(cases.len() >= 12);
    cases
}

fn children(case: &Path) -> Vec<Value> {
    children_in(case, "bank")
}

fn children_in(case: &Path, namespace: &str) -> Vec<Value> {
    let mut tracing: AgentTracing = yaml(&case.join("tracing.yaml")).unwrap();
    tracing.metadata.namespace = Some(namespace.to_owned());
    let settings: Settings = parse(&tracing).unwrap();
    let platform: Value = yaml(&case.join("platform.yaml")).unwrap_or_default();
    let platform = Platform {
        openshift: platform["openshift"] == true,
        ipv6: platform["ipv6"] == true,
        cluster_domain: platform["clusterDomain"].as_str().unwrap_or("cluster.local").to_owned(),
        ..Platform::default()
    };
    let mut children = Vec::new();
    if let Server::Standalone(standalone) = &settings.server {
        let Desired { deployment, service, claim, network_policy } = desired(&settings, standalone, &platform);
        children.extend([deployment, service, claim, network_policy]);
    }
    if let Some(relay) = &settings.relay {
        let users = BTreeSet::from([TracingOwner { name: settings.name.clone(), uid: settings.uid.clone() }]);
        children.extend([relay_role(namespace, users.clone()), relay_role_binding(namespace, users)]);
        children.extend(desired_relay(&settings, relay, &platform).all().into_iter().cloned());
    }
    assert!(!children.is_empty(), "{}", case.display());
    children.iter().filter_map(|child| child.object().cloned()).collect()
}

fn relay(case: &Path, merge_ca: MergeCa) -> DesiredRelay {
    let mut tracing: AgentTracing = yaml(&case.join("tracing.yaml")).unwrap();
    tracing.metadata.namespace = Some("bank".to_owned());
    let settings = parse(&tracing).unwrap();
    desired_relay(&settings, settings.relay.as_ref().unwrap(), &Platform { merge_ca, ..Platform::default() })
}

fn yaml<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let text = fs::read_to_string(path).ok()?;
    Some(serde_yaml::from_str(&text).unwrap())
}

fn hash(child: &Value) -> String {
    child["metadata"]["annotations"][names::ANNOTATION_APPLIED].as_str().unwrap().to_owned()
}
