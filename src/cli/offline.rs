//! `inject` and `uninject`: the webhook without TLS. Any report of a wrong injection replays here from two files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use json_patch::{Patch, PatchOperation};
use serde_json::{Value, json};
use similar::TextDiff;

use super::documents::{self, Broken, Document};
use super::{Output, tracing};
use crate::core::decide::{Decision, Leave, decide};
use crate::core::inject::record::RecordError;
use crate::core::inject::uninject as removal;
use crate::core::inject::view::Workload;
use crate::core::selection::kind::Kind;
use crate::core::selection::{NotSelected, SelectionContext};
use crate::core::settings::Platform;
use crate::core::settings::policy::Policy;
use crate::core::wiring::Missing;
use crate::names;

/// Kinds that run pods and are not wired.
const OTHER_WORKLOADS: [&str; 2] = ["ReplicaSet", "ReplicationController"];

/// Without a record everything present is the user's: the annotation alone must not go.
const BY_HAND: &str = "remove the annotation together with the MLFLOW_* variables beside it to have it wired anew";

/// What is to become of one object.
enum DocumentOutcome {
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
    let objects = documents.iter().flat_map(|d| d.content.as_ref().ok()).flat_map(documents::objects);
    let tracings = objects.filter(|object| documents::is_agent_tracing(object));
    let policies =
        tracings.map(|object| tracing::policy(object, namespace)).collect::<anyhow::Result<Vec<Policy>>>()?;
    anyhow::ensure!(!policies.is_empty(), "{}; add one with -f tracing.yaml", tracing::absent(&documents));
    process(documents, namespace, output, |object, place| wire(object, place, namespace, &policies))
}

/// `uninject`.
pub fn uninject(files: &[PathBuf], namespace: &str, output: Output) -> anyhow::Result<ExitCode> {
    process(load(files)?, namespace, output, |object, place| {
        let Some(kind) = documents::workload_kind(object) else { return DocumentOutcome::Passed };
        match Workload::read(kind, object).map(|workload| removal(&workload)) {
            Ok(Ok(patch)) => DocumentOutcome::Patched(patch, Vec::new()),
            Ok(Err(error)) => DocumentOutcome::Skipped(Vec::new(), format!("{error}; {BY_HAND}")),
            Err(error) => partial(kind, place, &error),
        }
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

fn load(files: &[PathBuf]) -> anyhow::Result<Vec<Document>> {
    let mut all = Vec::new();
    for path in files {
        let source = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
        all.extend(documents::parse(&documents::read(path)?, &source));
    }
    Ok(all)
}

/// A workload of which a part is missing or of a wrong type: a patch for kustomize, an assertion of a test, a typing error.
fn partial(kind: Kind, place: &str, error: &serde_json::Error) -> DocumentOutcome {
    let kind = kind.as_str();
    let advice = format!(
        "{place} is no whole {kind}: {error}; complete it, or give what merges it: kustomize build . | agent-tracing-operator inject -f -"
    );
    DocumentOutcome::Skipped(Vec::new(), advice)
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
    let here: Vec<Policy> = policies.iter().filter(|p| p.namespace == namespace).cloned().collect();
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
        Leave::Blocked { missing, .. } => missing_message(*missing).to_owned(),
        Leave::Record { error: error @ RecordError::FutureVersion(_), .. } => {
            format!("Outdated: {error}; upgrade this program")
        }
        Leave::Record { error, .. } => format!("RecordUnreadable: {error}; {BY_HAND}"),
    }
}

/// Decides about every object, prints them, and names on stderr what was skipped.
fn process(
    documents: Vec<Document>,
    namespace: &str,
    output: Output,
    outcome: impl Fn(&Value, &str) -> DocumentOutcome,
) -> anyhow::Result<ExitCode> {
    let mut skipped = false;
    for Document { place, content, repeated } in documents {
        for field in repeated {
            eprintln!("{place}: {field} stands there more than once; the last one counts, as kubectl reads it");
        }
        let mut document = match content {
            Ok(document) => document,
            Err(Broken { text, error }) => {
                skipped = true;
                pass_broken(&place, &text, &error, output);
                continue;
            }
        };
        for item in documents::objects_mut(&mut document) {
            let label = format!("{} {}", documents::kind(item), documents::name(item));
            match outcome(item, &place) {
                DocumentOutcome::Passed => {}
                DocumentOutcome::Skipped(patch, reason) => {
                    skipped = true;
                    eprintln!("{label}: skipped: {reason}");
                    change(item, namespace, patch, output)?;
                }
                DocumentOutcome::Patched(patch, notes) => {
                    notes.iter().for_each(|note| eprintln!("{label}: {note}"));
                    change(item, namespace, patch, output)?;
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

/// Names a document that cannot be read. As YAML it goes on as it came, so that whoever reads it next stumbles over it, too.
fn pass_broken(place: &str, text: &str, error: &anyhow::Error, output: Output) {
    eprintln!("{place}: skipped: it cannot be read: {error:#}; mend it and run this again");
    if output == Output::Yaml {
        let marker = if text.starts_with("---") { "" } else { "---\n" };
        let end = if text.ends_with('\n') { "" } else { "\n" };
        print!("{marker}{text}{end}");
    }
}

fn change(item: &mut Value, namespace: &str, patch: Vec<PatchOperation>, output: Output) -> anyhow::Result<()> {
    if patch.is_empty() {
        return Ok(());
    }
    if output == Output::Patch {
        let namespace = documents::namespace(item, namespace);
        let name = &item["metadata"]["name"];
        println!("{}", json!({"kind": item["kind"], "namespace": namespace, "name": name, "patch": patch}));
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
