//! The shared MLflow of mode CR: where it may be, whether it shows a namespace as a workspace, and what to say of it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::health::Probe;

use super::condition::ConditionUpdate;

use super::quote::shorten;
use crate::api::{LabelSelector, LabelSelectorRequirement, Reason, SelectorOperator};
use crate::core::kubectl::Kubectl;
use crate::core::settings::{CrSettings, DEFAULT_CR_ORIGIN, Settings, is_system_namespace};
use crate::core::url::origin;
use crate::names;

/// The MLflow resource as it was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// The cluster does not know the kind.
    NoKind,
    /// There is none of this name.
    Absent,
    /// It could not be created.
    CreateForbidden(String),
    /// The cluster does not take what `mlflow.cr.template` says.
    TemplateInvalid(String),
    /// It is there.
    Present(Value),
}

/// An address to try, and how it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Scheme, host and port; with a path only where the spec has one.
    pub origin: String,
    /// As it stands in status.
    pub source: &'static str,
}

/// Where the server may be, the likeliest first. `status.address.url` names the origin whatever path it has: which path the
/// REST API has depends on the version, and the resource's status changes before the server does.
pub fn candidates(settings: &CrSettings, resource: &Resource) -> Vec<Candidate> {
    if let Some(url) = &settings.url {
        // As the user wrote it, path and all: the server is looked for there and below.
        return vec![Candidate { origin: url.trim_end_matches('/').to_owned(), source: "Spec" }];
    }
    let Resource::Present(resource) = resource else { return Vec::new() };
    let told = |path: &str, source| {
        let url = resource.pointer(path)?.as_str()?;
        Some(Candidate { origin: origin(url).filter(|o| o.starts_with("https://"))?, source })
    };
    let documented = Candidate { origin: DEFAULT_CR_ORIGIN.to_owned(), source: "Default" };
    let told = [told("/status/address/url", "MLflowStatusAddress"), told("/status/url", "MLflowStatusURL")];
    let mut all: Vec<Candidate> = Vec::new();
    for candidate in told.into_iter().flatten().chain([documented]) {
        if !all.iter().any(|known| known.origin == candidate.origin) {
            all.push(candidate);
        }
    }
    all
}

/// The candidates to ask, where agents use an address already. One that is less likely never takes its place: a moment's failure
/// would send all agents to another MLflow.
pub fn sticky_candidates(mut candidates: Vec<Candidate>, in_use: Option<&str>) -> Vec<Candidate> {
    let used = in_use.and_then(origin);
    let place = candidates.iter().position(|candidate| used.is_some() && origin(&candidate.origin) == used);
    candidates.truncate(place.map_or(usize::MAX, |place| place + 1));
    candidates
}

/// The condition `WorkspaceReady`.
pub fn workspace_ready(
    namespace: &str,
    labels: &BTreeMap<String, String>,
    resource: &Resource,
    workspaces: Option<bool>,
) -> ConditionUpdate {
    if is_system_namespace(namespace) {
        let message = format!(
            "MLflow shows no system namespace as a workspace, and {namespace} is one; move the agents to a namespace of their \
             own: {}",
            Kubectl::new("create namespace agents")
        );
        return ConditionUpdate::bad(Reason::SystemNamespace, message);
    }
    let show_labels = || Kubectl::new("get namespace").arg(namespace).arg("--show-labels");
    let spec = match resource {
        Resource::Present(resource) => resource.get("spec"),
        _ => None,
    };
    let selector = spec.and_then(|spec| spec.get("workspaceLabelSelector")).and_then(selector);
    if let Some(selector) = selector.filter(|s| !s.matches(|key| labels.get(key).map(String::as_str))) {
        let remedy = match selector.match_labels.iter().next() {
            Some((key, value)) => format!(
                "label it: {}",
                Kubectl::new("label namespace").arg(namespace).arg("--overwrite").arg(&format!("{key}={value}"))
            ),
            None => format!("compare its labels: {}", show_labels()),
        };
        let message = format!("MLflow's workspaceLabelSelector hides namespace {namespace}; {remedy}");
        return ConditionUpdate::bad(Reason::NamespaceLabelMissing, message);
    }
    match workspaces {
        Some(true) => ConditionUpdate::good(
            Reason::Visible,
            format!("MLflow shows namespace {namespace} as a workspace; see its labels: {}", show_labels()),
        ),
        Some(false) => ConditionUpdate::bad(
            Reason::WorkspacesDisabled,
            format!(
                "This MLflow has no workspaces, which mode CR is made for; use mode External, or see how it is run: {}",
                Kubectl::new("get mlflow").yaml()
            ),
        ),
        None => ConditionUpdate::unknown(
            Reason::Progressing,
            format!(
                "Whether MLflow shows this namespace is known when it has answered; look with: {}",
                Kubectl::new("get mlflow").yaml()
            ),
        ),
    }
}

