//! An AgentTracing parsed once into settings that are valid and complete; the raw resource stops here.

mod cr;
pub mod hosts;
mod platform;
pub mod policy;
mod valid;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use self::policy::{DEFAULT_PORT, Policy};
use crate::api::{
    AgentTracing, Artifacts, DeletionPolicy, ImagePullPolicy, LabelSelectorRequirement, MlflowMode, NetworkPolicy,
    Resources, SecretKey, SelectorOperator, Standalone,
};
use crate::core::children::quantity;
use crate::names;
pub use cr::{CrSettings, DEFAULT_CR_NAME, DEFAULT_CR_ORIGIN};
pub use platform::{MergeCa, Platform, SYSTEM_NAMESPACE, SYSTEM_PREFIXES, is_system_namespace};

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

/// The standalone server, every default resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct StandaloneSettings {
    /// Image of server and migration.
    pub image: String,
    /// When it is pulled.
    pub image_pull_policy: ImagePullPolicy,
    /// Names of pull Secrets, each once.
    pub image_pull_secrets: Vec<String>,
    /// Port of Service and container.
    pub port: u16,
    /// Server processes.
    pub workers: u8,
    /// Size of the volume.
    pub storage_size: String,
    /// Its class; `None` is the cluster's default class.
    pub storage_class_name: Option<String>,
    /// What happens to the volume with the AgentTracing.
    pub deletion_policy: DeletionPolicy,
    /// The database, where it is not SQLite on the volume.
    pub backend_store_secret: Option<SecretKey>,
    /// The artifact store, where it is not the volume.
    pub artifacts: Option<Artifacts>,
    /// The user's host names, each once.
    pub allowed_hosts: Vec<String>,
    /// Requests and limits, defaults filled in.
    pub resources: Resources,
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are tolerated.
    pub tolerations: Vec<Toleration>,
    /// The user's pod labels.
    pub pod_labels: BTreeMap<String, String>,
    /// The user's peers of the NetworkPolicy; `None`: no NetworkPolicy.
    pub network_policy: Option<Vec<NetworkPolicyPeer>>,
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
    let standalone = standalone(tracing.spec.mlflow.standalone.clone().unwrap_or_default(), &mut problems);
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

fn standalone(spec: Standalone, problems: &mut Problems) -> StandaloneSettings {
    // Destructured, so that a new field of the spec cannot be forgotten here.
    let Standalone {
        image,
        image_pull_policy,
        image_pull_secrets,
        port,
        workers,
        storage,
        deletion_policy,
        backend_store_secret,
        artifacts,
        allowed_hosts,
        resources,
        node_selector,
        tolerations,
        pod_labels,
        network_policy,
    } = spec;
    let storage = storage.unwrap_or_default();
    let workers = workers.unwrap_or(1);
    let storage_size = storage.size.unwrap_or_else(|| DEFAULT_SIZE.to_owned());
    if quantity::parse(&storage_size).is_none_or(|bytes| bytes <= 0) {
        problems.add(&format!("{PREFIX}.storage.size"), &storage_size, "write a size above zero, for example 5Gi");
    }
    let image_pull_secrets: Vec<String> = image_pull_secrets.into_iter().map(|secret| secret.name).collect();
    for name in &image_pull_secrets {
        problems.secret(&format!("{PREFIX}.imagePullSecrets.name"), name);
    }
    if let Some(SecretKey { name, key }) = &backend_store_secret {
        problems.secret(&format!("{PREFIX}.backendStoreSecret.name"), name);
        if !valid::secret_key(key) {
            let remedy = "write the name of a key of that Secret: letters, digits, '-', '_' and '.'";
            problems.add(&format!("{PREFIX}.backendStoreSecret.key"), key, remedy);
        }
    }
    if let Some(Artifacts { destination, env_from_secret }) = &artifacts {
        // On the server's own disk they would be lost with the pod; the scheme mlflow-artifacts is the server itself.
        if ["file:", "mlflow-artifacts:"].iter().any(|scheme| destination.starts_with(scheme)) {
            let remedy = "write the address of an object store, for example s3://bucket/path, or leave artifacts out to \
                          keep them on the volume";
            problems.add(&format!("{PREFIX}.artifacts.destination"), destination, remedy);
        }
        if let Some(secret) = env_from_secret {
            problems.secret(&format!("{PREFIX}.artifacts.envFromSecret.name"), &secret.name);
        }
    }
    for host in &allowed_hosts {
        if let Some(remedy) = valid::host_problem(host) {
            problems.add(&format!("{PREFIX}.allowedHosts"), host, remedy);
        }
    }
    for (field, labels) in [("podLabels", &pod_labels), ("nodeSelector", &node_selector)] {
        problems.labels(&format!("{PREFIX}.{field}"), labels);
    }
    StandaloneSettings {
        image: image.unwrap_or_else(|| DEFAULT_IMAGE.to_owned()),
        image_pull_policy: image_pull_policy.unwrap_or(ImagePullPolicy::IfNotPresent),
        // The API server merges this list by name and refuses a name that stands twice.
        image_pull_secrets: unique(image_pull_secrets),
        port: port.unwrap_or(DEFAULT_PORT),
        workers,
        storage_size,
        storage_class_name: storage.storage_class_name,
        deletion_policy: deletion_policy.unwrap_or_default(),
        backend_store_secret,
        artifacts,
        allowed_hosts: unique(allowed_hosts),
        resources: resources_with_defaults(resources.unwrap_or_default(), workers, problems),
        node_selector,
        tolerations,
        pod_labels,
        network_policy: match network_policy {
            Some(NetworkPolicy { enabled: Some(false), from: _ }) => None,
            Some(NetworkPolicy { enabled: _, from }) => Some(from),
            None => Some(Vec::new()),
        },
    }
}

