//! What an AgentTracing gives a container, as a table: `explain` prints it and the README holds it.

use std::fmt::Write;

use super::policy::Policy;
use super::wiring::{Group, Missing, wiring};

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The variable.
    pub variable: String,
    /// What it is set to; `{workload}` stands for the workload's name.
    pub value: String,
    /// Why it is there.
    pub why: &'static str,
    /// When the container keeps its own instead.
    pub kept: &'static str,
}

/// The table for an AgentTracing.
pub fn rows(policy: &Policy) -> Result<Vec<Row>, Missing> {
    let rows = wiring(policy, "{workload}", None)?.env.into_iter().map(|entry| Row {
        variable: entry.name,
        value: entry.value,
        why: entry.why,
        kept: match entry.group {
            Group::Address => "a container with its own gets nothing of this table",
            Group::Experiment => "a container with its own experiment NAME, ID or DESTINATION keeps that",
            Group::Auth => "a container with any token, user name or method of its own keeps that",
            Group::CaBundle => {
                "a container's own value wins; a pod with a volume, init container or mount of ours keeps those"
            }
            Group::Single => "a container's own value wins",
        },
    });
    Ok(rows.collect())
}

/// The table in Markdown.
pub fn markdown(rows: &[Row]) -> String {
    let mut out = String::from("| variable | value | why | the user's choice |\n|---|---|---|---|\n");
    for row in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| `{}` | `{}` | {} | {} |", row.variable, row.value, row.why, row.kept);
    }
    out
}

/// The table for a terminal, columns aligned.
pub fn table(rows: &[Row]) -> String {
    let width = |of: fn(&Row) -> &str, title: &str| rows.iter().map(|r| of(r).len()).chain([title.len()]).max();
    let name = width(|r| &r.variable, "VARIABLE").unwrap_or(0);
    let value = width(|r| &r.value, "VALUE").unwrap_or(0);
    let mut out = format!("{:name$}   {:value$}   WHY\n", "VARIABLE", "VALUE");
    for row in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{:name$}   {:value$}   {}", row.variable, row.value, row.why);
    }
    out
}
