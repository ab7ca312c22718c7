//! What is derived from the code is committed; `make generate` writes it anew.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::process::Command;

use agent_tracing::cli::crd_yaml;

#[test]
fn the_committed_crds_are_the_ones_of_the_code() {
    let wanted = crd_yaml().unwrap();
    for path in [
        "crds/agenttracing.dev_agenttracings.yaml",
        "charts/agent-tracing-operator/crds/agenttracing.dev_agenttracings.yaml",
    ] {
        assert!(read(path) == wanted, "{path} is stale; run `make generate`");
    }
}

#[test]
fn the_readmes_table_is_what_explain_prints() {
    let explain = Command::new(env!("CARGO_BIN_EXE_agent-tracing-operator"))
        .args(["explain", "--output", "markdown"])
        .output()
        .unwrap();
    let table = String::from_utf8(explain.stdout).unwrap();
    assert!(table.contains("MLFLOW_TRACKING_URI"), "explain printed {table:?}");
    assert!(read("README.md").contains(&table), "the table in README.md is stale; run `make generate`");
}

#[test]
fn the_version_is_the_same_wherever_it_stands() {
    let version = env!("CARGO_PKG_VERSION");
    for (path, text) in [
        ("charts/agent-tracing-operator/Chart.yaml", format!("appVersion: v{version}")),
        ("config/manager/deployment.yaml", format!("agent-tracing-operator:v{version}")),
        ("CHANGELOG.md", format!("## {version}")),
    ] {
        let content = read(path).replace('"', "");
        assert!(content.contains(&text), "{path} does not say {text:?}");
    }
}

fn read(path: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
