//! Several parts in one pod: the laws hold for each, and injection knows none of them by name.

use super::*;
use crate::core::wiring::parts::sample::{LIBRARY, library, spool};

fn with(parts: Vec<PodPart>) -> Wiring {
    let mut wiring = Wiring { parts, ..wiring(true) };
    let library =
        Entry { name: "LIBRARY_PATH".into(), value: "/library".into(), group: Group::Part(&LIBRARY), why: "" };
    wiring.env.push(library);
    wiring
}

fn every_part() -> Vec<PodPart> {
    let mut parts = wiring(true).parts;
    parts.extend([spool("mlflow", "https://mlflow.example"), library("registry.example/library:1")]);
    parts
}

fn wired(workload: &Value, wiring: &Wiring) -> (Value, InjectionResult) {
    let read = Workload::read(Kind::Deployment, workload).unwrap();
    let injection = inject(&read, wiring, &ContainerNames::default(), &Platform::default()).unwrap();
    let again = patched(workload, injection.patch.clone());
    let repeated = inject(
        &Workload::read(Kind::Deployment, &again).unwrap(),
        wiring,
        &ContainerNames::default(),
        &Platform::default(),
    );
    assert_eq!(repeated.unwrap().patch, [], "injected twice");
    (again, injection)
}

fn names_of(workload: &Value, list: &str) -> Vec<String> {
    let entries = pod(workload)[list].as_array().into_iter().flatten();
    entries.map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
}

fn bare() -> Value {
    let embedder = json!({"name": "embedder", "image": "e", "restartPolicy": "Always"});
    let migrate = json!({"name": "migrate", "image": "m"});
    deployment(&json!({
        "containers": [{"name": "agent", "image": "a"}],
        "initContainers": [migrate, embedder],
    }))
}

#[test]
fn every_part_is_brought_before_the_agents_and_taken_out_again() {
    let (wired, injection) = wired(&bare(), &with(every_part()));
    assert_eq!(names_of(&wired, "volumes"), ["ca-bundle", "ca-sources", "spool", "spool-token", "library"]);
    assert_eq!(names_of(&wired, "initContainers"), ["migrate", "merge-ca", "spooler", "copy-library", "embedder"]);
    for container in [&pod(&wired)["containers"][0], &pod(&wired)["initContainers"][4]] {
        let mounts = container["volumeMounts"].as_array().unwrap();
        let paths: Vec<_> = mounts.iter().map(|mount| mount["mountPath"].as_str().unwrap()).collect();
        assert_eq!(paths, ["/tmp/ca-bundle", "/library"]);
    }
    let spooler = &pod(&wired)["initContainers"][2];
    assert_eq!(spooler["env"], json!([{"name": "SPOOL_TO", "value": "https://mlflow.example"}]), "it is no agent");
    assert_eq!(spooler["resources"], json!({"requests": {"memory": "32Mi"}}), "it asks for what it needs itself");
    let evictable = &wired["spec"]["template"]["metadata"]["annotations"][names::ANNOTATION_EVICTABLE_VOLUMES];
    assert_eq!(evictable, "ca-bundle,library,spool");
    assert_eq!(injection.notes, []);
    assert_eq!(uninjected(&wired), bare());
}

#[test]
fn parts_come_and_go_by_themselves() {
    let all = every_part();
    for (before, after) in [(0..3, 0..1), (0..1, 0..3), (0..2, 1..3), (1..3, 0..2), (0..3, 0..0), (0..0, 1..3)] {
        let (one, _) = wired(&bare(), &with(all[before.clone()].to_vec()));
        let (other, _) = wired(&one, &with(all[after.clone()].to_vec()));
        let (expected, _) = wired(&bare(), &with(all[after.clone()].to_vec()));
        for list in ["volumes", "initContainers"] {
            let sorted = |workload: &Value| {
                let mut names = names_of(workload, list);
                names.sort();
                names
            };
            assert_eq!(sorted(&other), sorted(&expected), "{before:?} {after:?}");
        }
        let of_agents = names_of(&other, "initContainers");
        assert_eq!(of_agents.last().map(String::as_str), Some("embedder"), "{of_agents:?}");
        let annotation = |workload: &Value| workload["spec"]["template"]["metadata"]["annotations"].clone();
        let evictable = names::ANNOTATION_EVICTABLE_VOLUMES;
        assert_eq!(annotation(&other)[evictable], annotation(&expected)[evictable], "{before:?} {after:?}");
        assert_eq!(uninjected(&other), bare(), "{before:?} {after:?}");
    }
}

#[test]
fn what_takes_the_place_of_one_part_withholds_that_one_alone() {
    let own = json!({"containers": [{"name": "agent", "image": "a"}, {"name": "spooler", "image": "mine"}]});
    let (wired, injection) = wired(&deployment(&own), &with(every_part()));
    assert_eq!(
        injection.notes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["KeptByUser pod: container/spooler"]
    );
    assert_eq!(names_of(&wired, "initContainers"), ["merge-ca", "copy-library"]);
    assert_eq!(uninjected(&wired), deployment(&own));
}

#[test]
fn a_variable_of_a_part_gives_way_to_its_rival_and_goes_with_its_part() {
    let variables = |workload: &Value| -> Vec<String> {
        let env = pod(workload)["containers"][0]["env"].as_array().unwrap();
        env.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
    };
    let agent = json!({"name": "agent", "image": "a", "env": [{"name": "LIBRARY_HOME", "value": "/mine"}]});
    let (own, injection) = wired(&deployment(&json!({"containers": [agent]})), &with(every_part()));
    assert!(!variables(&own).contains(&"LIBRARY_PATH".to_owned()));
    assert_eq!(injection.notes[0].to_string(), "KeptByUser agent: LIBRARY_HOME");
    assert!(variables(&wired(&bare(), &with(every_part())).0).contains(&"LIBRARY_PATH".to_owned()));
    assert!(!variables(&wired(&bare(), &with(Vec::new())).0).contains(&"LIBRARY_PATH".to_owned()));
}

#[test]
fn a_part_that_became_another_one_is_replaced_and_a_newer_image_alone_rolls_nothing() {
    let of = |audience: &str, to: &str, image: &str| with(vec![spool(audience, to), library(image)]);
    let (first, injection) = wired(&bare(), &of("mlflow", "https://a", "library:1"));
    for changed in [
        of("relay", "https://a", "library:1"),
        of("mlflow", "https://b", "library:1"),
        // Its command says what it copies, so that its image counts.
        of("mlflow", "https://a", "library:2"),
    ] {
        let (_, next) = wired(&first, &changed);
        assert_ne!(next.hash, injection.hash);
        assert_ne!(next.patch, []);
    }
    let mut older = first.clone();
    older["spec"]["template"]["spec"]["initContainers"][1]["image"] = json!("operator:0");
    let quiet = Wiring { renews: false, ..of("mlflow", "https://a", "library:1") };
    let (same, _) = wired(&older, &quiet);
    assert_eq!(same, older);
}
