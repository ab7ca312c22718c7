//! README and docs/ say what is so: what can be derived from the code is, links lead somewhere, and examples are real.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod agents;
mod commands;
mod examples;
mod gitops;
mod links;
mod markdown;
mod reference;
mod security;

use std::path::{Path, PathBuf};

/// Pages that a reader finds under docs/.
const PAGES: [&str; 24] = [
    "quickstart",
    "modes/standalone",
    "modes/cr",
    "modes/external",
    "agents",
    "relay",
    "reference/spec",
    "reference/injected",
    "reference/selection",
    "reference/conditions",
    "reference/metrics",
    "reference/cli",
    "reference/install",
    "operations/upgrade",
    "operations/uninstall",
    "operations/certificates",
    "operations/troubleshooting",
    "operations/gitops",
    "security",
    "internals",
    "measurements",
    "mlflow-sdk",
    "../README",
    "../charts/agent-tracing-operator/README",
];

#[test]
fn the_readme_has_at_most_150_lines() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 150, "README.md has {lines} lines; move details to docs/");
}

#[test]
fn every_page_of_docs_is_on_the_list_and_the_other_way_round() {
    let mut files = Vec::new();
    collect(&root().join("docs"), &mut files);
    let mut found: Vec<_> = files.iter().map(|file| file.strip_prefix(root()).unwrap().display().to_string()).collect();
    let mut listed: Vec<_> =
        PAGES.iter().filter(|page| !page.starts_with("..")).map(|page| format!("docs/{page}.md")).collect();
    found.sort();
    listed.sort();
    assert_eq!(found, listed);
}

/// All pages, as paths from the root of the repository.
fn pages() -> Vec<String> {
    PAGES.iter().map(|page| page.strip_prefix("../").map_or(format!("docs/{page}.md"), |p| format!("{p}.md"))).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(&path, files),
            false => files.push(path),
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
