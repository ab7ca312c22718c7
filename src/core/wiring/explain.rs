//! What an AgentTracing gives a container, as a table: `explain` prints it and docs/reference/injected.md holds it.

use std::fmt::Write;

use crate::api::{
    AgentTracing, AgentTracingSpec, Auth, AuthMethod, CaBundle, CaBundleMode, Experiment, External, Mlflow, MlflowMode,
    Otlp, OtlpMode, Sdk,
};
use crate::core::selection::kind::Kind;
use crate::core::settings::policy::Policy;
use crate::core::settings::{self, Facts, Problem};
use crate::core::wiring::{Group, Missing, Subject, expand, wiring};

/// One line of the table of one AgentTracing.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The variable.
    pub variable: String,
    /// What the process gets; `{workload}` stands for the workload's name.
    pub value: String,
    /// Why it is there.
    pub why: &'static str,
    /// When the container keeps its own instead.
    pub users_choice: &'static str,
}

/// The table for an AgentTracing.
pub fn rows(policy: &Policy) -> Result<Vec<Row>, Missing> {
    let subject = Subject { kind: Kind::Deployment, name: WORKLOAD, experiment: None, version: Some("{version}") };
    let rows = wiring(policy, &subject)?.env.into_iter().map(|entry| Row {
        variable: entry.name,
        value: expand(&entry.value).unwrap_or(entry.value),
        why: entry.why,
        users_choice: match entry.group {
            Group::Address => "a container with its own gets nothing of this table",
            Group::Experiment => "a container with its own experiment NAME, ID or DESTINATION keeps that",
            Group::Auth => "a container with any token, user name or method of its own keeps that",
            Group::Part(part) => part.users_choice,
            Group::Otlp => {
                "a container with any OTEL_EXPORTER_OTLP… of its own gets none of these; of the others its own value wins"
            }
            Group::OtlpExporter => {
                "only in a container with OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, of its own or from otlp.mode; \
                 its own value wins, and MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT"
            }
            Group::Single => "a container's own value wins",
        },
    });
    Ok(rows.collect())
}

/// One line of the table of all modes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModesRow {
    /// The variable.
    pub variable: String,
    /// Mode Standalone.
    pub standalone: Option<Cell>,
    /// Mode CR.
    pub cr: Option<Cell>,
    /// Mode External.
    pub external: Option<Cell>,
    /// Why it is there.
    pub why: &'static str,
    /// When the container keeps its own instead.
    pub users_choice: &'static str,
}

/// What a variable is in one mode.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cell {
    /// What it is set to.
    pub value: String,
    /// What the spec has to say for it to be there; absent where it always is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with: Option<&'static str>,
}

impl ModesRow {
    fn of(row: Row) -> Self {
        let Row { variable, value: _, why, users_choice } = row;
        Self { variable, standalone: None, cr: None, external: None, why, users_choice }
    }
}

/// The table of all modes: what the smallest AgentTracing of each gives, and what a spec that asks for more adds.
pub fn modes(namespace: &str) -> Vec<ModesRow> {
    // Everything at once: the order of the variables.
    let everything = rows_of(&with_options(MlflowMode::External, namespace, &OPTIONS)).into_iter().map(ModesRow::of);
    let mut all: Vec<ModesRow> = everything.collect();
    for mode in [MlflowMode::Standalone, MlflowMode::Cr, MlflowMode::External] {
        let with_one =
            OPTIONS.iter().map(|ask| (Some(ask.0), with_options(mode, namespace, std::slice::from_ref(ask))));
        for (with, tracing) in std::iter::once((None, smallest(mode, namespace))).chain(with_one) {
            let mut place = 0;
            for row in rows_of(&tracing) {
                let known = all.iter().position(|known| known.variable == row.variable);
                let index = known.unwrap_or(place);
                let value = row.value.clone();
                if known.is_none() {
                    all.insert(index, ModesRow::of(row));
                }
                let cell = match mode {
                    MlflowMode::Standalone => &mut all[index].standalone,
                    MlflowMode::Cr => &mut all[index].cr,
                    MlflowMode::External => &mut all[index].external,
                };
                cell.get_or_insert(Cell { value, with });
                place = index + 1;
            }
        }
    }
    all
}

/// The namespace of the example.
pub const NAMESPACE: &str = "bank-agents";