/// Kubernetes' own form of a label selector, as the MLflow resource has it.
fn selector(value: &Value) -> Option<LabelSelector> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    // Older releases write a plain selector string.
    if let Some(plain) = value.as_str() {
        let pairs = plain.split(',').filter_map(|pair| pair.split_once('='));
        let pairs = pairs.map(|(key, value)| (key.trim().to_owned(), value.trim_start_matches('=').trim().to_owned()));
        return Some(LabelSelector { match_labels: pairs.collect(), ..LabelSelector::default() });
    }
    let labels = value.get("matchLabels").and_then(Value::as_object);
    let expressions = value.get("matchExpressions").and_then(Value::as_array);
    let expression = |e: &Value| {
        Some(LabelSelectorRequirement {
            key: text(e.get("key")?)?,
            operator: match e.get("operator")?.as_str()? {
                "In" => SelectorOperator::In,
                "NotIn" => SelectorOperator::NotIn,
                "Exists" => SelectorOperator::Exists,
                _ => SelectorOperator::DoesNotExist,
            },
            values: e.get("values").and_then(Value::as_array).into_iter().flatten().filter_map(text).collect(),
        })
    };
    Some(LabelSelector {
        match_labels: labels.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), text(v)?))).collect(),
        match_expressions: expressions.into_iter().flatten().filter_map(expression).collect(),
    })
}

/// The condition `MLflowReady` of a server that somebody else runs; `url` is where it was asked.
pub fn shared_ready(settings: &CrSettings, resource: &Resource, probe: &Probe, url: &str) -> ConditionUpdate {
    let name = &settings.name;
    let look = Kubectl::new("get mlflow").arg(name).yaml();
    if let Probe::Answered(mlflow) = probe {
        let message = format!("MLflow {} answers at {}; see its resource: {look}", mlflow.version, mlflow.url);
        return ConditionUpdate::good(Reason::Available, message);
    }
    match resource {
        Resource::NoKind if settings.url.is_none() => {
            return ConditionUpdate::bad(
                Reason::MLflowCRDMissing,
                format!(
                    "The cluster does not know MLflow resources: the MLflow operator is not installed; look with: {}",
                    Kubectl::new("get crd mlflows.mlflow.opendatahub.io")
                ),
            );
        }
        Resource::Absent if settings.url.is_none() => {
            let message = format!(
                "There is no MLflow resource \"{name}\"; create one, or let the operator do it with mlflow.cr.create: {}",
                Kubectl::new("get mlflow")
            );
            return ConditionUpdate::bad(Reason::MLflowNotFound, message);
        }
        Resource::CreateForbidden(why) => {
            return ConditionUpdate::bad(
                Reason::CreateForbidden,
                format!("The MLflow resource \"{name}\" cannot be created: {why}"),
            );
        }
        Resource::TemplateInvalid(why) => {
            return ConditionUpdate::bad(
                Reason::TemplateInvalid,
                format!("The MLflow resource \"{name}\" that mlflow.cr.template describes is refused: {why}"),
            );
        }
        Resource::Present(resource) => {
            if let Some((reason, said)) = unavailable(resource) {
                return ConditionUpdate::bad(
                    reason,
                    format!("The MLflow resource \"{name}\" says {said}; look with: {look}"),
                );
            }
        }
        Resource::NoKind | Resource::Absent => {}
    }
    probe_condition(probe, url, &look)
}

/// What the API server said when it did not create the MLflow resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateRefusal {
    /// HTTP status.
    pub code: u16,
    /// The whole message.
    pub message: String,
    /// The first field that is wrong and why, where the schema refused it.
    pub field: Option<(String, String)>,
}

