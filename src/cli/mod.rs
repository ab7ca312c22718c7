//! The command line. Everything here but `run`, `relay`, `check`, `uninject --all` and `uninstall` works with no network and no kubeconfig.

mod check;
mod crds;
pub mod documents;
mod explain;
mod inject;
pub mod merge_ca;
pub mod relay;
mod rewrite;
pub mod run;
mod tracing;
mod uninject;
mod uninstall;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use crds::crd_yaml;

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
    Run(Box<run::RunArgs>),
    /// Run the relay of an AgentTracing: takes traces from agents, and loses none while MLflow does not take them.
    ///
    /// Agents send OTLP over HTTP to /w/<kind>/<name>/v1/traces, for example /w/deployment/teller/v1/traces. They are answered with 200
    /// when their traces are in MLflow or on the disk.
    Relay(relay::RelayArgs),
    /// Print the CustomResourceDefinition as YAML.
    Crds,
    /// Print workloads with the wiring that the operator would give them.
    ///
    /// Reads AgentTracings and workloads from files as kubectl does, YAML or JSON documents one after the other, and prints every
    /// document in its order. Workloads that were skipped are named on stderr with the reason, and the exit code is 1. So is a
    /// document that is no whole object, which is printed as it came, or that cannot be read at all, which only `-o yaml` prints.
    /// Of a key that stands twice the last one counts, as kubectl has it, and stderr names it. A key with nothing behind it
    /// (`env:`) counts as absent. A field of an AgentTracing that does not exist is an error; in a cluster the operator ignores it.
    Inject(inject::InjectArgs),
    /// Print workloads without the wiring of the operator, or take it out of a whole cluster.
    ///
    /// Reads, prints and ends as `inject` does. A key with nothing behind it (`env:`) that the wiring filled is gone afterwards:
    /// it means the same as an absent one.
    Uninject(uninject::UninjectArgs),
    /// Take the operator out of a cluster: webhook, operator, wiring. AgentTracings and their MLflow servers stay unless asked.
    ///
    /// Works on the cluster of KUBECONFIG. First nobody injects any more and the operator ends, then the wiring is taken out, a
    /// few workloads at a time. With --delete-tracings the AgentTracings go then, with their MLflow servers and their kind; volumes
    /// with traces stay all the same. What helm or kustomize installed besides is theirs to delete. May be repeated; exit code 1
    /// names the workloads that could not be changed.
    Uninstall(uninstall::UninstallArgs),
    /// Print what a container gets, and why.
    Explain(explain::ExplainArgs),
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

impl Cli {
    /// Carries out the command.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run(args) => runtime()?.block_on(crate::run::run(*args)),
            Command::Relay(args) => runtime()?.block_on(crate::relay::run(args)),
            Command::Crds => {
                print!("{}", crd_yaml()?);
                Ok(ExitCode::SUCCESS)
            }
            Command::Inject(args) => inject::run(args),
            Command::Uninject(args) => uninject::run(args),
            Command::Uninstall(args) => runtime()?.block_on(uninstall::uninstall(args)),
            Command::Explain(args) => explain::run(args),
            Command::Check(args) => runtime()?.block_on(check::check(args)),
            Command::MergeCa(args) => {
                merge_ca::merge_ca(&args);
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// Two workers: one reconcile must never keep the lease, the watches or the probes waiting, and each further thread costs idle
/// memory. The webhook has a thread of its own.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}
