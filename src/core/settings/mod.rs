//! An AgentTracing parsed once into settings that are valid and complete; the raw resource stops here.

mod cr;
pub mod hosts;
mod platform;
pub mod policy;
mod standalone;
mod valid;

use std::collections::BTreeMap;
use std::fmt;

use self::policy::Policy;
use crate::api::{AgentTracing, LabelSelectorRequirement, MlflowMode, SelectorOperator};
use crate::names;
pub use cr::{CrSettings, DEFAULT_CR_NAME, DEFAULT_CR_ORIGIN};
pub use platform::{MergeCa, Platform, SYSTEM_NAMESPACE, SYSTEM_PREFIXES, is_system_namespace};
pub use standalone::{DEFAULT_IMAGE, DEFAULT_SIZE, StandaloneSettings};

/// An AgentTracing with every default resolved.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the AgentTracing.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid, for owner references.
    pub uid: String,
    /// `spec.suspend`.
    pub suspend: bool,
    /// What it wants of workloads.
    pub policy: Policy,
    /// Who runs the server.
    pub mode: MlflowMode,
    /// The server that we run in mode Standalone.
    pub standalone: StandaloneSettings,
    /// The shared server of mode CR.
    pub cr: CrSettings,
    /// The address of mode External, without a slash at its end.
    pub external_uri: Option<String>,
}

/// A value that the API server accepted and that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field, as `kubectl explain` spells it.
    pub field: String,
    /// The value found there.
    pub value: String,
    /// What to write instead.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, remedy } = self;
        write!(f, "{field} is \"{value}\": {remedy}")
    }
}

/// Parses an AgentTracing, or names everything that is wrong with it.
///
/// The API server has checked schema and CEL rules. What stands here is what they cannot say, and what an object created
/// before a rule existed may still hold.
pub fn parse(tracing: &AgentTracing) -> Result<Settings, Vec<Problem>> {
    let mut problems = Problems::default();
    let name = tracing.metadata.name.clone().unwrap_or_default();
    if !valid::name(&name) {
        let remedy = "create it again under a name of at most 56 lower-case letters, digits and '-' that starts with a \
                      letter and ends with a letter or digit: it prefixes the name of a Service";
        problems.add("metadata.name", &name, remedy);
    }
    injection_problems(tracing, &mut problems);
    let mlflow = &tracing.spec.mlflow;
    let external_uri = mlflow.external.as_ref().map(|e| e.tracking_uri.trim_end_matches('/').to_owned());
    if mlflow.mode == MlflowMode::External && external_uri.is_none() {
        let remedy = "give mlflow.external a trackingURI, the address that agents send traces to";
        problems.add("spec.mlflow.external", "", remedy);
    }
    if let Some(uri) = external_uri.as_deref().filter(|uri| uri.contains('@')) {
        // The user name and the password stay out of status and logs.
        let shown = uri.rsplit_once('@').map_or("", |(_, host)| host);
        let remedy = "write the address without user name and password; everybody can read this object";
        problems.add("spec.mlflow.external.trackingURI", shown, remedy);
    }
    let cr = cr::cr(mlflow.cr.clone().unwrap_or_default());
    let standalone = standalone::standalone(tracing.spec.mlflow.standalone.clone().unwrap_or_default(), &mut problems);
    if !problems.0.is_empty() {
        return Err(problems.0);
    }
    Ok(Settings {
        name,
        namespace: tracing.metadata.namespace.clone().unwrap_or_default(),
        uid: tracing.metadata.uid.clone().unwrap_or_default(),
        suspend: tracing.spec.suspend,
        policy: Policy::of(tracing),
        mode: mlflow.mode,
        standalone,
        cr,
        external_uri,
    })
}

impl Settings {
    /// Name of all child objects: `<AgentTracing>-mlflow`.
    pub fn object_name(&self) -> String {
        names::mlflow_object(&self.name)
    }

    /// The address that agents get as far as the spec alone says it: in mode CR the server has the last word.
    pub fn tracking_uri(&self) -> String {
        match self.mode {
            MlflowMode::Standalone => names::mlflow_uri(&self.name, &self.namespace, self.standalone.port),
            MlflowMode::Cr => self.cr.url.clone().unwrap_or_else(|| DEFAULT_CR_ORIGIN.to_owned()),
            MlflowMode::External => self.external_uri.clone().unwrap_or_default(),
        }
    }
}

