//! `uninject`: takes the wiring out of workloads in files, or of those of a whole cluster.

mod cluster;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::documents;
use super::rewrite::{DocumentOutcome, Output, load, partial, process};
use crate::core::inject::uninject;
use crate::core::inject::view::Workload;
pub(super) use cluster::{UninjectAllArgs, leader, remove_all_wiring};

/// Without a record everything present is the user's: the annotation alone must not go.
pub(super) const BY_HAND: &str =
    "remove the annotation together with the MLFLOW_* variables beside it to have it wired anew";

/// Arguments of `uninject`.
#[derive(Args)]
pub struct UninjectArgs {
    /// Files with workloads as YAML or JSON; `-` is stdin. May be repeated.
    #[arg(short, long = "filename", default_value = "-")]
    filename: Vec<PathBuf>,
    /// Namespace of objects that name none, for the patches of `-o patch`.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// What to print.
    #[arg(short, long, default_value = "yaml")]
    output: Output,
    /// Take the wiring out of every workload of the cluster that KUBECONFIG names, a few at a time, with no operator running.
    #[arg(long, conflicts_with_all = ["filename", "namespace", "output"])]
    all: bool,
    #[command(flatten, next_help_heading = "With --all")]
    cluster: UninjectAllArgs,
}

/// Takes the wiring out; `--all` works on the cluster of KUBECONFIG.
pub fn run(args: UninjectArgs) -> anyhow::Result<ExitCode> {
    let UninjectArgs { filename, namespace, output, all, cluster } = args;
    if all { super::runtime()?.block_on(cluster::all(cluster)) } else { offline(&filename, &namespace, output) }
}

/// Prints workloads without their wiring.
fn offline(files: &[PathBuf], namespace: &str, output: Output) -> anyhow::Result<ExitCode> {
    process(load(files)?, namespace, output, |object, place| {
        let Some(kind) = documents::workload_kind(object) else { return DocumentOutcome::Passed };
        match Workload::read(kind, object).map(|workload| uninject(&workload)) {
            Ok(Ok(patch)) => DocumentOutcome::Patched(patch, Vec::new()),
            Ok(Err(error)) => DocumentOutcome::Skipped(Vec::new(), format!("{error}; {BY_HAND}")),
            Err(error) => partial(kind, place, &error),
        }
    })
}
