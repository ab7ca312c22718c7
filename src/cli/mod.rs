//! The command line. Everything here but `run`, `check`, `uninject --all` and `uninstall` works with no network and no kubeconfig.

mod check;
pub mod documents;
pub mod merge_ca;
mod offline;
mod tracing;
mod uninject;
mod uninstall;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::api::{AgentTracing, AgentTracingSpec, AgentTracingStatus, MlflowMode};
use crate::core::wiring::explain;

/// Brings the traces of AI agents on Kubernetes into MLflow, and proves that they arrive.
#[derive(Parser)]
#[command(name = "agent-tracing-operator", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator: controller and webhook.
    Run(Box<crate::run::RunArgs>),
    /// Print the CustomResourceDefinition as YAML.
    Crds,
    /// Print workloads with the wiring that the operator would give them.
    ///
    /// Reads AgentTracings and workloads from files as kubectl does, YAML or JSON documents one after the other, and prints every
    /// document in its order. Workloads that were skipped are named on stderr with the reason, and the exit code is 1. So is a
    /// document that is no whole object, which is printed as it came, or that cannot be read at all, which only `-o yaml` prints.
    /// Of a key that stands twice the last one counts, as kubectl has it, and stderr names it. A key with nothing behind it
    /// (`env:`) counts as absent. A field of an AgentTracing that does not exist is an error; in a cluster the operator ignores it.
    Inject(InjectArgs),
    /// Print workloads without the wiring of the operator, or take it out of a whole cluster.
    ///
    /// Reads, prints and ends as `inject` does. A key with nothing behind it (`env:`) that the wiring filled is gone afterwards:
    /// it means the same as an absent one.
    Uninject(UninjectArgs),
    /// Take the operator out of a cluster: webhook, operator, wiring. AgentTracings and their MLflow servers stay unless asked.
    ///
    /// Works on the cluster of KUBECONFIG. First nobody injects any more and the operator ends, then the wiring is taken out, a
    /// few workloads at a time. With --delete-tracings the AgentTracings go then, with their MLflow servers and their kind; volumes
    /// with traces stay all the same. What helm or kustomize installed besides is theirs to delete. May be repeated; exit code 1
    /// names the workloads that could not be changed.
    Uninstall(uninstall::UninstallArgs),
    /// Print what a container gets, and why.
    Explain(ExplainArgs),
    /// Walk every link from the installed kind to the last trace, and name the one that is broken.
    ///
    /// Reads the cluster of KUBECONFIG with your rights. The exit code is 0 where every link holds, 1 where one is broken and
    /// 2 where one could not be looked at or it is too early to tell.
    Check(check::CheckArgs),
    /// Merge certificate authorities into one bundle; what an agent's init container runs.
    ///
    /// Broken, expired and repeated certificates are left out and named on stderr. The exit code is always 0: whatever is
    /// wrong here, the agent must start.
    MergeCa(merge_ca::MergeCaArgs),
}

#[derive(Args)]
struct InjectArgs {
    /// Files with AgentTracings and workloads as YAML or JSON; `-` is stdin. May be repeated.
    #[arg(short, long = "filename", required = true)]
    filename: Vec<PathBuf>,
    /// Namespace of objects that name none.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// What to print.
    #[arg(short, long, default_value = "yaml")]
    output: Output,
}

#[derive(Args)]
struct UninjectArgs {
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
    cluster: uninject::UninjectAllArgs,
}

#[derive(Args)]
struct ExplainArgs {
    /// File with an AgentTracing as YAML or JSON; `-` is stdin. Default: a table of all modes.
    #[arg(short, long = "filename", conflicts_with = "mode")]
    filename: Option<PathBuf>,
    /// The smallest AgentTracing of this mode, in upper or lower case.
    #[arg(short, long, ignore_case = true)]
    mode: Option<Mode>,
    /// Namespace of an AgentTracing that names none; `default`, and `bank-agents` where there is no file.
    #[arg(short, long)]
    namespace: Option<String>,
    /// What to print.
    #[arg(short, long, default_value = "table")]
    output: TableOutput,
}