/// The user's resources over the defaults. A default gives way to a value of the user's that it would contradict: with
/// `limits: {memory: 256Mi}` the default request of 512Mi would make the pod invalid.
fn resources_with_defaults(user: Resources, workers: u8, problems: &mut Problems) -> Resources {
    for (kind, list) in [("limits", &user.limits), ("requests", &user.requests)] {
        for (resource, amount) in list {
            let field = format!("{PREFIX}.resources.{kind}.{resource}");
            if quantity::parse(&amount.0).is_none_or(|n| n < 0) {
                problems.add(&field, &amount.0, "write a quantity such as 500m or 1Gi");
            } else if !valid::label_key(resource) {
                problems.add(&field, resource, "write the name of a resource, for example cpu or memory");
            }
        }
    }
    let more = 256 * u32::from(workers.saturating_sub(1));
    let defaults = [("requests", "cpu", "100m".to_owned())].into_iter().chain([
        ("requests", "memory", format!("{}Mi", 512 + more)),
        ("limits", "memory", format!("{}Mi", 1024 + more)),
    ]);
    let mut resources = user.clone();
    for (kind, resource, amount) in defaults {
        let (own, other, list) = match kind {
            "limits" => (&user.limits, &user.requests, &mut resources.limits),
            _ => (&user.requests, &user.limits, &mut resources.requests),
        };
        if own.contains_key(resource) {
            continue;
        }
        let contradicted = |bound: &Quantity| match (quantity::parse(&bound.0), quantity::parse(&amount)) {
            (Some(bound), Some(default)) if kind == "limits" => bound > default,
            (Some(bound), Some(default)) => bound < default,
            _ => false,
        };
        let value = other.get(resource).filter(|bound| contradicted(bound)).map_or(amount.clone(), |b| b.0.clone());
        list.insert(resource.to_owned(), Quantity(value));
    }
    for (resource, request) in &resources.requests {
        let limit = resources.limits.get(resource).and_then(|limit| quantity::parse(&limit.0));
        if matches!((quantity::parse(&request.0), limit), (Some(request), Some(limit)) if request > limit) {
            let remedy = "write at most what resources.limits has";
            problems.add(&format!("{PREFIX}.resources.requests.{resource}"), &request.0, remedy);
        }
    }
    resources
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

fn unique(mut list: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    list.retain(|item| seen.insert(item.clone()));
    list
}

const PREFIX: &str = "spec.mlflow.standalone";
const LABEL_KEY: &str = "write a label key: an optional DNS name and '/', then at most 63 letters, digits, '-', '_' and \
                         '.', beginning and ending with a letter or digit";

/// Image of the server: what Red Hat OpenShift AI 3.4 ships.
pub const DEFAULT_IMAGE: &str = "ghcr.io/mlflow/mlflow:v3.10.1";
/// Size of the volume.
pub const DEFAULT_SIZE: &str = "5Gi";

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
    use kube::CustomResourceExt;

    use super::*;

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