/// The smallest AgentTracing of a mode.
pub fn smallest(mode: MlflowMode, namespace: &str) -> AgentTracing {
    let external = External { tracking_uri: "https://mlflow.example.com".to_owned(), workspace: None };
    let external = (mode == MlflowMode::External).then_some(external);
    let spec = AgentTracingSpec {
        suspend: false,
        mlflow: Mlflow { mode, standalone: None, cr: None, external },
        experiment: Experiment::default(),
        auth: None,
        otlp: None,
        relay: None,
        ca_bundle: None,
        injection: None,
        sdk: None,
    };
    let mut tracing = AgentTracing::new("tracing", spec);
    tracing.metadata.namespace = Some(namespace.to_owned());
    tracing
}

/// The policy of an AgentTracing that no cluster has seen, with the address that it will have.
pub fn offline(tracing: &AgentTracing) -> Result<Policy, Vec<Problem>> {
    let settings = settings::parse(tracing)?;
    let mut facts = Facts::of(tracing);
    facts.tracking_uri.get_or_insert(settings.tracking_uri());
    if tracing.status.is_none() {
        // No cluster has been asked: what is printed is what it will be.
        (facts.bound, facts.relay) = (None, true);
    }
    Ok(Policy { settings, facts })
}

fn with_options(mode: MlflowMode, namespace: &str, options: &[SpecOption]) -> AgentTracing {
    let mut tracing = smallest(mode, namespace);
    options.iter().for_each(|(_, ask)| ask(&mut tracing.spec));
    tracing
}

/// None for an AgentTracing that is not valid, of which there is none here.
fn rows_of(tracing: &AgentTracing) -> Vec<Row> {
    let Ok(mut policy) = offline(tracing) else { return Vec::new() };
    policy.facts.experiment_ids.insert(WORKLOAD.to_owned(), "{experiment id}".to_owned());
    rows(&policy).unwrap_or_default()
}

/// The table in Markdown.
pub fn markdown(rows: &[Row]) -> String {
    let mut out = String::from("| variable | value | why | the user's choice |\n|---|---|---|---|\n");
    for row in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| `{}` | `{}` | {} | {} |", row.variable, row.value, row.why, row.users_choice);
    }
    out
}

/// The table of all modes in Markdown.
pub fn modes_markdown(rows: &[ModesRow]) -> String {
    let mut out = String::from(
        "| variable | Standalone | CR | External | value | why | the user's choice |\n|---|---|---|---|---|---|---|\n",
    );
    for ModesRow { variable, standalone, cr, external, why, users_choice } in rows {
        let cells = [standalone, cr, external];
        let mut values: Vec<_> =
            cells.iter().filter_map(|cell| cell.as_ref()).map(|c| format!("`{}`", c.value)).collect();
        values.dedup();
        let [standalone, cr, external] = cells.map(|cell| match cell {
            None => "–".to_owned(),
            Some(Cell { with: None, .. }) => "●".to_owned(),
            Some(Cell { with: Some(with), .. }) => format!("with `{with}`"),
        });
        let values = values.join(", ");
        // Writing to a String cannot fail.
        let _ =
            writeln!(out, "| `{variable}` | {standalone} | {cr} | {external} | {values} | {why} | {users_choice} |");
    }
    out
}

/// The table for a terminal, columns aligned.
pub fn table(rows: &[Row]) -> String {
    let title = ["VARIABLE", "VALUE", "WHY"].map(str::to_owned);
    aligned(title, rows.iter().map(|row| [row.variable.clone(), row.value.clone(), row.why.to_owned()]))
}

/// The table of all modes for a terminal, and under it what its marks mean.
pub fn modes_table(rows: &[ModesRow]) -> String {
    let mark = |cell: &Option<Cell>| match cell {
        None => "–",
        Some(Cell { with: None, .. }) => "●",
        Some(_) => "○",
    };
    let line = |row: &ModesRow| {
        let ModesRow { variable, standalone, cr, external, why, users_choice: _ } = row;
        [variable, mark(standalone), mark(cr), mark(external), why].map(str::to_owned)
    };
    let table = aligned(["VARIABLE", "STANDALONE", "CR", "EXTERNAL", "WHY"].map(str::to_owned), rows.iter().map(line));
    table + LEGEND
}

const LEGEND: &str = "\n● always   ○ where the spec asks for it   – never in this mode\n\
                      Which field asks for it, the values and what a container may keep: agent-tracing-operator explain -o markdown\n";