fn injection_problems(tracing: &AgentTracing, problems: &mut Problems) {
    let Some(injection) = &tracing.spec.injection else { return };
    for variable in &injection.env {
        if RESERVED.contains(&variable.name.as_str()) {
            let remedy = "the operator sets it itself, or it carries a credential or switches TLS off; take it out and use \
                          the field of the spec made for it (see 'agent-tracing-operator explain')";
            problems.add("spec.injection.env.name", &variable.name, remedy);
        }
    }
    let Some(selector) = &injection.selector else { return };
    problems.labels("spec.injection.selector.matchLabels", &selector.match_labels);
    for LabelSelectorRequirement { key, operator, values } in &selector.match_expressions {
        let listed = matches!(operator, SelectorOperator::In | SelectorOperator::NotIn);
        let field = "spec.injection.selector.matchExpressions";
        if !valid::label_key(key) {
            problems.add(&format!("{field}.key"), key, LABEL_KEY);
        } else if listed && values.is_empty() {
            problems.add(&format!("{field}.values"), "[]", &format!("operators In and NotIn need values for {key}"));
        } else if !listed && !values.is_empty() {
            let remedy = format!("operators Exists and DoesNotExist take no values for {key}");
            problems.add(&format!("{field}.values"), &values.join(", "), &remedy);
        }
    }
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, field: &str, value: &str, remedy: &str) {
        self.0.push(Problem { field: field.to_owned(), value: value.to_owned(), remedy: remedy.to_owned() });
    }

    fn secret(&mut self, field: &str, name: &str) {
        if !valid::object_name(name) {
            self.add(
                field,
                name,
                "write the name of a Secret of this namespace: lower-case letters, digits, '-' and '.'",
            );
        }
    }

    fn labels(&mut self, field: &str, labels: &BTreeMap<String, String>) {
        for (key, value) in labels {
            if !valid::label_key(key) {
                self.add(field, key, LABEL_KEY);
            } else if !valid::label_value(value) {
                let remedy = "write a label value: at most 63 letters, digits, '-', '_' and '.', beginning and ending with \
                              a letter or digit";
                self.add(&format!("{field}.{key}"), value, remedy);
            }
        }
    }
}

const LABEL_KEY: &str = "write a label key: an optional DNS name and '/', then at most 63 letters, digits, '-', '_' and \
                         '.', beginning and ending with a letter or digit";

