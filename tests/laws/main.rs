//! The laws of injection, over generated workloads of every kind: 10,000 for each, or as many as `LAW_CASES` says.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod generated;
mod injectors;

use agent_tracing::api::ContainerNames;
use agent_tracing::cli::documents::workload_kind;
use agent_tracing::core::inject::view::Workload;
use agent_tracing::core::inject::{InjectionResult, inject, uninject};
use agent_tracing::core::settings::{MergeCa, Platform};
use agent_tracing::core::wiring::Wiring;
use json_patch::Patch;
use proptest::prelude::*;
use serde_json::{Value, json};

use generated::{any_workload, wirings};

proptest! {
    #![proptest_config(config(10_000))]

    #[test]
    fn injecting_twice_is_injecting_once(before in any_workload(), wiring in wirings()) {
        let once = injected(&before, &wiring);
        let again = injection(&once, &wiring);
        prop_assert!(again.patch.is_empty(), "the second patch is {:?}", again.patch);
        prop_assert_eq!(again.hash, injection(&before, &wiring).hash);
    }

    #[test]
    fn uninjecting_gives_back_the_very_bytes(before in any_workload(), wiring in wirings()) {
        let after = uninjected(&injected(&before, &wiring));
        prop_assert_eq!(after.to_string(), before.to_string());
    }

    #[test]
    fn a_changed_wiring_ends_where_a_fresh_one_does(before in any_workload(), first in wirings(), second in wirings()) {
        let changed = injected(&injected(&before, &first), &second);
        let fresh = injected(&before, &second);
        for (changed, fresh) in containers(&changed).zip(containers(&fresh)) {
            prop_assert_eq!(sorted_env(changed), sorted_env(fresh));
        }
        for list in ["volumes", "imagePullSecrets"] {
            prop_assert_eq!(by_name(&changed, list), by_name(&fresh, list), "{}", list);
        }
        let merge = |document: &Value| by_name(document, "initContainers").into_iter().find(|c| c["name"] == "merge-ca");
        prop_assert_eq!(merge(&changed), merge(&fresh));
        prop_assert_eq!(uninjected(&changed).to_string(), before.to_string());
    }

    #[test]
    fn the_users_own_volumes_and_mounts_never_change(before in any_workload(), wiring in wirings()) {
        let after = injected(&before, &wiring);
        let names = |document: &Value, list: &str| -> Vec<Value> {
            pod_list(document, list).iter().map(|e| e["name"].clone()).collect()
        };
        for list in ["volumes", "imagePullSecrets"] {
            prop_assert!(names(&after, list).starts_with(&names(&before, list)), "{}", list);
        }
        let mut init = names(&after, "initContainers");
        init.retain(|name| *name != "merge-ca");
        prop_assert_eq!(init, names(&before, "initContainers"));
        for (before, after) in containers(&before).zip(containers(&after)) {
            let mounts = |container: &Value| container["volumeMounts"].as_array().cloned().unwrap_or_default();
            prop_assert!(mounts(after).starts_with(&mounts(before)));
        }
    }

    #[test]
    fn what_a_container_mounts_is_there(before in any_workload(), wiring in wirings()) {
        let after = injected(&before, &wiring);
        let has = |name: &Value| pod_list(&after, "volumes").iter().any(|volume| volume["name"] == *name);
        for container in all_containers(&after) {
            let names = container["env"].as_array().into_iter().flatten().filter(|e| e["value"] == "/tmp/ca-bundle/combined-ca.crt");
            let mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
            let bundle = mounts.iter().any(|m| m["mountPath"] == "/tmp/ca-bundle");
            prop_assert!(names.count() == 0 || bundle, "a missing file kills every call");
            prop_assert!(mounts.iter().all(|mount| has(&mount["name"])));
        }
    }

    #[test]
    fn an_agent_starts_after_its_bundle_is_there(before in any_workload(), wiring in wirings()) {
        let init = pod_list(&injected(&before, &wiring), "initContainers");
        let merge = init.iter().position(|container| container["name"] == "merge-ca");
        let agent = init.iter().position(|container| container["volumeMounts"].to_string().contains("\"/tmp/ca-bundle\"") && container["name"] != "merge-ca");
        prop_assert!(merge.is_none() || agent.is_none() || merge < agent, "{:?} {:?}", merge, agent);
    }

    /// What was ours and is edited refers to volumes of ours; without them the API server refuses the workload.
    #[test]
    fn an_edit_of_the_users_never_loses_its_volume(before in any_workload(), wiring in wirings(), victim in 0..3) {
        let mut edited = injected(&before, &wiring);
        let spec = pod_mut(&mut edited);
        match victim {
            0 => if let Some(merge) = spec["initContainers"].as_array_mut().and_then(|l| l.iter_mut().find(|c| c["name"] == "merge-ca")) {
                merge["args"] = json!(["mine"]);
            },
            1 => if let Some(mount) = spec["containers"][0]["volumeMounts"].as_array_mut().and_then(|l| l.last_mut()) {
                mount["subPath"] = json!("mine");
            },
            _ if spec["volumes"].as_array().is_some_and(|list| list.iter().any(|v| v["name"] == "ca-bundle")) => {
                spec["containers"][0]["volumeMounts"] = json!([{"name": "ca-bundle", "mountPath": "/certs"}]);
            }
            _ => {}
        }
        let once = injected(&edited, &wiring);
        prop_assert!(injection(&once, &wiring).patch.is_empty());
        for after in [once, uninjected(&edited)] {
            let has = |name: &Value| pod_list(&after, "volumes").iter().any(|volume| volume["name"] == *name);
            for container in all_containers(&after) {
                let mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
                prop_assert!(mounts.iter().all(|mount| has(&mount["name"])), "{}", container);
            }
        }
    }

    #[test]
    fn the_users_own_entries_and_their_order_never_change(before in any_workload(), wiring in wirings()) {
        let after = injected(&before, &wiring);
        for (before, after) in containers(&before).zip(containers(&after)) {
            let empty = Vec::new();
            let old = before["env"].as_array().unwrap_or(&empty);
            let new = after["env"].as_array().unwrap_or(&empty);
            prop_assert_eq!(&new[..old.len()], &old[..]);
        }
    }

    #[test]
    fn a_stripped_entry_comes_back(before in any_workload(), wiring in wirings(), victim in any::<prop::sample::Index>()) {
        let wired = injected(&before, &wiring);
        let mut stripped = wired.clone();
        let Some(removed) = strip_one_of_ours(&mut stripped, &before, victim) else { return Ok(()) };
        let repaired = injected(&stripped, &wiring);
        for (repaired, wired) in containers(&repaired).zip(containers(&wired)) {
            prop_assert_eq!(sorted_env(repaired), sorted_env(wired), "after {} was stripped", removed);
        }
    }

    #[test]
    fn an_edited_entry_is_the_users_from_then_on(before in any_workload(), wiring in wirings(), victim in any::<prop::sample::Index>()) {
        let mut edited = injected(&before, &wiring);
        let Some(name) = edit_one_of_ours(&mut edited, &before, victim) else { return Ok(()) };
        let has_edit = |value: &Value| containers(value)
            .flat_map(|c| c["env"].as_array().cloned().unwrap_or_default())
            .any(|e| e["name"] == name.as_str() && e["value"] == EDIT);
        prop_assert!(has_edit(&injected(&edited, &wiring)));
        prop_assert!(has_edit(&uninjected(&edited)));
    }

    #[test]
    fn edits_beside_ours_survive_removal(before in any_workload(), wiring in wirings()) {
        let mut wired = injected(&before, &wiring);
        let mut wanted = before.clone();
        for document in [&mut wired, &mut wanted] {
            for container in pod_mut(document)["containers"].as_array_mut().into_iter().flatten() {
                if let Some(env) = container.get_mut("env").and_then(Value::as_array_mut) {
                    env.insert(0, json!({"name": "LATER", "value": "x"}));
                }
            }
        }
        // Where we made the list, the user's later entry keeps it alive; where the user had one, it is theirs anyway.
        let after = uninjected(&wired);
        for (after, wanted) in containers(&after).zip(containers(&wanted)) {
            let expected = wanted.get("env").cloned();
            match expected {
                Some(env) => prop_assert_eq!(&after["env"], &env),
                None => {
                    let only_theirs = json!([{"name": "LATER", "value": "x"}]);
                    let kept = after.get("env").is_none_or(|env| *env == only_theirs);
                    prop_assert!(kept);
                }
            }
        }
    }
}