fn aligned<const N: usize>(title: [String; N], lines: impl Iterator<Item = [String; N]>) -> String {
    let lines: Vec<_> = std::iter::once(title).chain(lines).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out.push_str(cells.join("   ").trim_end());
        out.push('\n');
    }
    out
}

/// What a spec may ask for beyond the smallest one: as a user writes it, and what it does. It does nothing in a mode in
/// which it is refused.
type SpecOption = (&'static str, fn(&mut AgentTracingSpec));

const OPTIONS: [SpecOption; 8] = [
    ("experiment.pin", |spec| spec.experiment.pin = true),
    ("mlflow.external.workspace", |spec| {
        if let Some(external) = &mut spec.mlflow.external {
            external.workspace = Some("team-a".to_owned());
        }
    }),
    ("auth.method: TokenFile", |spec| set_auth(spec, AuthMethod::TokenFile)),
    ("auth.method: KubernetesPlugin", |spec| set_auth(spec, AuthMethod::KubernetesPlugin)),
    ("caBundle.mode: Always", |spec| {
        spec.ca_bundle = Some(CaBundle { mode: Some(CaBundleMode::Always), ..CaBundle::default() });
    }),
    ("otlp.mode: Direct", |spec| set_otlp(spec, OtlpMode::Direct)),
    ("otlp.mode: Relay", |spec| set_otlp(spec, OtlpMode::Relay)),
    ("sdk.samplingRatio", |spec| {
        spec.sdk = Some(Sdk { sampling_ratio: Some("0.5".to_owned()), ..Sdk::default() });
    }),
];

fn set_auth(spec: &mut AgentTracingSpec, method: AuthMethod) {
    if spec.mlflow.mode != MlflowMode::Standalone {
        spec.auth = Some(Auth { method: Some(method) });
    }
}

fn set_otlp(spec: &mut AgentTracingSpec, mode: OtlpMode) {
    if mode != OtlpMode::Direct || spec.mlflow.mode != MlflowMode::Cr {
        spec.otlp = Some(Otlp { mode: Some(mode), endpoint: None });
    }
}

/// Stands for the workload's name.
const WORKLOAD: &str = "{workload}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_all_modes_is_the_one_of_the_contract() {
        let rows = modes(NAMESPACE);
        let marks = modes_table(&rows);
        let line = |variable: &str| {
            let line = marks.lines().find(|line| line.split(' ').next() == Some(variable));
            line.unwrap_or_else(|| panic!("{variable} is not in\n{marks}")).split_whitespace().skip(1).take(3).collect()
        };
        for (variable, expected) in [
            ("MLFLOW_TRACKING_URI", "●●●"),
            ("MLFLOW_EXPERIMENT_NAME", "●●●"),
            ("MLFLOW_TRACING_DESTINATION", "○○○"),
            ("MLFLOW_WORKSPACE", "–●○"),
            ("MLFLOW_TRACKING_TOKEN_FILE", "–●○"),
            ("MLFLOW_TRACKING_AUTH", "–○○"),
            ("REQUESTS_CA_BUNDLE", "○●○"),
            ("MLFLOW_TRACKING_SERVER_CERT_PATH", "○●○"),
            ("NODE_EXTRA_CA_CERTS", "○●○"),
            ("MLFLOW_DISABLE_TELEMETRY", "●●●"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "○○○"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "○–○"),
            ("OTEL_RESOURCE_ATTRIBUTES", "○○○"),
            ("MLFLOW_ENABLE_OTLP_EXPORTER", "●●●"),
            ("MLFLOW_TRACE_SAMPLING_RATIO", "○○○"),
        ] {
            let found: String = line(variable);
            assert_eq!(found, expected, "{variable}");
        }
    }

    #[test]
    fn every_variable_of_a_mode_is_in_the_table_of_all_modes() {
        let all = modes(NAMESPACE);
        for mode in [MlflowMode::Standalone, MlflowMode::Cr, MlflowMode::External] {
            for row in rows_of(&smallest(mode, NAMESPACE)) {
                assert!(all.iter().any(|known| known.variable == row.variable), "{}", row.variable);
            }
        }
        let mut names: Vec<_> = all.iter().map(|row| &row.variable).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len(), "no variable stands there twice");
    }
}
