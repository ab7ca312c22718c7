//! `inject` and `uninject`: the webhook without TLS. Any report of a wrong injection replays here from two files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use json_patch::{Patch, PatchOperation};
use serde_json::{Value, json};
use similar::TextDiff;

use super::{Output, documents, offline_policy};
use crate::core::decide::{Decision, Leave, decide};
use crate::core::inject::uninject as removal;
use crate::core::kind::Kind;
use crate::core::policy::Policy;
use crate::core::record::RecordError;
use crate::core::select::{NotSelected, Surroundings};
use crate::core::settings::Platform;
use crate::core::view::Workload;
use crate::core::wiring::Missing;
use crate::names;

/// Kinds that run pods and are not wired.
const OTHER_WORKLOADS: [&str; 2] = ["ReplicaSet", "ReplicationController"];

/// Without a record everything present is the user's: the annotation alone must not go.
const BY_HAND: &str = "remove the annotation together with the MLFLOW_* variables beside it to have it wired anew";

/// What is to become of one document.
enum Outcome {
    /// Not a workload.
    Passed,
    /// A workload with this patch; what the user should know goes to stderr.
    Patched(Vec<PatchOperation>, Vec<String>),
    /// A workload that is not wired, and why; the patch takes out what an earlier wiring left.
    Skipped(Vec<PatchOperation>, String),
}

/// `inject`.
pub fn inject(files: &[PathBuf], namespace: &str, output: Output) -> anyhow::Result<ExitCode> {
    let documents = load(files)?;
    let mut policies = Vec::new();
    for document in documents.iter().filter(|d| documents::is_agent_tracing(d)) {
        let mut policy = offline_policy(document)?;
        if policy.namespace.is_empty() {
            namespace.clone_into(&mut policy.namespace);
        }
        policies.push(policy);
    }
    anyhow::ensure!(!policies.is_empty(), "no AgentTracing in the input; add one with -f tracing.yaml");
    process(documents, output, |document| wire(document, namespace, &policies))
}

/// `uninject`.
pub fn uninject(files: &[PathBuf], output: Output) -> anyhow::Result<ExitCode> {
    process(load(files)?, output, |document| {
        let Some(kind) = documents::workload_kind(document) else { return Ok(Outcome::Passed) };
        Ok(match removal(&view(kind, document)?) {
            Ok(patch) => Outcome::Patched(patch, Vec::new()),
            Err(error) => Outcome::Skipped(Vec::new(), format!("{error}; {BY_HAND}")),
        })
    })
}

/// What is missing, and what to do.
pub fn missing_message(missing: Missing) -> &'static str {
    match missing {
        Missing::TrackingUri => "MLflow has not answered yet; see `kubectl get agenttracing`",
        Missing::Binding => "its service account is not in the AgentTracing's status.serviceAccounts yet",
        Missing::ExperimentId => {
            "experiment.pin needs the experiment's id, which only a cluster knows; give an AgentTracing with its status \
             (kubectl get agenttracing -o yaml)"
        }
    }
}

fn load(files: &[PathBuf]) -> anyhow::Result<Vec<Value>> {
    let mut all = Vec::new();
    for path in files {
        let source = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
        all.extend(documents::parse(&documents::read(path)?, &source)?);
    }
    Ok(all)
}

fn wire(document: &Value, namespace: &str, policies: &[Policy]) -> anyhow::Result<Outcome> {
    let Some(kind) = documents::workload_kind(document) else {
        let other = documents::kind(document);
        let advice = || format!("kind {other} is not wired; put the agent into a Deployment");
        let skipped = OTHER_WORKLOADS.contains(&other).then(|| Outcome::Skipped(Vec::new(), advice()));
        return Ok(skipped.unwrap_or(Outcome::Passed));
    };
    let namespace = documents::namespace(document, namespace);
    let here: Vec<Policy> = policies.iter().filter(|p| p.namespace == namespace).cloned().collect();
    let around = Surroundings {
        namespace,
        // Offline there is no namespace to ask: who calls `inject` wants to see the injection.
        injection_enabled: true,
        platform: &Platform::default(),
        // Nor can service accounts be asked: they mount their token unless told otherwise.
        tokenless: &BTreeSet::new(),
        policies: &here,
        renews: true,
    };
    Ok(match decide(&view(kind, document)?, &around) {
        Decision::Wire { injection, .. } => {
            let notes: Vec<String> = injection.notes.iter().map(ToString::to_string).collect();
            match injection.skipped {
                Some(reason) => Outcome::Skipped(
                    injection.patch,
                    [reason.as_str().to_owned()].into_iter().chain(notes).collect::<Vec<_>>().join("; "),
                ),
                None => Outcome::Patched(injection.patch, notes),
            }
        }
        Decision::Unwire(patch) => Outcome::Patched(patch, vec!["opted out: the wiring was taken out".to_owned()]),
        Decision::Leave(leave) => Outcome::Skipped(Vec::new(), leave_message(&leave, kind, namespace)),
    })
}

