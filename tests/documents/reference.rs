//! What is derived from the code: `make generate` writes it between two marks, and a stale one fails here.

use std::fmt::Write;
use std::process::Command;

use agent_tracing::api::{ConditionType, Reason, WorkloadState};
use agent_tracing::cli::{Cli, crd_yaml};
use clap::CommandFactory;
use serde_yaml::Value;

use super::{read, root};

#[test]
fn the_reference_of_the_spec_is_the_schema() {
    let crd: Value = serde_yaml::from_str(&crd_yaml().unwrap()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let spec = &schema["properties"]["spec"];
    let mut fields = Vec::new();
    flatten("", spec, &mut fields);
    assert!(fields.len() > 40, "only {} fields were found", fields.len());
    let mut text = String::new();
    let mut group = None;
    for field in &fields {
        if group.as_ref() != Some(&field.group()) {
            let of = field.group();
            let title = if of.is_empty() { "Top level".to_owned() } else { format!("`{of}`") };
            _ = writeln!(text, "\n### {title}\n\n| field | type | default | meaning |\n|---|---|---|---|");
            group = Some(of);
        }
        let Field { path, kind, default, meaning } = field;
        _ = writeln!(text, "| `{path}` | {kind} | {default} | {meaning} |");
    }
    text.push_str("\n### Rules that the API server checks\n\nA change that breaks one is refused with its message.\n");
    rules("spec", spec, &mut text);
    rules("", schema, &mut text);
    keep("docs/reference/spec.md", "spec", &text);
}

#[test]
fn the_reference_of_conditions_has_every_reason_of_the_code() {
    let mut text = String::new();
    for of in ConditionType::ALL {
        _ = writeln!(text, "\n### {}\n\n{}\n", of.as_str(), of.meaning());
        table(&mut text, Reason::ALL.iter().filter(|reason| reason.conditions().contains(&of)), true);
    }
    text.push_str("\n### Workloads: states\n\n| state | meaning |\n|---|---|\n");
    for state in WorkloadState::ALL {
        _ = writeln!(text, "| `{}` | {} |", state.as_str(), state.meaning());
    }
    text.push_str("\n### Workloads: reasons\n\n");
    table(&mut text, Reason::ALL.iter().filter(|reason| reason.is_of_workloads()), false);
    keep("docs/reference/conditions.md", "conditions", &text);
}

fn table<'r>(text: &mut String, reasons: impl Iterator<Item = &'r Reason>, with_status: bool) {
    let (title, line) = if with_status { ("| status ", "|---") } else { ("", "") };
    _ = writeln!(text, "| reason {title}| meaning | what to do |\n|---{line}|---|---|");
    for reason in reasons {
        let status = if with_status { format!("| {} ", reason.status()) } else { String::new() };
        _ = writeln!(text, "| `{}` {status}| {} | {} |", reason.as_str(), reason.meaning(), reason.remedy());
    }
}

#[test]
fn the_table_of_what_a_container_gets_is_what_explain_prints() {
    let explain = Command::new(env!("CARGO_BIN_EXE_agent-tracing-operator"))
        .args(["explain", "--output", "markdown"])
        .output()
        .unwrap();
    let table = String::from_utf8(explain.stdout).unwrap();
    assert!(table.contains("MLFLOW_TRACKING_URI"), "explain printed {table:?}");
    keep("docs/reference/injected.md", "explain", &format!("\n{table}"));
}

#[test]
fn the_reference_of_the_command_line_is_its_help() {
    // The values of somebody's environment and the width of somebody's terminal are no part of it.
    let mut cli = Cli::command().term_width(100).mut_subcommands(|of| of.mut_args(|arg| arg.hide_env_values(true)));
    cli.build();
    let mut text = String::new();
    for command in cli.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        let name = command.get_name().to_owned();
        let help = command.render_long_help().to_string();
        let lines: Vec<_> = help.trim().lines().map(str::trim_end).collect();
        _ = writeln!(text, "\n### {name}\n\n```text\n{}\n```", lines.join("\n"));
    }
    keep("docs/reference/cli.md", "cli", &text);
}

/// A line of the reference of the spec.
struct Field {
    path: String,
    kind: String,
    default: String,
    meaning: String,
}

impl Field {
    fn new(path: &str, schema: &Value, is_required: bool) -> Self {
        let text = words(&schema["description"]).replace('|', "\\|");
        // By the convention of the fields' comments the default is their last sentence.
        let (meaning, said) = match text.rsplit_once("Default: ") {
            Some((meaning, default)) => (meaning.trim().to_owned(), default.trim_end_matches('.').to_owned()),
            None => (text, String::new()),
        };
        let default = match &schema["default"] {
            _ if is_required => "required".to_owned(),
            Value::String(text) => format!("`{text}`"),
            _ => said,
        };
        Self { path: path.to_owned(), kind: kind(schema), default, meaning }
    }