/// Names that `injection.env` may not use. The CEL rule of the kind says the same; a test compares them.
pub const RESERVED: [&str; 23] = [
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_WORKSPACE",
    "MLFLOW_TRACKING_TOKEN_FILE",
    "MLFLOW_TRACKING_AUTH",
    "REQUESTS_CA_BUNDLE",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "NODE_EXTRA_CA_CERTS",
    "MLFLOW_TRACING_DESTINATION",
    "MLFLOW_HTTP_REQUEST_TIMEOUT",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR",
    "MLFLOW_ASYNC_TRACE_LOGGING_RETRY_TIMEOUT",
    "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING",
    "MLFLOW_USE_BATCH_SPAN_PROCESSOR",
    "MLFLOW_DISABLE_TELEMETRY",
    "MLFLOW_TRACE_SAMPLING_RATIO",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "NODE_TLS_REJECT_UNAUTHORIZED",
];

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use kube::CustomResourceExt;

    use super::*;
    use crate::api::{DeletionPolicy, ImagePullPolicy, Resources};

    fn tracing(standalone: &str) -> AgentTracing {
        let yaml = format!(
            "{{apiVersion: agenttracing.dev/v1alpha1, kind: AgentTracing, metadata: {{name: tracing, namespace: bank}}, \
             spec: {{mlflow: {{mode: Standalone, standalone: {standalone}}}}}}}"
        );
        serde_yaml::from_str(&yaml).unwrap()
    }

    fn settings(standalone: &str) -> StandaloneSettings {
        parse(&tracing(standalone)).unwrap().standalone
    }

    fn told(tracing: &AgentTracing) -> Vec<String> {
        parse(tracing).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn everything_has_a_default() {
        let settings = parse(&tracing("{}")).unwrap();
        assert_eq!(settings.tracking_uri(), "http://tracing-mlflow.bank.svc:5500");
        let standalone = settings.standalone;
        assert_eq!(standalone.image, "ghcr.io/mlflow/mlflow:v3.10.1");
        assert_eq!((standalone.workers, standalone.storage_size.as_str()), (1, "5Gi"));
        assert_eq!(standalone.deletion_policy, DeletionPolicy::Retain);
        assert_eq!(standalone.image_pull_policy, ImagePullPolicy::IfNotPresent);
        assert_eq!(standalone.network_policy, Some(Vec::new()));
    }

    #[test]
    fn resources_grow_with_the_workers_and_give_way_to_the_user() {
        let shown = |standalone: &str| {
            let Resources { limits, requests } = settings(standalone).resources;
            let text =
                |list: BTreeMap<String, Quantity>| list.into_iter().map(|(k, q)| format!("{k}={}", q.0)).collect();
            let (limits, requests): (Vec<String>, Vec<String>) = (text(limits), text(requests));
            format!("{} / {}", requests.join(" "), limits.join(" "))
        };
        assert_eq!(shown("{}"), "cpu=100m memory=512Mi / memory=1024Mi");
        assert_eq!(shown("{workers: 3}"), "cpu=100m memory=1024Mi / memory=1536Mi");
        assert_eq!(
            shown("{resources: {limits: {cpu: 50m, memory: 256Mi}}}"),
            "cpu=50m memory=256Mi / cpu=50m memory=256Mi"
        );
        assert_eq!(shown("{resources: {requests: {memory: 2Gi}}}"), "cpu=100m memory=2Gi / memory=2Gi");
    }

    #[test]
    fn each_problem_names_field_value_and_remedy() {
        for (standalone, field, value) in [
            ("{storage: {size: '0'}}", "storage.size", "0"),
            ("{storage: {size: 5gb}}", "storage.size", "5gb"),
            ("{resources: {limits: {memory: lots}}}", "resources.limits.memory", "lots"),
            ("{resources: {requests: {cpu: '2'}, limits: {cpu: '1'}}}", "resources.requests.cpu", "2"),
            ("{podLabels: {'not a key': x}}", "podLabels", "not a key"),
            ("{podLabels: {team: 'a b'}}", "podLabels.team", "a b"),
            ("{nodeSelector: {Zone/: x}}", "nodeSelector", "Zone/"),
            ("{allowedHosts: ['https://mlflow.example.com']}", "allowedHosts", "https://mlflow.example.com"),
            ("{allowedHosts: [MLflow.example.com]}", "allowedHosts", "MLflow.example.com"),
            ("{imagePullSecrets: [{name: Mirror}]}", "imagePullSecrets.name", "Mirror"),
            ("{backendStoreSecret: {name: db, key: 'a/b'}}", "backendStoreSecret.key", "a/b"),
            ("{artifacts: {destination: 'file:///x'}}", "artifacts.destination", "file:///x"),
        ] {
            let told = told(&tracing(standalone));
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with(&format!("spec.mlflow.standalone.{field} is \"{value}\": ")), "{}", told[0]);
        }
    }

    #[test]
    fn a_name_that_slipped_through_and_a_selector_that_selects_nothing_are_told() {
        let mut wrong = tracing("{}");
        wrong.metadata.name = Some("9".repeat(60));
        let injection = "{env: [{name: MLFLOW_TRACKING_URI, value: x}], selector: {matchExpressions: \
                         [{key: tier, operator: In}, {key: tier, operator: Exists, values: [x]}, {key: '-', operator: Exists}]}}";
        wrong.spec.injection = Some(serde_yaml::from_str(injection).unwrap());
        let fields: Vec<String> = parse(&wrong).unwrap_err().into_iter().map(|p| p.field).collect();
        let selector = "spec.injection.selector.matchExpressions";
        let values = format!("{selector}.values");
        let expected = ["metadata.name", "spec.injection.env.name", &values, &values, &format!("{selector}.key")];
        assert_eq!(fields, expected);
    }

    #[test]
    fn what_stands_twice_is_taken_once() {
        let settings = settings("{imagePullSecrets: [{name: a}, {name: b}, {name: a}], allowedHosts: [h, h]}");
        assert_eq!(settings.image_pull_secrets, ["a", "b"]);
        assert_eq!(settings.allowed_hosts, ["h"]);
    }

    #[test]
    fn the_reserved_names_are_those_of_the_cel_rule() {
        let crd = serde_json::to_string(&AgentTracing::crd()).unwrap();
        let list = crd.split("!(self.name in [").nth(1).and_then(|rest| rest.split(']').next()).unwrap();
        let in_rule: Vec<&str> = list.split(',').map(|name| name.trim_matches('\'')).collect();
        assert_eq!(in_rule, RESERVED);
    }
}
