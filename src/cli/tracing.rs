//! AgentTracings from files, read as the API server would take them.

use anyhow::{anyhow, ensure};
use serde_ignored::Path;
use serde_json::Value;

use super::documents::{self, Document};
use crate::api::AgentTracing;
use crate::core::kubectl::Kubectl;
use crate::core::settings::policy::Policy;
use crate::core::wiring::explain;

/// The fields of an object that everybody knows. What is below metadata and status is written by the API server and the
/// operator, who may be newer than this program.
const KNOWN: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
const WRITTEN_BY_OTHERS: [&str; 2] = ["metadata", "status"];

/// Most of a value that a message shows.
const SHOWN: usize = 60;

/// The policy of an AgentTracing; where it names no namespace it is of this one.
pub fn policy(document: &Value, namespace: &str) -> anyhow::Result<Policy> {
    let name = documents::name(document);
    let mut unknown = Vec::new();
    let read = serde_ignored::deserialize(document, |path| unknown.push(fields(&path)));
    unknown.retain(|fields| match fields.as_slice() {
        [only] => !KNOWN.contains(&only.as_str()),
        [first, ..] => !WRITTEN_BY_OTHERS.contains(&first.as_str()),
        [] => false,
    });
    let mut problems: Vec<String> = unknown.iter().map(|fields| unknown_field(document, fields)).collect();
    // A misspelt field is often also one that is missing under its right name.
    let read: Result<AgentTracing, serde_json::Error> = read;
    problems.extend(read.as_ref().err().map(ToString::to_string));
    ensure!(problems.is_empty(), "AgentTracing {name}: {}", problems.join("; "));
    let mut tracing = read?;
    if tracing.metadata.namespace.as_deref().is_none_or(str::is_empty) {
        tracing.metadata.namespace = Some(namespace.to_owned());
    }
    valid(&tracing)
}

/// The policy of an AgentTracing, or all that is wrong with it.
pub fn valid(tracing: &AgentTracing) -> anyhow::Result<Policy> {
    explain::offline(tracing).map_err(|problems| {
        let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow!("AgentTracing {}: {}", tracing.metadata.name.as_deref().unwrap_or_default(), list.join("; "))
    })
}

/// Why there is no AgentTracing in an input: it may be the one that cannot be read.
pub fn absent(documents: &[Document]) -> String {
    let broken = documents.iter().find_map(|d| Some((&d.place, &d.content.as_ref().err()?.error)));
    match broken {
        Some((place, error)) => format!("no AgentTracing in the input, and {place} cannot be read: {error:#}"),
        None => "no AgentTracing in the input".to_owned(),
    }
}

fn unknown_field(document: &Value, fields: &[String]) -> String {
    let value = fields.iter().try_fold(document, |value, field| match value {
        Value::Array(list) => list.get(field.parse::<usize>().ok()?),
        other => other.get(field),
    });
    let value = value.map(Value::to_string).unwrap_or_default();
    let mut shown: String = value.chars().take(SHOWN).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    let above = fields.iter().rev().skip(1).rev().filter(|field| field.parse::<usize>().is_err());
    let above = above.fold("agenttracing".to_owned(), |path, field| format!("{path}.{field}"));
    let (path, explain) = (fields.join("."), Kubectl::new("explain").arg(&above));
    format!("there is no field {path}, which is {shown}; correct its name or take it out: {explain}")
}

/// The names and indices on the way to a field.
fn fields(path: &Path<'_>) -> Vec<String> {
    match path {
        Path::Root => Vec::new(),
        Path::Seq { parent, index } => [fields(parent), vec![index.to_string()]].concat(),
        Path::Map { parent, key } => [fields(parent), vec![key.clone()]].concat(),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => fields(parent),
    }
}