fn leave_message(leave: &Leave, kind: Kind, namespace: &str) -> String {
    match leave {
        Leave::NotSelected(NotSelected::OptedOut) => format!("OptedOut: label {}=false", names::LABEL_INJECT),
        Leave::NotSelected(NotSelected::NamespaceExcluded) => format!("namespace {namespace} is never wired"),
        Leave::NotSelected(NotSelected::NamespaceNotLabelled) => format!("namespace {namespace} is not labelled"),
        Leave::NotSelected(NotSelected::OperatorsOwn) => "it is one of the operator's own".to_owned(),
        Leave::NotSelected(NotSelected::Windows) => "Windows: its pods run on Windows".to_owned(),
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
        Leave::Waiting { missing, .. } => missing_message(*missing).to_owned(),
        Leave::Record { error: error @ RecordError::Newer(_), .. } => {
            format!("Outdated: {error}; upgrade this program")
        }
        Leave::Record { error, .. } => format!("RecordUnreadable: {error}; {BY_HAND}"),
    }
}

fn view(kind: Kind, document: &Value) -> anyhow::Result<Workload<'_>> {
    Workload::read(kind, document)
        .with_context(|| format!("{} {}", documents::kind(document), documents::name(document)))
}

/// Decides about every document, prints them, and names on stderr what was skipped.
fn process(
    documents: Vec<Value>,
    output: Output,
    outcome: impl Fn(&Value) -> anyhow::Result<Outcome>,
) -> anyhow::Result<ExitCode> {
    let mut skipped = false;
    for mut document in documents {
        let mut items = vec![&mut document];
        if items[0]["kind"] == "List" {
            items = document["items"].as_array_mut().into_iter().flatten().collect();
        }
        for item in items {
            let label = format!("{} {}", documents::kind(item), documents::name(item));
            match outcome(item)? {
                Outcome::Passed => {}
                Outcome::Skipped(patch, reason) => {
                    skipped = true;
                    eprintln!("{label}: skipped: {reason}");
                    change(item, patch, output)?;
                }
                Outcome::Patched(patch, notes) => {
                    notes.iter().for_each(|note| eprintln!("{label}: {note}"));
                    change(item, patch, output)?;
                }
            }
        }
        match output {
            Output::Yaml => print!("---\n{}", documents::to_yaml(&document)?),
            Output::Json => println!("{document}"),
            Output::Patch | Output::Diff => {}
        }
    }
    Ok(if skipped { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn change(item: &mut Value, patch: Vec<PatchOperation>, output: Output) -> anyhow::Result<()> {
    if patch.is_empty() {
        return Ok(());
    }
    if output == Output::Patch {
        println!("{}", json!({"kind": item["kind"], "name": item["metadata"]["name"], "patch": patch}));
        return Ok(());
    }
    let before = item.clone();
    json_patch::patch(item, &Patch(patch)).context("the patch does not fit the workload")?;
    if output == Output::Diff {
        let (old, new) = (documents::to_yaml(&before)?, documents::to_yaml(item)?);
        let name = format!("{}/{}", documents::kind(&before), documents::name(&before));
        print!(
            "{}",
            TextDiff::from_lines(&old, &new).unified_diff().header(&format!("a/{name}"), &format!("b/{name}"))
        );
    }
    Ok(())
}
