//! What kustomize and Helm render, as objects that can be compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use agent_tracing::names;
use serde_json::{Value, json};

use crate::{CHART, documents, helm, object};

pub fn template(namespace: &str, set: &[&str]) -> Vec<Value> {
    let mut args = vec!["template", "agent-tracing-operator", CHART, "--include-crds", "--namespace", namespace];
    args.extend(set.iter().flat_map(|value| ["--set", value]));
    documents(&helm(&args).ok())
}

pub fn is_hook(object: &Value) -> bool {
    object["metadata"]["annotations"]["helm.sh/hook"].is_string()
}

/// The same but for what Helm adds to each object of a chart.
#[track_caller]
pub fn same(folder: &str, kustomize: Vec<Value>, mut chart: Vec<Value>) {
    for object in &mut chart {
        let metadata = object["metadata"].as_object_mut().expect("metadata");
        if is_helms_own(metadata.get("annotations")) {
            metadata.remove("annotations");
        }
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.remove("helm.sh/chart").expect("the chart's label");
            labels.remove(names::LABEL_MANAGED_BY).expect("the chart's label");
        }
    }
    let difference = diff(&normalised(kustomize), &normalised(chart));
    assert!(difference.is_empty(), "{folder} and the chart differ:\n{difference}");
}

fn is_helms_own(annotations: Option<&Value>) -> bool {
    let annotations = annotations.and_then(Value::as_object);
    annotations.is_some_and(|all| all.keys().all(|key| key.starts_with("helm.sh/")))
}

pub fn pod_and_replicas(set: &[&str]) -> Value {
    let spec = object(&template("tools", set), "Deployment", "agent-tracing-operator")["spec"].clone();
    json!({"replicas": spec["replicas"], "pod": spec["template"]["spec"]})
}

pub fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().expect("a list").iter().map(|item| item.as_str().expect("a string"))
}

/// One text for all objects: in the order of their names, keys sorted.
pub fn normalised(objects: Vec<Value>) -> String {
    let mut texts: Vec<_> = objects
        .into_iter()
        .map(|object| {
            let title = ["kind", "metadata/namespace", "metadata/name"]
                .map(|path| object.pointer(&format!("/{path}")).and_then(Value::as_str).unwrap_or("-").to_owned())
                .join(" ");
            format!("{title}\n{}\n", serde_json::to_string_pretty(&sorted(object)).expect("JSON"))
        })
        .collect();
    texts.sort();
    texts.concat()
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter().map(|(key, value)| (key, sorted(value))).collect::<BTreeMap<_, _>>().into_iter().collect(),
        ),
        Value::Array(list) => list.into_iter().map(sorted).collect(),
        // kustomize writes 1.0, a bound of the schema, as 1.
        Value::Number(number) if number.is_f64() => {
            number.as_f64().filter(|x| x.fract() == 0.0).map_or(number.into(), |x| json!(x as i64))
        }
        scalar => scalar,
    }
}

/// The unified difference, empty if there is none.
pub fn diff(kustomize: &str, chart: &str) -> String {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // Several tests compare at once, each on a thread of its name.
    let test = std::thread::current().name().expect("a test's thread").replace("::", "-");
    let files = [("kustomize", kustomize), ("chart", chart)].map(|(name, text)| {
        let file = directory.join(format!("{test}-{name}"));
        fs::write(&file, text).expect("writes");
        file
    });
    let output = Command::new("diff").args(["-u", "-U", "12"]).args(&files).output().expect("diff (Debian: diffutils)");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}
