//! What docs/operations/gitops.md tells Terraform to overlook is what the operator writes, no more and no less (case B46).

use std::collections::BTreeSet;

use agent_tracing::names;
use serde_json::Value;

use super::{markdown, read};

/// A workload in mode CR, which gets all that there is: variables, authorities, a label and a record.
const CASE: &str = "tests/golden/cr-minimal";

#[test]
fn terraform_is_told_to_overlook_exactly_what_the_operator_writes() {
    let page = markdown::page("docs/operations/gitops.md");
    let block = page.blocks.iter().find(|block| block.language == "hcl").expect("Terraform's lines");
    let told: BTreeSet<_> = block
        .text
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("metadata[0]") || line.starts_with("spec[0]"))
        .map(|line| line.trim_end_matches(',').to_owned())
        .collect();

    let [before, after] = ["workload.yaml", "expected.yaml"].map(workload);
    let mut written = BTreeSet::new();
    differences(&before, &after, "", &mut written);
    // The controller writes it, no webhook.
    written.insert(format!("metadata[0].annotations[\"{}\"]", names::ANNOTATION_TOUCH));
    assert_eq!(told, written, "left: docs/operations/gitops.md, right: what {CASE} differs in");
}

/// The Deployment of a file.
fn workload(file: &str) -> Value {
    let text = read(&format!("{CASE}/{file}"));
    let documents = serde_yaml::Deserializer::from_str(&text).map(|document| {
        let value: serde_yaml::Value = serde::Deserialize::deserialize(document).unwrap();
        serde_json::to_value(value).unwrap()
    });
    let mut workloads = documents.filter(|document| document["kind"] == "Deployment");
    workloads.next().unwrap_or_else(|| panic!("{CASE}/{file} has no Deployment"))
}

/// Where two objects differ, as Terraform's provider calls the places: a list or an entry of a map that one of them lacks or
/// has otherwise.
fn differences(before: &Value, after: &Value, at: &str, found: &mut BTreeSet<String>) {
    let (Some(old), Some(new)) = (before.as_object(), after.as_object()) else {
        found.extend((before != after).then(|| at.to_owned()));
        return;
    };
    for key in old.keys().chain(new.keys()) {
        let (old, new) = (old.get(key).unwrap_or(&Value::Null), new.get(key).unwrap_or(&Value::Null));
        if old == new {
            continue;
        }
        if ["labels", "annotations"].contains(&key.as_str()) {
            let names = [old, new].into_iter().filter_map(Value::as_object).flatten().map(|(name, _)| name);
            let changed = names.filter(|name| old.get(name) != new.get(name));
            found.extend(changed.map(|name| format!("{at}.{key}[\"{name}\"]").trim_start_matches('.').to_owned()));
            continue;
        }
        let place = format!("{at}.{}", in_terraform(key)).trim_start_matches('.').to_owned();
        match (key.as_str(), old.as_array(), new.as_array()) {
            ("containers", Some(old), Some(new)) if old.len() == new.len() => {
                old.iter().zip(new).for_each(|(old, new)| differences(old, new, &place, found));
            }
            _ => differences(old, new, &place, found),
        }
    }
}

/// Blocks are lists there, and named in the singular.
fn in_terraform(key: &str) -> &str {
    match key {
        "metadata" => "metadata[0]",
        "spec" => "spec[0]",
        "template" => "template[0]",
        "containers" => "container[0]",
        "initContainers" => "init_container",
        "volumeMounts" => "volume_mount",
        "volumes" => "volume",
        other => other,
    }
}
