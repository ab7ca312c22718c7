//! What is derived from the code is committed; `make generate` writes it anew. For the pages of docs/ see tests/documents.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

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

/// kube gives an optional field the description of its type, which knows neither the values nor the default.
#[test]
fn an_optional_field_with_a_few_values_says_them_and_its_default() {
    let crd: serde_json::Value = serde_yaml::from_str(&crd_yaml().unwrap()).unwrap();
    let spec = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").unwrap();
    assert!(said_by_choices(spec) >= 7);
}

fn said_by_choices(schema: &serde_json::Value) -> usize {
    let is_choice = schema["enum"].is_array() && schema["nullable"] == true;
    if is_choice {
        let description = schema["description"].as_str().unwrap();
        assert!(description.contains("Default:"), "{description:?}");
    }
    let fields = schema["properties"].as_object().into_iter().flatten().map(|(_, field)| field);
    usize::from(is_choice) + fields.map(said_by_choices).sum::<usize>()
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
