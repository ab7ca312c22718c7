//! Who may know whom. The rules keep decisions free of the world, and the world's files free of decisions.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

/// Folder or file below `src`, and what no line of its code may name.
const RULES: [(&str, &[&str]); 21] = [
    (
        "api",
        &[
            "crate::core",
            "crate::controller",
            "crate::webhook",
            "crate::mlflow",
            "crate::cli",
            "crate::run",
            "tokio",
            "reqwest",
        ],
    ),
    (
        "core",
        &[
            "crate::controller",
            "crate::webhook",
            "crate::http_server",
            "crate::tls",
            "crate::mlflow",
            "crate::cli",
            "crate::run",
            "crate::telemetry",
            "tokio",
            "reqwest",
            "kube::Client",
            "kube::Api",
            "kube::runtime",
            "kube::api",
            "std::env",
            "std::fs",
            "::now()",
            "tracing::info",
            "tracing::warn",
            "tracing::error",
            "tracing::debug",
            "HashMap",
            "HashSet",
        ],
    ),
    ("mlflow", &["crate::api", "crate::core", "crate::controller", "kube::", "k8s_openapi"]),
    ("controller", &["crate::webhook", "crate::tls", "crate::cli", "crate::run", "axum", "std::env"]),
    ("relay", &["crate::controller", "crate::webhook", "crate::run", "std::env"]),
    ("trust.rs", &["crate::controller", "crate::webhook", "crate::relay", "crate::cli", "crate::run", "kube", "tokio"]),
    ("webhook", &["crate::controller", "crate::mlflow", "crate::cli", "crate::run", "reqwest", "std::env"]),
    ("http_server.rs", &["crate::", "kube", "k8s_openapi", "reqwest", "std::env"]),
    ("http_server", &["crate::", "kube", "k8s_openapi", "reqwest", "std::env"]),
    (
        "tls",
        &["crate::webhook", "crate::controller", "crate::mlflow", "crate::cli", "crate::run", "reqwest", "std::env"],
    ),
    ("cli", &["crate::webhook", "crate::mlflow", "reqwest"]),
    ("cli/inject.rs", &OFFLINE),
    ("cli/uninject.rs", &OFFLINE),
    ("cli/rewrite.rs", &OFFLINE),
    ("cli/explain.rs", &OFFLINE),
    ("cli/crds.rs", &OFFLINE),
    ("cli/tracing.rs", &OFFLINE),
    ("cli/documents.rs", &OFFLINE),
    ("cli/documents", &OFFLINE),
    ("cli/merge_ca.rs", &["kube", "k8s_openapi", "tokio", "reqwest", "crate::controller", "std::env"]),
    ("names.rs", &["crate::"]),
];

/// What a command names that works with no network and no kubeconfig.
const OFFLINE: [&str; 5] = ["kube::Client", "kube::Api", "tokio", "crate::controller", "std::env"];

#[test]
fn every_module_knows_only_what_it_may() {
    let mut broken = Vec::new();
    for (place, never) in RULES {
        let files = rust_files(&source().join(place));
        assert!(!files.is_empty(), "src/{place} has no Rust file");
        for file in files {
            for (number, line) in code(&file) {
                if let Some(word) = never.iter().find(|word| line.contains(**word)) {
                    broken.push(format!("{}:{number} names {word}", file.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Lines that a file may have: a longer one is two things. Functions are counted by clippy, see clippy.toml.
const MAX_LINES: usize = 400;
#[test]
fn no_file_is_two_things() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let long: Vec<_> = ["src", "tests", "benches"]
        .iter()
        .flat_map(|folder| all_rust_files(&root.join(folder)))
        .filter_map(|file| {
            let lines = std::fs::read_to_string(&file).unwrap().lines().count();
            (lines > MAX_LINES).then(|| format!("{} has {lines} lines: which two things is it?", file.display()))
        })
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// What a command for people does.
const VERBS: &str =
    "annotate apply auth cp create delete describe edit exec explain get label logs patch rollout scale";

/// One that is typed into a sentence names what it names unquoted: a word with a space in it is two words to a shell.
#[test]
fn commands_for_people_have_one_maker() {
    let is_typed = |line: &str| {
        line.split("kubectl ").skip(1).any(|rest| {
            let word = rest.split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or_default();
            word.is_empty() || VERBS.split(' ').any(|verb| verb == word)
        })
    };
    let mut typed = Vec::new();
    for file in rust_files(&source()) {
        // The maker itself, and the reasons' remedies, which are documentation.
        let is_exempt = ["core/kubectl.rs", "api/reasons.rs"].iter().any(|exempt| file.ends_with(exempt));
        if is_exempt || file.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        let lines = code(&file).into_iter().filter(|(_, line)| is_typed(line));
        typed
            .extend(lines.map(|(number, _)| format!("{}:{number} types a command: see core::kubectl", file.display())));
    }
    assert!(typed.is_empty(), "{}", typed.join("\n"));
}

/// Numbered lines outside comments and before the unit tests, which may use what they like.
fn code(file: &Path) -> Vec<(usize, String)> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line.to_owned()))
        .collect()
}

/// Those of the product: unit tests in a file of their own are no part of the module.
fn rust_files(path: &Path) -> Vec<PathBuf> {
    let mut all = all_rust_files(path);
    all.retain(|file| !file.starts_with(source()) || file.file_name().is_none_or(|name| name != "tests.rs"));
    all
}

fn all_rust_files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|entry| entry.is_dir());
    let mut all: Vec<_> = files.into_iter().filter(|f| f.extension().is_some_and(|e| e == "rs")).collect();
    all.extend(folders.iter().flat_map(|folder| all_rust_files(folder)));
    all
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