/// As many cases as the environment says. Not by proptest's own variable, which would also count where a case is 120 orders.
fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var("LAW_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(cases), failure_persistence: None, ..ProptestConfig::default() }
}

const EDIT: &str = "edited by the user";

fn injection(document: &Value, wiring: &Wiring) -> InjectionResult {
    inject(&workload(document), wiring, &ContainerNames::default(), &platform()).unwrap()
}

fn platform() -> Platform {
    let merge_ca = MergeCa { pull_secrets: vec!["mirror".into()], ..MergeCa::default() };
    Platform { merge_ca, ..Platform::default() }
}

fn injected(document: &Value, wiring: &Wiring) -> Value {
    patched(document, injection(document, wiring).patch)
}

fn uninjected(document: &Value) -> Value {
    patched(document, uninject(&workload(document)).unwrap())
}

fn patched(document: &Value, patch: Vec<json_patch::PatchOperation>) -> Value {
    let mut out = document.clone();
    json_patch::patch(&mut out, &Patch(patch)).expect("the patch applies");
    out
}

fn workload(document: &Value) -> Workload<'_> {
    let kind = workload_kind(document).expect("a kind that is wired");
    Workload::read(kind, document).expect("a workload")
}

/// The spec of a workload's pods.
fn pod(document: &Value) -> &Value {
    document.pointer(&pod_path(document)).expect("a pod")
}

