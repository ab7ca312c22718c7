//! `inject`: the webhook without TLS. Any report of a wrong injection replays here from two files.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::documents;
use super::rewrite::{DocumentOutcome, Output, load, partial, process};
use super::tracing;
use super::uninject::BY_HAND;
use crate::core::decide::{Decision, Leave, decide};
use crate::core::inject::record::RecordError;
use crate::core::inject::view::Workload;
use crate::core::kubectl::Kubectl;
use crate::core::selection::kind::Kind;
use crate::core::selection::{NotSelected, SelectionContext};
use crate::core::settings::Platform;
use crate::core::settings::policy::Policy;
use crate::core::wiring::Missing;
use crate::names;

/// Kinds that run pods and are not wired.
const OTHER_WORKLOADS: [&str; 2] = ["ReplicaSet", "ReplicationController"];

/// Arguments of `inject`.
#[derive(Args)]
pub struct InjectArgs {
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

/// Prints workloads with their wiring.
pub fn run(args: InjectArgs) -> anyhow::Result<ExitCode> {
    let InjectArgs { filename, namespace, output } = args;
    let (documents, namespace) = (load(&filename)?, namespace.as_str());
    let objects = documents.iter().flat_map(|d| d.content.as_ref().ok()).flat_map(documents::objects);
    let tracings = objects.filter(|object| documents::is_agent_tracing(object));
    let policies =
        tracings.map(|object| tracing::policy(object, namespace)).collect::<anyhow::Result<Vec<Policy>>>()?;
    anyhow::ensure!(!policies.is_empty(), "{}; add one with -f tracing.yaml", tracing::absent(&documents));
    process(documents, namespace, output, |object, place| wire(object, place, namespace, &policies))
}

/// What is missing, and what to do.
pub fn missing_message(missing: Missing) -> String {
    let look = Kubectl::new("get agenttracing");
    match missing {
        Missing::Relay => format!("the relay has not been ready yet; see `{look}`"),
        Missing::TrackingUri => format!("MLflow has not answered yet; see `{look}`"),
        Missing::Binding => "its service account is not in the AgentTracing's status.serviceAccounts yet".to_owned(),
        Missing::ExperimentId => format!(
            "experiment.pin needs the experiment's id, which only a cluster knows; give an AgentTracing with its status ({})",
            look.yaml()
        ),
    }
}

fn wire(object: &Value, place: &str, namespace: &str, policies: &[Policy]) -> DocumentOutcome {
    let Some(kind) = documents::workload_kind(object) else {
        let other = documents::kind(object);
        let advice = || format!("kind {other} is not wired; put the agent into a Deployment");
        let skipped = OTHER_WORKLOADS.contains(&other).then(|| DocumentOutcome::Skipped(Vec::new(), advice()));
        return skipped.unwrap_or(DocumentOutcome::Passed);
    };
    let workload = match Workload::read(kind, object) {
        Ok(workload) => workload,
        Err(error) => return partial(kind, place, &error),
    };
    let namespace = documents::namespace(object, namespace);
    let here: Vec<Policy> = policies.iter().filter(|p| p.settings.namespace == namespace).cloned().collect();
    let context = SelectionContext {
        namespace,
        // Offline there is no namespace to ask: who calls `inject` wants to see the injection.
        injection_enabled: true,
        platform: &Platform::default(),
        // Nor can service accounts be asked: they mount their token unless told otherwise.
        tokenless: &BTreeSet::new(),
        policies: &here,
        renews: true,
    };
    match decide(&workload, &context) {
        Decision::Wire { injection, .. } => {
            let notes: Vec<String> = injection.notes.iter().map(ToString::to_string).collect();
            match injection.skipped {
                Some(reason) => DocumentOutcome::Skipped(
                    injection.patch,
                    [reason.as_str().to_owned()].into_iter().chain(notes).collect::<Vec<_>>().join("; "),
                ),
                None => DocumentOutcome::Patched(injection.patch, notes),
            }
        }
        Decision::Unwire(patch) => {
            DocumentOutcome::Patched(patch, vec!["opted out: the wiring was taken out".to_owned()])
        }
        Decision::Leave(leave) => DocumentOutcome::Skipped(Vec::new(), leave_message(&leave, kind, namespace)),
    }
}

fn leave_message(leave: &Leave, kind: Kind, namespace: &str) -> String {
    match leave {
        Leave::NotSelected(NotSelected::OptedOut) => format!("OptedOut: label {}=false", names::LABEL_INJECT),
        Leave::NotSelected(NotSelected::NamespaceExcluded) => format!("namespace {namespace} is never wired"),
        Leave::NotSelected(NotSelected::NamespaceNotLabelled) => format!("namespace {namespace} is not labelled"),
        Leave::NotSelected(NotSelected::OperatorsOwn) => "it is one of the operator's own".to_owned(),
        Leave::NotSelected(NotSelected::Windows) => "Windows: its pods run on Windows".to_owned(),
        Leave::NotSelected(NotSelected::MirrorPod) => {
            "it is a mirror Pod: the kubelet runs the pod of a file on its node, not this object".to_owned()
        }
        Leave::NotSelected(NotSelected::OfCronJob) => {
            "it belongs to a CronJob, whose template is wired in its place".to_owned()
        }
        Leave::NotSelected(NotSelected::Kind) if kind == Kind::Pod => {
            format!("a Pod is wired only with the label {}=true", names::LABEL_INJECT)
        }
        Leave::NotSelected(NotSelected::Kind) => {
            let kind = kind.as_str();
            format!("injection.kinds does not list {kind}; list it, or label the {kind} {}=true", names::LABEL_INJECT)
        }
        Leave::NotSelected(NotSelected::NoMatch) => {
            format!(
                "no AgentTracing of namespace {namespace} matches; check injection.selector, {} and -n",
                names::ANNOTATION_TRACING
            )
        }
        Leave::Suspended { tracing } => format!("Suspended: AgentTracing {tracing} has spec.suspend set"),
        Leave::Blocked { missing, .. } => missing_message(*missing),
        Leave::Record { error: error @ RecordError::FutureVersion(_), .. } => {
            format!("Outdated: {error}; upgrade this program")
        }
        Leave::Record { error, .. } => format!("RecordUnreadable: {error}; {BY_HAND}"),
    }
}