/// Why there is no resource after it was to be created, with the remedy: rights, somebody's policy, or the template itself.
pub fn not_created(settings: &Settings, refusal: &CreateRefusal, operator_namespace: &str) -> Resource {
    let Settings { namespace, name, .. } = settings;
    let CreateRefusal { code, message, field } = refusal;
    let said = shorten(message);
    let said = said.trim_end_matches('.');
    if *code != 403 {
        let what = field.as_ref().map(|(field, why)| (field.as_str(), shorten(why)));
        let what = match what {
            Some((field, why)) => format!("{field}: {}", why.trim_end_matches('.')),
            None => said.to_owned(),
        };
        return Resource::TemplateInvalid(format!(
            "{what}; change it: {}",
            Kubectl::new("edit agenttracing").namespace(namespace).arg(name)
        ));
    }
    // So the API server says that a right is missing; a policy has words of its own.
    let remedy = match message.contains("cannot create resource") {
        true => allow_creation(namespace, operator_namespace),
        false => format!(
            "see who refuses it: {}",
            Kubectl::new("get validatingwebhookconfigurations,validatingadmissionpolicies")
        ),
    };
    Resource::CreateForbidden(format!("the API server says {said}; {remedy}"))
}

/// What an administrator types so that the MLflow resource may be created for a namespace: the option names the namespace, and
/// grants the right.
pub fn allow_creation(namespace: &str, operator_namespace: &str) -> String {
    format!(
        "an administrator has to list namespace {namespace} in the install's createMlflowNamespaces (--create-mlflow-namespaces, and the right \
         to create mlflows) beside those that stand there, for example with: helm upgrade -n {operator_namespace} {0} charts/{0} --reuse-values --set \
         'createMlflowNamespaces={{{namespace}}}'",
        names::MANAGED_BY
    )
}

/// The condition `MLflowReady` from a probe alone.
pub fn probe_condition(probe: &Probe, url: &str, look: &Kubectl) -> ConditionUpdate {
    match probe {
        Probe::Answered(mlflow) => ConditionUpdate::good(
            Reason::Available,
            format!("MLflow {} answers at {}; look with: {look}", mlflow.version, mlflow.url),
        ),
        Probe::NotAsked => {
            ConditionUpdate::bad(Reason::Progressing, format!("MLflow has not been asked yet; look with: {look}"))
        }
        Probe::Failed { reason: Reason::TLSUntrusted, what } => ConditionUpdate::bad(
            Reason::TLSUntrusted,
            format!(
                "MLflow cannot be asked at {url}: {what}; give the operator the authority of its certificate, key ca.crt of \
                 ConfigMap {}: {}",
                names::EXTRA_CAS,
                Kubectl::new("get configmap").namespace(names::OPERATOR_NAMESPACE).arg(names::EXTRA_CAS)
            ),
        ),
        Probe::Failed { reason, what } => {
            ConditionUpdate::bad(*reason, format!("MLflow cannot be asked at {url}: {what}; look with: {look}"))
        }
    }
}

/// What the resource says of itself where it is not available.
fn unavailable(resource: &Value) -> Option<(Reason, String)> {
    let conditions = resource.pointer("/status/conditions").and_then(Value::as_array);
    let condition = |kind: &str| {
        let mut all = conditions.into_iter().flatten();
        all.find(|c| c.get("type").and_then(Value::as_str) == Some(kind))
    };
    let text =
        |condition: &Value, field: &str| condition.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(available) = condition("Available") else {
        return Some((
            Reason::MLflowNotReady,
            "nothing yet of how it is: the MLflow operator has not seen it".to_owned(),
        ));
    };
    if text(available, "status") == "True" {
        return None;
    }
    let told = condition("Migration").filter(|m| text(m, "reason") == "MigrationFailed").unwrap_or(available);
    let reason =
        if text(told, "reason") == "MigrationFailed" { Reason::MigrationFailed } else { Reason::MLflowNotReady };
    // Within our sentence theirs does not end it.
    let message = shorten(&text(told, "message"));
    Some((reason, format!("{} ({})", text(told, "reason"), message.trim_end_matches('.'))))
}

#[cfg(test)]
mod tests;
