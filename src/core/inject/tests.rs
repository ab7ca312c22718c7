//! What the laws do not say: what becomes of templates that an earlier operator wired.

mod authorities;
mod parts;

use json_patch::Patch;
use serde_json::{Value, json};

use super::*;
use crate::api::{CaBundleScope, CaBundleStrategy};
use crate::core::settings::policy::CaChoice;
use crate::core::wiring::parts::AUTHORITIES;
use crate::core::wiring::parts::authorities::part;
use crate::core::wiring::{Entry, TRACKING_URI};

fn wiring(renews: bool) -> Wiring {
    let entry = |name: &str, group| Entry { name: name.to_owned(), value: "x".to_owned(), group, why: "for the test" };
    Wiring {
        tracing: "tracing".to_owned(),
        experiment: "till".to_owned(),
        env: vec![entry(TRACKING_URI, Group::Address), entry("REQUESTS_CA_BUNDLE", Group::Part(&AUTHORITIES))],
        parts: vec![part(&CaChoice {
            strategy: CaBundleStrategy::InitContainer,
            scope: CaBundleScope::All,
            config_maps: Vec::new(),
        })],
        token: None,
        renews,
    }
}

fn deployment(pod: &Value) -> Value {
    json!({"metadata": {"name": "till"}, "spec": {"template": {"spec": pod}}})
}

fn injected(workload: &Value, renews: bool) -> Value {
    let read = Workload::read(Kind::Deployment, workload).unwrap();
    let injection = inject(&read, &wiring(renews), &ContainerNames::default(), &Platform::default()).unwrap();
    patched(workload, injection.patch)
}

fn uninjected(workload: &Value) -> Value {
    patched(workload, uninject(&Workload::read(Kind::Deployment, workload).unwrap()).unwrap())
}

fn patched(workload: &Value, patch: Vec<PatchOperation>) -> Value {
    let mut out = workload.clone();
    json_patch::patch(&mut out, &Patch(patch)).unwrap();
    out
}

fn pod(workload: &Value) -> &Value {
    &workload["spec"]["template"]["spec"]
}

/// An upgrade of the operator, which has another image and asks for other resources, rolls nothing by itself.
#[test]
fn an_init_container_that_is_out_of_date_is_renewed_when_the_template_changes_anyway() {
    let before = deployment(&json!({"containers": [{"name": "agent", "image": "a"}]}));
    let current = injected(&before, true);
    let mut old = current.clone();
    let merge_ca = &mut old["spec"]["template"]["spec"]["initContainers"][0];
    merge_ca["image"] = json!("registry.example/operator:old");
    merge_ca["resources"] = json!({"limits": {"cpu": "50m", "memory": "64Mi"}});
    assert_eq!(injected(&old, false), old);
    assert_eq!(injected(&old, true), current);
    assert_eq!(uninjected(&old), before);
}

/// Case B17.
#[test]
fn the_init_container_is_moved_before_an_agent_that_was_added_in_front_of_it() {
    let agent = json!({"name": "agent", "image": "a"});
    let embedder = json!({"name": "embedder", "image": "e", "restartPolicy": "Always"});
    let migrate = json!({"name": "migrate", "image": "m"});
    let mut wired = injected(&deployment(&json!({"containers": [agent]})), true);
    let list = wired["spec"]["template"]["spec"]["initContainers"].as_array_mut().unwrap();
    list.splice(0..0, [migrate.clone(), embedder.clone()]);
    for renews in [false, true] {
        let again = injected(&wired, renews);
        let names = |list: &str| -> Vec<Value> {
            pod(&again)[list].as_array().unwrap().iter().map(|container| container["name"].clone()).collect()
        };
        assert_eq!(names("initContainers"), ["migrate", "merge-ca", "embedder"]);
        assert_eq!(injected(&again, renews), again);
        let expected = deployment(&json!({"containers": [agent], "initContainers": [migrate, embedder]}));
        assert_eq!(uninjected(&again), expected);
    }
}

/// Case B18.
#[test]
fn the_cluster_autoscaler_may_evict_what_it_might_before() {
    let name = names::ANNOTATION_EVICTABLE_VOLUMES;
    let annotation = |workload: &Value| workload["spec"]["template"]["metadata"]["annotations"][name].clone();
    let spec = json!({"containers": [{"name": "agent", "image": "a"}]});
    let before = deployment(&spec);
    let wired = injected(&before, false);
    assert_eq!(annotation(&wired), "ca-bundle");
    assert_eq!(uninjected(&wired), before);
    let mut forbidden = wired.clone();
    forbidden["spec"]["template"]["metadata"]["annotations"].as_object_mut().unwrap().remove(name);
    assert_eq!(injected(&forbidden, true), forbidden, "who takes it out forbids it");
    assert_eq!(uninjected(&forbidden), before);
    for (key, value) in [(names::ANNOTATION_SAFE_TO_EVICT, "false"), (name, "scratch")] {
        let own = json!({"metadata": {"annotations": {key: value}}, "spec": spec});
        let own = json!({"metadata": {"name": "till"}, "spec": {"template": own}});
        let wired = injected(&own, true);
        assert_eq!(wired["spec"]["template"]["metadata"]["annotations"][key], value);
        assert_ne!(annotation(&wired), "ca-bundle", "{key} is the user's word");
        assert_eq!(uninjected(&wired), own);
    }
}