fn pod_mut(document: &mut Value) -> &mut Value {
    let path = pod_path(document);
    document.pointer_mut(&path).expect("a pod")
}

fn pod_path(document: &Value) -> String {
    let tokens = workload(document).kind.template();
    tokens.iter().chain(&["spec"]).map(|token| format!("/{token}")).collect()
}

/// The user's own.
fn containers(document: &Value) -> impl Iterator<Item = &Value> {
    all_containers(document).filter(|container| container["name"] != "merge-ca")
}

fn all_containers(document: &Value) -> impl Iterator<Item = &Value> {
    let spec = pod(document);
    ["containers", "initContainers"].into_iter().flat_map(|list| spec[list].as_array().into_iter().flatten())
}

fn pod_list(document: &Value, list: &str) -> Vec<Value> {
    pod(document)[list].as_array().cloned().unwrap_or_default()
}

fn by_name(document: &Value, list: &str) -> Vec<Value> {
    let mut all = pod_list(document, list);
    all.sort_by_key(|entry| entry["name"].to_string());
    all
}

fn sorted_env(container: &Value) -> Vec<String> {
    let mut env: Vec<String> = container["env"].as_array().into_iter().flatten().map(Value::to_string).collect();
    env.sort();
    env
}

/// The (container, entry) positions that injection added: all behind the user's own.
fn ours(after: &Value, before: &Value) -> Vec<(usize, usize)> {
    let list = |document: &Value| pod_list(document, "containers");
    let length = |container: &Value| container["env"].as_array().map_or(0, Vec::len);
    list(after)
        .iter()
        .zip(list(before))
        .enumerate()
        .flat_map(|(index, (after, before))| (length(&before)..length(after)).map(move |entry| (index, entry)))
        .collect()
}

fn strip_one_of_ours(document: &mut Value, before: &Value, victim: prop::sample::Index) -> Option<String> {
    let ours = ours(document, before);
    if ours.is_empty() {
        return None;
    }
    let (container, entry) = ours[victim.index(ours.len())];
    let env = pod_mut(document)["containers"][container]["env"].as_array_mut()?;
    Some(env.remove(entry)["name"].to_string())
}

fn edit_one_of_ours(document: &mut Value, before: &Value, victim: prop::sample::Index) -> Option<String> {
    let ours = ours(document, before);
    if ours.is_empty() {
        return None;
    }
    let (container, entry) = ours[victim.index(ours.len())];
    let entry = &mut pod_mut(document)["containers"][container]["env"][entry];
    entry["value"] = json!(EDIT);
    Some(entry["name"].as_str()?.to_owned())
}
