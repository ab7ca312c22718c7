//! The shared MLflow of mode CR: where it may be, whether it shows a namespace as a workspace, and what to say of it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::health::Probe;

use super::condition::ConditionUpdate;

use super::quote::shorten;
use crate::api::{LabelSelector, LabelSelectorRequirement, Reason, SelectorOperator};
use crate::core::settings::{CrSettings, DEFAULT_CR_ORIGIN, Settings, is_system_namespace};
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

/// Scheme, host and port of an address.
pub fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().filter(|a| !a.is_empty() && !a.contains('@'))?;
    Some(format!("{}://{authority}", scheme.to_ascii_lowercase()))
}

/// Host and port of an address, as it has them.
pub fn authority(url: &str) -> Option<String> {
    Some(origin(url)?.split_once("://")?.1.to_owned())
}

/// The host of an address, without its port.
pub fn host(url: &str) -> Option<String> {
    let authority = authority(url)?;
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None => authority.split(':').next()?,
    };
    Some(host.to_ascii_lowercase())
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
             own: kubectl create namespace agents"
        );
        return ConditionUpdate::bad(Reason::SystemNamespace, message);
    }
    let spec = match resource {
        Resource::Present(resource) => resource.get("spec"),
        _ => None,
    };
    let selector = spec.and_then(|spec| spec.get("workspaceLabelSelector")).and_then(selector);
    if let Some(selector) = selector.filter(|s| !s.matches(|key| labels.get(key).map(String::as_str))) {
        let remedy = match selector.match_labels.iter().next() {
            Some((key, value)) => format!("label it: kubectl label namespace {namespace} --overwrite {key}={value}"),
            None => format!("compare its labels: kubectl get namespace {namespace} --show-labels"),
        };
        let message = format!("MLflow's workspaceLabelSelector hides namespace {namespace}; {remedy}");
        return ConditionUpdate::bad(Reason::NamespaceLabelMissing, message);
    }
    match workspaces {
        Some(true) => ConditionUpdate::good(
            Reason::Visible,
            format!(
                "MLflow shows namespace {namespace} as a workspace; see its labels: kubectl get namespace {namespace} --show-labels"
            ),
        ),
        Some(false) => ConditionUpdate::bad(
            Reason::WorkspacesDisabled,
            "This MLflow has no workspaces, which mode CR is made for; use mode External, or see how it is run: kubectl get mlflow -o yaml",
        ),
        None => ConditionUpdate::unknown(
            Reason::Progressing,
            "Whether MLflow shows this namespace is known when it has answered; look with: kubectl get mlflow -o yaml",
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
    let look = format!("kubectl get mlflow {name} -o yaml");
    if let Probe::Answered(mlflow) = probe {
        let message = format!("MLflow {} answers at {}; see its resource: {look}", mlflow.version, mlflow.url);
        return ConditionUpdate::good(Reason::Available, message);
    }
    match resource {
        Resource::NoKind if settings.url.is_none() => {
            return ConditionUpdate::bad(
                Reason::MLflowCRDMissing,
                "The cluster does not know MLflow resources: the MLflow operator is not installed; look with: kubectl get crd \
                 mlflows.mlflow.opendatahub.io",
            );
        }
        Resource::Absent if settings.url.is_none() => {
            let message = format!(
                "There is no MLflow resource \"{name}\"; create one, or let the operator do it with mlflow.cr.create: kubectl get mlflow"
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
            "{what}; change it: kubectl edit agenttracing -n {namespace} {name}"
        ));
    }
    // So the API server says that a right is missing; a policy has words of its own.
    let remedy = match message.contains("cannot create resource") {
        true => format!(
            "look with: kubectl auth can-i create mlflows.mlflow.opendatahub.io --as=system:serviceaccount:{operator_namespace}:{}",
            names::SERVICE_ACCOUNT
        ),
        false => {
            "see who refuses it: kubectl get validatingwebhookconfigurations,validatingadmissionpolicies".to_owned()
        }
    };
    Resource::CreateForbidden(format!("the API server says {said}; {remedy}"))
}

/// The condition `MLflowReady` from a probe alone.
pub fn probe_condition(probe: &Probe, url: &str, look: &str) -> ConditionUpdate {
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
                 ConfigMap {}: kubectl get configmap -n {} {}",
                names::EXTRA_CAS,
                names::OPERATOR_NAMESPACE,
                names::EXTRA_CAS
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
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(url: Option<&str>) -> CrSettings {
        CrSettings { name: "mlflow".into(), url: url.map(str::to_owned), create: None }
    }

    fn present(spec: Value, status: Value) -> Resource {
        Resource::Present(json!({"spec": spec, "status": status}))
    }

    #[test]
    fn the_address_of_the_resource_comes_first_without_its_path_then_the_documented_one() {
        let address = "https://mlflow.redhat-ods-applications.svc:8443/mlflow";
        let found = present(json!({}), json!({"address": {"url": address}, "url": "http://plain.example.com"}));
        let origins: Vec<_> = candidates(&settings(None), &found).into_iter().map(|c| (c.origin, c.source)).collect();
        assert_eq!(
            origins,
            [
                ("https://mlflow.redhat-ods-applications.svc:8443".to_owned(), "MLflowStatusAddress"),
                (DEFAULT_CR_ORIGIN.to_owned(), "Default"),
            ],
            "a token is never sent over http"
        );
        assert_eq!(candidates(&settings(None), &Resource::Absent), []);
        assert_eq!(candidates(&settings(Some("https://m.example.com:8443/x")), &found)[0].source, "Spec");
    }

    /// review A12
    #[test]
    fn an_address_in_the_spec_is_asked_as_it_is_written() {
        let candidates = candidates(&settings(Some("https://m.example.com:8443/team/mlflow/")), &Resource::Absent);
        assert_eq!(candidates[0].origin, "https://m.example.com:8443/team/mlflow");
    }

    /// review A13
    #[test]
    fn no_less_likely_server_takes_the_place_of_the_one_in_use() {
        let found = present(json!({}), json!({"address": {"url": "https://told:8443"}, "url": "https://other:8443"}));
        let asked = |in_use: Option<&str>| {
            let all = sticky_candidates(candidates(&settings(None), &found), in_use);
            all.into_iter().map(|candidate| candidate.origin).collect::<Vec<_>>()
        };
        assert_eq!(asked(Some("https://told:8443/mlflow")), ["https://told:8443"]);
        assert_eq!(
            asked(Some("https://other:8443")),
            ["https://told:8443", "https://other:8443"],
            "a likelier one does"
        );
        assert_eq!(asked(Some("https://gone:8443")).len(), 3, "what nobody names any more is left");
        assert_eq!(asked(None).len(), 3);
    }

    #[test]
    fn hosts_are_told_apart_from_ports_paths_and_users() {
        assert_eq!(host("https://MLflow.example.com:8443/x").as_deref(), Some("mlflow.example.com"));
        assert_eq!(host("https://[::1]:8443").as_deref(), Some("::1"));
        assert_eq!(host("https://trusted.example.com@evil.example.com/"), None);
        assert_eq!(host("mlflow"), None);
    }

    #[test]
    fn what_the_resource_says_is_passed_on() {
        let status = |available: &str, reason: &str| json!({"conditions": [{"type": "Available", "status": available, "reason": reason, "message": "m"}]});
        let probe = Probe::NotAsked;
        let update = |status| shared_ready(&settings(None), &present(json!({}), status), &probe, "https://m").reason;
        assert_eq!(update(status("False", "MigrationRunning")), Reason::MLflowNotReady);
        assert_eq!(update(status("False", "MigrationFailed")), Reason::MigrationFailed);
        assert_eq!(update(json!({})), Reason::MLflowNotReady);
        assert_eq!(update(status("True", "DeploymentReady")), Reason::Progressing);
    }

    // Section 3, point 10: a message said "rerun.); look with".
    #[test]
    fn a_sentence_of_the_resource_does_not_end_ours() {
        let told =
            json!({"type": "Available", "status": "False", "reason": "MigrationFailed", "message": "force a rerun."});
        let resource = present(json!({}), json!({"conditions": [told]}));
        let message = shared_ready(&settings(None), &resource, &Probe::NotAsked, "https://m").message;
        assert!(message.contains("(force a rerun); look with: "), "{message}");
    }

    // Section 3, point 9: `serveArtifacts: false` was told as a missing right, with a command that answers yes.
    #[test]
    fn a_template_that_the_schema_refuses_is_no_missing_right() {
        let yaml = "apiVersion: agenttracing.dev/v1alpha1\nkind: AgentTracing\nmetadata: {name: tracing, namespace: bank-agents}\n\
                    spec: {mlflow: {mode: CR}}";
        let of = crate::core::settings::parse(&serde_yaml::from_str(yaml).unwrap()).unwrap();
        let told = |refusal: CreateRefusal| {
            let resource = not_created(&of, &refusal, "agent-tracing-system");
            let update = shared_ready(&settings(None), &resource, &Probe::NotAsked, "https://m");
            (update.reason, update.message)
        };
        let why = "defaultArtifactRoot must be set when serveArtifacts is false.".to_owned();
        let message = format!("MLflow.mlflow.opendatahub.io \"mlflow\" is invalid: spec: Invalid value: {why}");
        let (reason, told_field) =
            told(CreateRefusal { code: 422, message: message.clone(), field: Some(("spec".into(), why)) });
        assert_eq!(reason, Reason::TemplateInvalid);
        let end = "is refused: spec: defaultArtifactRoot must be set when serveArtifacts is false; change it: kubectl edit \
                   agenttracing -n bank-agents tracing";
        assert!(told_field.ends_with(end), "{told_field}");
        assert_eq!(told(CreateRefusal { code: 400, message, field: None }).0, Reason::TemplateInvalid);

        let message =
            "mlflows.mlflow.opendatahub.io is forbidden: User \"x\" cannot create resource \"mlflows\"".to_owned();
        let (reason, rights) = told(CreateRefusal { code: 403, message, field: None });
        assert!(reason == Reason::CreateForbidden && rights.contains("kubectl auth can-i create mlflows"), "{rights}");
        let message = "admission webhook \"sizes.example.com\" denied the request: too large.".to_owned();
        let (reason, policy) = told(CreateRefusal { code: 403, message, field: None });
        assert!(reason == Reason::CreateForbidden && policy.contains("too large; see who refuses it: "), "{policy}");
    }

    #[test]
    fn a_selector_that_hides_the_namespace_names_the_label_that_is_missing() {
        let hidden = present(json!({"workspaceLabelSelector": {"matchLabels": {"mlflow": "on"}}}), json!({}));
        let labels = BTreeMap::from([("mlflow".to_owned(), "on".to_owned())]);
        let update = workspace_ready("bank", &BTreeMap::new(), &hidden, Some(true));
        assert_eq!(update.reason, Reason::NamespaceLabelMissing);
        assert!(update.message.ends_with("kubectl label namespace bank --overwrite mlflow=on"), "{}", update.message);
        assert_eq!(workspace_ready("bank", &labels, &hidden, Some(true)).reason, Reason::Visible);
        assert_eq!(workspace_ready("bank", &labels, &hidden, Some(false)).reason, Reason::WorkspacesDisabled);
        assert_eq!(workspace_ready("kube-bank", &labels, &hidden, Some(true)).reason, Reason::SystemNamespace);
    }
}