/// Forms in which changed workloads are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// All documents as YAML.
    Yaml,
    /// All documents as JSON, one a line.
    Json,
    /// Only the JSON patch of each workload, one a line.
    Patch,
    /// Only what changes, as a unified diff.
    Diff,
}

/// Modes, as they are typed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
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
enum TableOutput {
    /// Aligned columns.
    Table,
    /// A Markdown table.
    Markdown,
    /// JSON.
    Json,
}

impl Cli {
    /// Carries out the command.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run(args) => runtime()?.block_on(crate::run::run(*args)),
            Command::Crds => {
                print!("{}", crd_yaml()?);
                Ok(ExitCode::SUCCESS)
            }
            Command::Inject(InjectArgs { filename, namespace, output }) => {
                offline::inject(&filename, &namespace, output)
            }
            Command::Uninject(UninjectArgs { all: true, cluster, .. }) => runtime()?.block_on(uninject::all(cluster)),
            Command::Uninject(UninjectArgs { filename, namespace, output, .. }) => {
                offline::uninject(&filename, &namespace, output)
            }
            Command::Uninstall(args) => runtime()?.block_on(uninstall::uninstall(args)),
            Command::Explain(args) => explain_command(args),
            Command::Check(args) => runtime()?.block_on(check::check(args)),
            Command::MergeCa(args) => {
                merge_ca::merge_ca(&args);
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// Two workers: one reconcile must never keep an admission waiting, and each further thread costs idle memory.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// The CustomResourceDefinition as it is kept in `crds/`.
pub fn crd_yaml() -> anyhow::Result<String> {
    use kube::CustomResourceExt;
    let mut crd = serde_json::to_value(AgentTracing::crd())?;
    integral_bounds(&mut crd);
    if let Some(fields) = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties") {
        describe(&mut fields["spec"], &source_schema::<AgentTracingSpec>()?);
        describe(&mut fields["status"], &source_schema::<AgentTracingStatus>()?);
    }
    let yaml = serde_yaml::to_string(&crd)?;
    Ok(format!("# Generated by `make generate` from src/api; do not edit.\n---\n{yaml}"))
}

/// The schema as schemars writes it, in which an optional field has its own description beside that of its type.
fn source_schema<T: schemars::JsonSchema>() -> anyhow::Result<serde_json::Value> {
    let settings = schemars::generate::SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    Ok(serde_json::to_value(settings.into_generator().into_root_schema_for::<T>())?)
}

/// Gives each field its own description: kube's transformation leaves an optional field that of its type, which knows neither
/// the field's values nor its default.
fn describe(schema: &mut serde_json::Value, source: &serde_json::Value) {
    let of_type = source.get("anyOf").and_then(|types| types.get(0)).unwrap_or(source);
    if let (Some(schema), Some(text)) = (schema.as_object_mut(), source.get("description")) {
        schema.insert("description".to_owned(), text.clone());
    }
    for (name, field) in schema.get_mut("properties").and_then(|p| p.as_object_mut()).into_iter().flatten() {
        if let Some(source) = of_type.get("properties").and_then(|properties| properties.get(name)) {
            describe(field, source);
        }
    }
    if let (Some(items), Some(source)) = (schema.get_mut("items"), of_type.get("items")) {
        describe(items, source);
    }
}

/// Bounds as `300`, not as the `300.0` that schemars writes: the API server stores the former, and GitOps tools compare.
fn integral_bounds(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => map.values_mut().for_each(integral_bounds),
        serde_json::Value::Array(list) => list.iter_mut().for_each(integral_bounds),
        serde_json::Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|f| number.is_f64() && f.fract() == 0.0) {
                *value = serde_json::Value::from(float as i64);
            }
        }
        _ => {}
    }
}

fn explain_command(args: ExplainArgs) -> anyhow::Result<ExitCode> {
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
    let rows = explain::rows(&policy).map_err(|missing| anyhow::anyhow!("{}", offline::missing_message(missing)))?;
    match output {
        TableOutput::Table => print!("{}", explain::table(&rows)),
        TableOutput::Markdown => print!("{}", explain::markdown(&rows)),
        TableOutput::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
    }
    Ok(ExitCode::SUCCESS)
}
