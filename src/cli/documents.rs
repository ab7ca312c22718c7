//! YAML and JSON documents in and out, in the order in which they came.

mod split;
mod value;
mod write;

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use self::split::Part;
use crate::core::selection::kind::Kind;
use crate::names;
pub use write::to_yaml;

/// A document and where it stood.
pub struct Document {
    /// As a person finds it: `document 2 of tracing.yaml (line 14)`.
    pub place: String,
    /// What it says, or why it cannot be read.
    pub content: Result<Value, Broken>,
    /// Fields that stood in it more than once; of each the last one counts.
    pub repeated: Vec<String>,
}

/// A document that is no YAML and no JSON.
pub struct Broken {
    /// As it stands in the input.
    pub text: String,
    /// What is wrong with it.
    pub error: anyhow::Error,
}

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

/// Parses all documents of a text: YAML, or JSON one after the other, as kubectl reads them. Empty ones are left out. One that
/// cannot be read spoils no other.
pub fn parse(text: &str, source: &str) -> Vec<Document> {
    let mut reader = Reader { source, count: 0, documents: Vec::new() };
    for part in split::parts(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        // Text before the first `---` is a document only if it has content.
        if part.content().is_empty() && !part.text.starts_with("---") {
            continue;
        }
        if !(part.content().starts_with('{') && reader.json(&part)) {
            reader.yaml(&part);
        }
    }
    reader.documents
}

/// What the documents of a text say, where each must be sound.
pub fn values(text: &str, source: &str) -> anyhow::Result<Vec<Value>> {
    let sound = |document: Document| {
        let Document { place, content, .. } = document;
        content.map_err(|broken| broken.error.context(format!("{place} cannot be read")))
    };
    parse(text, source).into_iter().map(sound).collect()
}

struct Reader<'s> {
    source: &'s str,
    count: usize,
    documents: Vec<Document>,
}

impl Reader<'_> {
    /// Takes a document in; an empty one only counts.
    fn push(&mut self, line: usize, read: anyhow::Result<value::Read>, text: &str) {
        self.count += 1;
        let place = format!("document {} of {} (line {line})", self.count, self.source);
        let (content, repeated) = match read {
            Ok(read) if read.value.is_null() => return,
            Ok(read) => (Ok(read.value), read.repeated),
            Err(error) => (Err(Broken { text: text.to_owned(), error }), Vec::new()),
        };
        self.documents.push(Document { place, content, repeated });
    }

    fn yaml(&mut self, part: &Part<'_>) {
        for document in serde_yaml::Deserializer::from_str(part.text) {
            let read = value::yaml(document);
            // The parser gives the same error for ever.
            let failed = read.is_err();
            self.push(part.line, read, part.text);
            if failed {
                return;
            }
        }
    }

    /// Documents one after the other. False, and nothing taken in, where the first one is YAML that begins with a brace.
    fn json(&mut self, part: &Part<'_>) -> bool {
        let mut rest = part.content();
        let line = |rest: &str| part.line + part.text[..part.text.len() - rest.len()].matches('\n').count();
        let mut first = true;
        while !rest.is_empty() {
            let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<value::Json>();
            match stream.next() {
                Some(Ok(value::Json(read))) => {
                    self.push(line(rest), Ok(read), "");
                    rest = rest[stream.byte_offset()..].trim_start();
                }
                Some(Err(_)) if first => return false,
                // The next one begins at the next brace that begins a line.
                Some(Err(error)) => {
                    let end = rest.find("\n{").map_or(rest.len(), |at| at + 1);
                    self.push(line(rest), Err(error.into()), &rest[..end]);
                    rest = &rest[end..];
                }
                None => break,
            }
            first = false;
        }
        true
    }
}

/// Whether a document is an AgentTracing.
pub fn is_agent_tracing(document: &Value) -> bool {
    document["kind"] == "AgentTracing"
        && document["apiVersion"].as_str().is_some_and(|v| v.split('/').next() == Some(names::GROUP))
}

/// The objects in a document: those of a list one by one, else itself.
pub fn objects(document: &Value) -> Vec<&Value> {
    match items(document) {
        Some(items) => items.iter().flat_map(objects).collect(),
        None => vec![document],
    }
}

/// The same, to be changed. An item of a `DeploymentList` that names no kind gets the list's, as kubectl reads it.
pub fn objects_mut(document: &mut Value) -> Vec<&mut Value> {
    if items(document).is_none() {
        return vec![document];
    }
    let of_list = |field: &str| document[field].as_str().map(str::to_owned);
    let kind = of_list("kind").and_then(|kind| kind.strip_suffix("List").map(str::to_owned)).unwrap_or_default();
    let version = of_list("apiVersion").unwrap_or_default();
    let mut objects = Vec::new();
    for item in document["items"].as_array_mut().into_iter().flatten() {
        if let Some(fields) = item.as_object_mut().filter(|fields| !kind.is_empty() && !fields.contains_key("kind")) {
            fields.insert("apiVersion".to_owned(), version.clone().into());
            fields.insert("kind".to_owned(), kind.clone().into());
        }
        objects.extend(objects_mut(item));
    }
    objects
}

fn items(document: &Value) -> Option<&Vec<Value>> {
    document["kind"].as_str().filter(|kind| kind.ends_with("List"))?;
    document["items"].as_array()
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
