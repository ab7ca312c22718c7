//! YAML and JSON documents in and out, in the order in which they came.

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

use crate::core::kind::Kind;
use crate::names;

/// Reads a file; `-` is stdin.
pub fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("stdin cannot be read")?;
        return Ok(text);
    }
    std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read; give an existing file with -f", path.display()))
}

/// Parses all documents of a text. Empty ones are left out, as kubectl does.
pub fn parse(text: &str, source: &str) -> anyhow::Result<Vec<Value>> {
    let mut documents = Vec::new();
    for (index, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let value =
            to_json(document).with_context(|| format!("document {} of {source} is not valid YAML", index + 1))?;
        if !value.is_null() {
            documents.push(value);
        }
    }
    Ok(documents)
}

/// By way of YAML's own value, the only one that knows merge keys (`<<: *defaults`).
fn to_json(document: serde_yaml::Deserializer<'_>) -> anyhow::Result<Value> {
    let mut yaml = serde_yaml::Value::deserialize(document)?;
    yaml.apply_merge()?;
    let mut value = serde_json::to_value(yaml)?;
    octal_modes(&mut value, false);
    Ok(value)
}

/// kubectl reads YAML 1.1, where a plain `0440` is octal; our parser reads 1.2, where it is text. Only the file modes of
/// volumes are written so, and there they are never text.
fn octal_modes(value: &mut Value, in_volumes: bool) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let octal = value.as_str().filter(|_| in_volumes && (key == "mode" || key == "defaultMode"));
                match octal.and_then(|text| i64::from_str_radix(text, 8).ok()) {
                    Some(mode) => *value = Value::from(mode),
                    None => octal_modes(value, key == "volumes" || in_volumes && key != "metadata"),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|v| octal_modes(v, in_volumes)),
        _ => {}
    }
}

/// A document as YAML that means the same in YAML 1.1, which kubectl reads, and in 1.2, which our writer writes: a text
/// such as `yes`, `1_000` or `12:30` is quoted, or it would arrive as something else.
pub fn to_yaml(document: &Value) -> anyhow::Result<String> {
    let mut document = document.clone();
    let mut quoted = Vec::new();
    mark_ambiguous(&mut document, &mut quoted);
    let mut yaml = serde_yaml::to_string(&document)?;
    for (index, text) in quoted.iter().enumerate() {
        yaml = yaml.replacen(&marker(index), &serde_json::to_string(text)?, 1);
    }
    Ok(yaml)
}

fn mark_ambiguous(value: &mut Value, quoted: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (mut key, mut value) in std::mem::take(map) {
                mark_text(&mut key, quoted);
                mark_ambiguous(&mut value, quoted);
                map.insert(key, value);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|v| mark_ambiguous(v, quoted)),
        Value::String(text) => mark_text(text, quoted),
        _ => {}
    }
}

fn mark_text(text: &mut String, quoted: &mut Vec<String>) {
    if is_ambiguous(text) {
        quoted.push(std::mem::take(text));
        *text = marker(quoted.len() - 1);
    }
}

fn marker(index: usize) -> String {
    format!("agenttracing.dev/quoted/{index}/")
}

fn is_ambiguous(text: &str) -> bool {
    const WORDS: [&str; 8] = ["y", "n", "yes", "no", "on", "off", "=", "<<"];
    let number_like = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.:_ ".contains(c));
    number_like || WORDS.contains(&text.to_ascii_lowercase().as_str())
}

/// Whether a document is an AgentTracing.
pub fn is_agent_tracing(document: &Value) -> bool {
    document["kind"] == "AgentTracing"
        && document["apiVersion"].as_str().is_some_and(|v| v.split('/').next() == Some(names::GROUP))
}

/// The kind of a document that is a workload.
pub fn workload_kind(document: &Value) -> Option<Kind> {
    let (group, _version) = document["apiVersion"].as_str()?.rsplit_once('/').unwrap_or_default();
    Kind::of(group, document["kind"].as_str()?)
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
