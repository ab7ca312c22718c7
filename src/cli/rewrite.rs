//! Reads documents, changes the workloads among them, and prints them in their order.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::ValueEnum;
use json_patch::{Patch, PatchOperation};
use serde_json::{Value, json};
use similar::TextDiff;

use super::documents::{self, Broken, Document};
use crate::core::selection::kind::Kind;

/// Forms in which changed workloads are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// All documents as YAML.
    Yaml,
    /// All documents as JSON, one a line.
    Json,
    /// Only the JSON patch of each workload, one a line.
    Patch,
    /// Only what changes, as a unified diff.
    Diff,
}

/// What is to become of one object.
pub enum DocumentOutcome {
    /// Not a workload.
    Passed,
    /// A workload with this patch; what the user should know goes to stderr.
    Patched(Vec<PatchOperation>, Vec<String>),
    /// A workload that is not wired, and why; the patch takes out what an earlier wiring left.
    Skipped(Vec<PatchOperation>, String),
}

pub fn load(files: &[PathBuf]) -> anyhow::Result<Vec<Document>> {
    let mut all = Vec::new();
    for path in files {
        let source = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
        all.extend(documents::parse(&documents::read(path)?, &source));
    }
    Ok(all)
}

/// A workload of which a part is missing or of a wrong type: a patch for kustomize, an assertion of a test, a typing error.
pub fn partial(kind: Kind, place: &str, error: &serde_json::Error) -> DocumentOutcome {
    let kind = kind.as_str();
    let advice = format!(
        "{place} is no whole {kind}: {error}; complete it, or give what merges it: kustomize build . | agent-tracing-operator inject -f -"
    );
    DocumentOutcome::Skipped(Vec::new(), advice)
}

/// Decides about every object, prints them, and names on stderr what was skipped.
pub fn process(
    documents: Vec<Document>,
    namespace: &str,
    output: Output,
    outcome: impl Fn(&Value, &str) -> DocumentOutcome,
) -> anyhow::Result<ExitCode> {
    let mut skipped = false;
    for Document { place, content, repeated } in documents {
        for field in repeated {
            eprintln!("{place}: {field} stands there more than once; the last one counts, as kubectl reads it");
        }
        let mut document = match content {
            Ok(document) => document,
            Err(Broken { text, error }) => {
                skipped = true;
                pass_broken(&place, &text, &error, output);
                continue;
            }
        };
        for item in documents::objects_mut(&mut document) {
            let label = format!("{} {}", documents::kind(item), documents::name(item));
            match outcome(item, &place) {
                DocumentOutcome::Passed => {}
                DocumentOutcome::Skipped(patch, reason) => {
                    skipped = true;
                    eprintln!("{label}: skipped: {reason}");
                    change(item, namespace, patch, output)?;
                }
                DocumentOutcome::Patched(patch, notes) => {
                    notes.iter().for_each(|note| eprintln!("{label}: {note}"));
                    change(item, namespace, patch, output)?;
                }
            }
        }
        match output {
            Output::Yaml => print!("---\n{}", documents::to_yaml(&document)?),
            Output::Json => println!("{document}"),
            Output::Patch | Output::Diff => {}
        }
    }
    Ok(if skipped { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// Names a document that cannot be read. As YAML it goes on as it came, so that whoever reads it next stumbles over it, too.
fn pass_broken(place: &str, text: &str, error: &anyhow::Error, output: Output) {
    eprintln!("{place}: skipped: it cannot be read: {error:#}; mend it and run this again");
    if output == Output::Yaml {
        let marker = if text.starts_with("---") { "" } else { "---\n" };
        let end = if text.ends_with('\n') { "" } else { "\n" };
        print!("{marker}{text}{end}");
    }
}

fn change(item: &mut Value, namespace: &str, patch: Vec<PatchOperation>, output: Output) -> anyhow::Result<()> {
    if patch.is_empty() {
        return Ok(());
    }
    if output == Output::Patch {
        let namespace = documents::namespace(item, namespace);
        let name = &item["metadata"]["name"];
        println!("{}", json!({"kind": item["kind"], "namespace": namespace, "name": name, "patch": patch}));
        return Ok(());
    }
    let before = item.clone();
    json_patch::patch(item, &Patch(patch)).context("the patch does not fit the workload")?;
    if output == Output::Diff {
        let (old, new) = (documents::to_yaml(&before)?, documents::to_yaml(item)?);
        let name = format!("{}/{}", documents::kind(&before), documents::name(&before));
        print!(
            "{}",
            TextDiff::from_lines(&old, &new).unified_diff().header(&format!("a/{name}"), &format!("b/{name}"))
        );
    }
    Ok(())
}
