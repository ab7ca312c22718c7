//! The schema as the API server publishes it: every field explained, everything that can grow bounded.

use serde_json::Value;

use crate::cluster::{Cluster, install, kubectl};

/// Types of Kubernetes itself, which bound nothing in their schema; the lists and maps that hold them are bounded.
const KUBERNETES_TYPES: [&str; 9] = [
    "spec.mlflow.cr.template.storage.resources.requests{}",
    "spec.mlflow.standalone.networkPolicy.from[]",
    "spec.mlflow.standalone.resources.limits{}",
    "spec.mlflow.standalone.resources.requests{}",
    "spec.mlflow.standalone.tolerations[]",
    "spec.relay.from[]",
    "spec.relay.resources.limits{}",
    "spec.relay.resources.requests{}",
    "status.conditions[]",
];

#[test]
#[ignore = "needs an API server: make test"]
fn every_field_is_explained() {
    let mut missing = Vec::new();
    for field in fields() {
        let text = field.schema["description"].as_str().unwrap_or_default();
        // An element has the description of its type or none; `kubectl explain` shows the list's.
        if text.is_empty() && !field.path.ends_with([']', '}']) {
            missing.push(field.path);
        }
    }
    assert!(missing.is_empty(), "fields without a description: {missing:#?}");
}

#[test]
#[ignore = "needs an API server: make test"]
fn every_string_list_and_map_is_bounded() {
    let mut unbounded = Vec::new();
    let mut exempt: Vec<_> = KUBERNETES_TYPES.to_vec();
    for Field { path, schema } in fields() {
        if let Some(of) = KUBERNETES_TYPES.iter().find(|of| path.starts_with(**of)) {
            exempt.retain(|unused| unused != of);
            continue;
        }
        let bound = match schema["type"].as_str() {
            Some("string") if !schema["enum"].is_null() || schema["format"] == "date-time" => continue,
            Some("string") => "maxLength",
            Some("array") => "maxItems",
            Some("object") if !schema["additionalProperties"].is_null() => "maxProperties",
            Some("object" | "integer" | "number" | "boolean") => continue,
            other => panic!("{path} has type {other:?}"),
        };
        if !schema[bound].is_u64() {
            unbounded.push(format!("{path}: no {bound}"));
        }
    }
    assert!(exempt.is_empty(), "{exempt:?} is not in the schema");
    assert!(unbounded.is_empty(), "not bounded: {unbounded:#?}");
}

#[test]
#[ignore = "needs an API server: make test"]
fn nothing_is_kept_that_the_schema_does_not_know() {
    for Field { path, schema } in fields() {
        assert!(schema["x-kubernetes-preserve-unknown-fields"].is_null(), "{path} keeps unknown fields");
        assert!(schema["x-kubernetes-embedded-resource"].is_null(), "{path} embeds a resource");
    }
}

#[test]
#[ignore = "needs an API server: make test"]
fn kubectl_explains_a_field_in_the_words_of_its_doc_comment() {
    install();
    for (field, words) in [
        ("at.spec.mlflow.standalone.storage.size", "It can only grow, and only where the"),
        ("at.spec.experiment.name", "{workload}"),
        ("agenttracing.status.injected", "5/6"),
    ] {
        let text = kubectl(&["explain", field], "").unwrap();
        assert!(text.contains("DESCRIPTION:") && text.contains(words), "{text}");
    }
}

struct Field {
    path: String,
    schema: Value,
}

/// Every node below the root: fields as `a.b`, elements as `a[]`, values of maps as `a{}`.
fn fields() -> Vec<Field> {
    install();
    let crd = Cluster::admin().get("CustomResourceDefinition", "", "agenttracings.agenttracing.dev").unwrap();
    let versions = crd["spec"]["versions"].as_array().unwrap();
    assert_eq!(versions.len(), 1);
    let mut all = Vec::new();
    walk(String::new(), &versions[0]["schema"]["openAPIV3Schema"], &mut all);
    assert!(all.len() > 100, "only {} fields found", all.len());
    all
}

fn walk(path: String, schema: &Value, all: &mut Vec<Field>) {
    if !path.is_empty() {
        all.push(Field { path: path.clone(), schema: schema.clone() });
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        walk(below, property, all);
    }
    if schema["items"].is_object() {
        walk(format!("{path}[]"), &schema["items"], all);
    }
    if schema["additionalProperties"].is_object() {
        walk(format!("{path}{{}}"), &schema["additionalProperties"], all);
    }
}
