//! Both ways to install, rendered and on a real API server.
//!
//! `render` needs `kubectl` and `helm`, from the variables `KUBECTL` and `HELM` or from PATH, `prometheus` also `promtool`; `api` and `rights` also need the small
//! cluster: `eval "$(tests/cluster/api.sh env)"`.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod api;
mod certificate;
#[path = "../support/component.rs"]
mod component;
mod prometheus;
mod render;
mod rendered;
mod rights;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde::Deserialize;
use serde_json::Value;

const CHART: &str = "charts/agent-tracing-operator";

fn kubectl(args: &[&str]) -> Run {
    run("KUBECTL", "kubectl", args, "")
}

fn helm(args: &[&str]) -> Run {
    run("HELM", "helm", args, "")
}

/// What a command said; `ok` and `err` state which end is expected.
struct Run {
    command: String,
    output: Output,
}

impl Run {
    #[track_caller]
    fn ok(self) -> String {
        assert!(self.succeeded(), "{} failed: {}", self.command, self.stderr());
        String::from_utf8(self.output.stdout).expect("UTF-8")
    }

    #[track_caller]
    fn err(self) -> String {
        assert!(!self.succeeded(), "{} should have failed", self.command);
        self.stderr()
    }

    fn succeeded(&self) -> bool {
        self.output.status.success()
    }

    fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }
}

fn run(variable: &str, program: &str, args: &[&str], stdin: &str) -> Run {
    let program = std::env::var(variable).unwrap_or_else(|_| program.to_owned());
    let mut child = Command::new(&program)
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("cannot run {program}: {error}; build the pinned tools with `tests/cluster/binaries.sh api helm promtool`, then set {variable} or PATH")
        });
    // A command that fails early closes its end: that is its own error to report.
    let _ = child.stdin.take().expect("piped").write_all(stdin.as_bytes());
    Run { command: format!("{program} {}", args.join(" ")), output: child.wait_with_output().expect("waits") }
}

fn documents(yaml: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(yaml)
        .map(|document| Value::deserialize(document).expect("YAML that JSON can say"))
        .filter(|document| !document.is_null())
        .collect()
}

/// `config/default` as kustomize renders it.
fn kustomize() -> Vec<Value> {
    documents(&kubectl(&["kustomize", "config/default"]).ok())
}

#[track_caller]
fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    objects
        .iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no {kind} {name}"))
}
