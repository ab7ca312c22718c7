//! YAML in the pages is what the cluster and the operator take.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_yaml::Value;

use super::markdown::{self, Block};

/// Fields of `AgentTracingSpec`, by which a fragment is known.
const OF_SPEC: [&str; 7] = ["suspend", "mlflow", "experiment", "auth", "caBundle", "injection", "sdk"];

#[test]
fn every_yaml_block_parses_and_every_agent_tracing_in_it_is_valid() {
    let mut tracings = 0;
    for block in markdown::pages().into_iter().flat_map(|page| page.blocks).filter(|block| block.language == "yaml") {
        for document in documents(&block) {
            if let Some(tracing) = agent_tracing(&document) {
                check(&tracing, &block);
                tracings += 1;
            }
        }
    }
    assert!(tracings >= 10, "only {tracings} AgentTracings were found");
}

fn documents(block: &Block) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(&block.text)
        .map(|document| serde::Deserialize::deserialize(document).unwrap_or_else(|e| panic!("{}: {e}", block.place)))
        .collect()
}

/// The AgentTracing in a document, which may be its spec or a part of that alone.
fn agent_tracing(document: &Value) -> Option<Value> {
    if document.get("kind").is_some() {
        return (document["kind"] == "AgentTracing").then(|| document.clone());
    }
    let spec = document.get("spec").unwrap_or(document).as_mapping()?;
    if spec.is_empty() || !spec.keys().all(|key| key.as_str().is_some_and(|key| OF_SPEC.contains(&key))) {
        return None;
    }
    let mut spec = spec.clone();
    spec.entry("mlflow".into()).or_insert_with(|| serde_yaml::from_str("{mode: CR}").unwrap());
    let frame = "{apiVersion: agenttracing.dev/v1alpha1, kind: AgentTracing, metadata: {name: tracing, namespace: bank-agents}}";
    let mut whole: Value = serde_yaml::from_str(frame).unwrap();
    whole["spec"] = Value::Mapping(spec);
    Some(whole)
}

/// The command line reads it with its own parser, which knows every field and refuses others.
fn check(tracing: &Value, block: &Block) {
    let mut inject = Command::new(env!("CARGO_BIN_EXE_agent-tracing-operator"))
        .args(["inject", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = inject.stdin.take().unwrap();
    stdin.write_all(serde_yaml::to_string(tracing).unwrap().as_bytes()).unwrap();
    drop(stdin);
    let output = inject.wait_with_output().unwrap();
    assert!(output.status.success(), "{}: {}", block.place, String::from_utf8_lossy(&output.stderr));
}
