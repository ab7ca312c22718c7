//! Golden cases: one folder each, `tracing.yaml` and `workload.yaml` in, `expected.yaml` and `stderr.txt` out, and in
//! `expect.txt` the sentence that a person checks them against.
//!
//! Every case runs through the command line, through `core` and through the webhook's HTTP router, and the three must
//! agree. `UPDATE_GOLDEN=1` writes the expectations anew: read the difference before you commit it.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent_tracing::core::decide::{Decision, decide};
use agent_tracing::core::inject::uninject;
use agent_tracing::core::selection::SelectionContext;
use agent_tracing::core::settings::Platform;
use agent_tracing::names;
use json_patch::Patch;
use serde_json::Value;
use support::{documents, policies_of, tracings_of};

#[test]
fn every_case_prints_what_is_expected() {
    let mut failures = Vec::new();
    let cases = cases();
    assert!(cases.len() >= 60, "only {} golden cases", cases.len());
    for case in &cases {
        let run = command_line(case, "inject", &[&case.join("tracing.yaml"), &case.join("workload.yaml")]);
        for (file, actual) in [("expected.yaml", &run.stdout), ("stderr.txt", &run.stderr)] {
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                std::fs::write(case.join(file), actual).unwrap();
            }
            let expected = std::fs::read_to_string(case.join(file)).unwrap_or_default();
            if expected != *actual {
                failures.push(format!("{}/{file}: expected\n{expected}\nbut was\n{actual}", case.display()));
            }
        }
        let skips = run.stderr.contains(": skipped: ");
        assert_eq!(run.code, i32::from(skips), "{}: exit code; stderr {}", case.display(), run.stderr);
    }
    assert!(
        failures.is_empty(),
        "{} of the cases differ; `make generate` writes them anew\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn core_decides_as_the_command_line_prints() {
    for case in cases() {
        let policies = policies_of(&case.join("tracing.yaml"));
        let printed = documents(&std::fs::read_to_string(case.join("expected.yaml")).unwrap());
        for workload in workloads(&case) {
            let decided = apply(&workload, patch_of(&workload, &policies));
            assert!(printed.contains(&decided), "{}: core decides\n{decided:#}", case.display());
        }
    }
}

#[tokio::test]
async fn the_webhook_answers_as_the_command_line_prints() {
    for case in cases() {
        let tracings = tracings_of(&case.join("tracing.yaml"));
        let printed = documents(&std::fs::read_to_string(case.join("expected.yaml")).unwrap());
        for workload in workloads(&case) {
            let patch = support::admit(tracings.clone(), &workload).await;
            let admitted = apply(&workload, patch);
            assert!(printed.contains(&admitted), "{}: the webhook answers\n{admitted:#}", case.display());
        }
    }
}

#[test]
fn the_output_of_every_case_is_left_as_it_is() {
    for case in cases() {
        let policies = policies_of(&case.join("tracing.yaml"));
        for workload in support::workloads(&case.join("expected.yaml")) {
            let again = patch_of(&workload, &policies);
            assert!(again.is_empty(), "{}: a second injection wants {again:?}", case.display());
        }
    }
}

#[test]
fn removal_gives_back_every_workload_that_came_without_a_record() {
    for case in cases() {
        let policies = policies_of(&case.join("tracing.yaml"));
        for workload in workloads(&case) {
            let annotations = workload.pointer(&support::in_template(&workload, "/metadata/annotations"));
            if annotations.and_then(|a| a.get(names::ANNOTATION_RECORD)).is_some() {
                continue;
            }
            let wired = apply(&workload, patch_of(&workload, &policies));
            let removal = uninject(&support::workload(&wired).unwrap()).unwrap();
            assert_eq!(apply(&wired, removal), workload, "{}", case.display());
        }
    }
}

struct Run {
    stdout: String,
    stderr: String,
    code: i32,
}

fn command_line(case: &Path, command: &str, files: &[&Path]) -> Run {
    let mut process = Command::new(env!("CARGO_BIN_EXE_agent-tracing-operator"));
    process.arg(command);
    for file in files {
        process.arg("-f").arg(file);
    }
    let output = process.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap_or_else(|| panic!("{} was ended by a signal", case.display()));
    Run { stdout: text(output.stdout), stderr: text(output.stderr), code }
}

fn patch_of(
    workload: &Value,
    policies: &[agent_tracing::core::settings::policy::Policy],
) -> Vec<json_patch::PatchOperation> {
    let namespace = workload["metadata"]["namespace"].as_str().unwrap_or("default");
    let here: Vec<_> = policies.iter().filter(|p| p.settings.namespace == namespace).cloned().collect();
    let context = SelectionContext {
        namespace,
        injection_enabled: true,
        platform: &Platform::default(),
        tokenless: &BTreeSet::new(),
        policies: &here,
        renews: true,
    };
    match decide(&support::workload(workload).unwrap(), &context) {
        Decision::Wire { injection, .. } => injection.patch,
        Decision::Unwire(patch) => patch,
        Decision::Leave(_) => Vec::new(),
    }
}

fn apply(workload: &Value, patch: Vec<json_patch::PatchOperation>) -> Value {
    let mut out = workload.clone();
    json_patch::patch(&mut out, &Patch(patch)).unwrap();
    out
}

fn workloads(case: &Path) -> Vec<Value> {
    support::workloads(&case.join("workload.yaml"))
}

fn cases() -> Vec<PathBuf> {
    support::folders("tests/golden")
}