    /// The table that it stands in.
    fn group(&self) -> String {
        let parts: Vec<_> = self.path.split('.').collect();
        match parts.as_slice() {
            [_] => String::new(),
            ["mlflow", of, _, ..] => format!("mlflow.{of}"),
            [of, ..] => (*of).to_owned(),
            [] => String::new(),
        }
    }
}

/// Kubernetes' own types are described by Kubernetes.
const FOREIGN: [&str; 2] = ["mlflow.standalone.tolerations", "mlflow.standalone.networkPolicy.from"];

fn flatten(parent: &str, schema: &Value, fields: &mut Vec<Field>) {
    let required: Vec<_> = schema["required"].as_sequence().into_iter().flatten().filter_map(Value::as_str).collect();
    let properties: Vec<_> = schema["properties"].as_mapping().into_iter().flatten().collect();
    // First what ends here, then the blocks: each has a table of its own.
    let is_block = |of: &Value| of["properties"].is_mapping();
    let (blocks, leaves): (Vec<_>, Vec<_>) = properties.into_iter().partition(|(_, of)| is_block(of));
    for (name, of) in leaves.into_iter().chain(blocks) {
        let name = name.as_str().unwrap();
        let path = if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") };
        fields.push(Field::new(&path, of, required.contains(&name)));
        if FOREIGN.contains(&path.as_str()) {
            continue;
        }
        flatten(&path, of, fields);
        flatten(&format!("{path}[]"), &of["items"], fields);
    }
    if parent.is_empty() {
        // The blocks themselves stand together in the first table.
        fields.sort_by_key(|field| field.path.contains('.'));
        let (top, mut below): (Vec<_>, Vec<_>) =
            std::mem::take(fields).into_iter().partition(|field| !field.path.contains('.'));
        let order: Vec<_> = top.iter().map(|field| field.path.clone()).collect();
        below.sort_by_key(|field| {
            let of = field.path.split(['.', '[']).next().unwrap_or_default().to_owned();
            (order.iter().position(|name| *name == of), field.group())
        });
        fields.extend(top.into_iter().chain(below));
    }
}

fn kind(schema: &Value) -> String {
    let one_of = |schema: &Value| {
        let values = schema["enum"].as_sequence()?.iter().filter_map(Value::as_str).map(|value| format!("`{value}`"));
        Some(values.collect::<Vec<_>>().join(", "))
    };
    if let Some(values) = one_of(schema) {
        return values;
    }
    match schema["type"].as_str().unwrap_or("any") {
        "array" => match one_of(&schema["items"]) {
            Some(values) => format!("list of {values}"),
            None => format!("list of {}s", schema["items"]["type"].as_str().unwrap_or("value")),
        },
        "integer" => match (schema["minimum"].as_i64(), schema["maximum"].as_i64()) {
            (Some(least), Some(most)) => format!("integer, {least} to {most}"),
            _ => "integer".to_owned(),
        },
        "object" if schema["additionalProperties"].is_mapping() => "map".to_owned(),
        other => other.to_owned(),
    }
}

fn rules(path: &str, schema: &Value, text: &mut String) {
    for rule in schema["x-kubernetes-validations"].as_sequence().into_iter().flatten() {
        let of = if path.is_empty() { "the whole object".to_owned() } else { format!("`{path}`") };
        let (message, cel) = (words(&rule["message"]), rule["rule"].as_str().unwrap());
        _ = writeln!(text, "\n- On {of}: {message}.\n\n  ```cel\n  {cel}\n  ```");
    }
    if path.is_empty() {
        return;
    }
    for (name, of) in schema["properties"].as_mapping().into_iter().flatten() {
        let below = format!("{path}.{}", name.as_str().unwrap());
        rules(&below, of, text);
        rules(&format!("{below}[]"), &of["items"], text);
    }
}

fn words(text: &Value) -> String {
    text.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Compares a page with what the code says, or writes it there.
fn keep(path: &str, name: &str, text: &str) {
    let begin = format!("<!-- {name}: begin (written by `make generate`; do not edit) -->\n");
    let end = format!("\n<!-- {name}: end -->");
    let page = read(path);
    let (before, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("{path} lacks the line {begin}"));
    let (found, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{path} lacks the line {end}"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return std::fs::write(root().join(path), format!("{before}{begin}{text}{end}{after}")).unwrap();
    }
    assert!(found == text, "{path} is stale; run `make generate`");
}
