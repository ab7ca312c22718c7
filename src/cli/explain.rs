//! `explain`: what a container gets, and why.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::{documents, inject, tracing};
use crate::api::MlflowMode;
use crate::core::wiring::explain;

/// Arguments of `explain`.
#[derive(Args)]
pub struct ExplainArgs {
    /// File with an AgentTracing as YAML or JSON; `-` is stdin. Default: a table of all modes.
    #[arg(short, long = "filename", conflicts_with = "mode")]
    pub filename: Option<PathBuf>,
    /// The smallest AgentTracing of this mode, in upper or lower case.
    #[arg(short, long, ignore_case = true)]
    pub mode: Option<Mode>,
    /// Namespace of an AgentTracing that names none; `default`, and `bank-agents` where there is no file.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// What to print.
    #[arg(short, long, default_value = "table")]
    pub output: TableOutput,
}

/// Modes, as they are typed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// The operator runs MLflow.
    #[value(name = "Standalone")]
    Standalone,
    /// A shared MLflow that the MLflow operator runs.
    #[value(name = "CR")]
    Cr,
    /// A server that someone else runs.
    #[value(name = "External")]
    External,
}

/// Forms in which a table is printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TableOutput {
    /// Aligned columns.
    Table,
    /// A Markdown table.
    Markdown,
    /// JSON.
    Json,
}

/// Prints the table.
pub fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let ExplainArgs { filename, mode, namespace, output } = args;
    let example = namespace.as_deref().unwrap_or(explain::NAMESPACE);
    let policy = match (filename, mode) {
        (Some(path), _) => {
            let documents = documents::parse(&documents::read(&path)?, &path.display().to_string());
            let objects = documents.iter().flat_map(|d| d.content.as_ref().ok()).flat_map(documents::objects);
            let tracing = objects.into_iter().find(|object| documents::is_agent_tracing(object));
            let absent = || anyhow::anyhow!("{}; give one with -f tracing.yaml", tracing::absent(&documents));
            tracing::policy(tracing.ok_or_else(absent)?, namespace.as_deref().unwrap_or("default"))?
        }
        (None, Some(mode)) => {
            let mode = match mode {
                Mode::Standalone => MlflowMode::Standalone,
                Mode::Cr => MlflowMode::Cr,
                Mode::External => MlflowMode::External,
            };
            tracing::valid(&explain::smallest(mode, example))?
        }
        (None, None) => {
            let rows = explain::modes(example);
            match output {
                TableOutput::Table => print!("{}", explain::modes_table(&rows)),
                TableOutput::Markdown => print!("{}", explain::modes_markdown(&rows)),
                TableOutput::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
            }
            return Ok(ExitCode::SUCCESS);
        }
    };
    let rows = explain::rows(&policy).map_err(|missing| anyhow::anyhow!("{}", inject::missing_message(missing)))?;
    match output {
        TableOutput::Table => print!("{}", explain::table(&rows)),
        TableOutput::Markdown => print!("{}", explain::markdown(&rows)),
        TableOutput::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
    }
    Ok(ExitCode::SUCCESS)
}
