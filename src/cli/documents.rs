//! YAML and JSON documents in and out, in the order in which they came.

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

use crate::names;

/// Reads a file; `-` is stdin.
pub fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("stdin cannot be read")?;
        return Ok(text);
    }
    std::fs::read_to_string(path).with_context(|| format!("{} cannot be read; give an existing file with -f", path.display()))
}

/// Parses all documents of a text. Empty ones are left out, as kubectl does.
pub fn parse(text: &str, source: &str) -> anyhow::Result<Vec<Value>> {
    let mut documents = Vec::new();
    for (index, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let value = Value::deserialize(document)
            .with_context(|| format!("document {} of {source} is not valid YAML", index + 1))?;
        if !value.is_null() {
            documents.push(value);
        }
    }
    Ok(documents)
}

/// Whether a document is an AgentTracing.
pub fn is_agent_tracing(document: &Value) -> bool {
    document["kind"] == "AgentTracing"
        && document["apiVersion"].as_str().is_some_and(|v| v.split('/').next() == Some(names::GROUP))
}

/// Kind of a document.
pub fn kind(document: &Value) -> &str {
    document["kind"].as_str().unwrap_or("object without kind")
}

/// Name of a document, or its `generateName`.
pub fn name(document: &Value) -> &str {
    let metadata = &document["metadata"];
    metadata["name"].as_str().or(metadata["generateName"].as_str()).unwrap_or("without name")
}

/// Namespace of a document.
pub fn namespace<'a>(document: &'a Value, default: &'a str) -> &'a str {
    document["metadata"]["namespace"].as_str().unwrap_or(default)
}
