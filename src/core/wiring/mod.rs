//! What a container gets: **the one place** that knows. Webhook, controller, command line and documentation call it.

pub mod explain;
pub mod otlp;
mod otlp_group;
pub mod parts;

use crate::api::{AuthMethod, CaBundleScope};
use crate::core::selection::kind::Kind;
use crate::core::settings::policy::Policy;
use crate::names;
use parts::{AUTHORITIES, PartKind, PodPart};

/// The wiring of one workload, before the user's own values are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wiring {
    /// Name of the AgentTracing.
    pub tracing: String,
    /// The experiment's name.
    pub experiment: String,
    /// Environment variables in the order in which they are appended.
    pub env: Vec<Entry>,
    /// What the pod gets besides them.
    pub parts: Vec<PodPart>,
    /// Where a container needs a service account token: whether the account mounts it by itself.
    pub token: Option<bool>,
    /// Whether the template is changed anyway, so that an init container of ours is brought up to date in passing.
    pub renews: bool,
}

/// One environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its value as it stands in a template, see [`literal`].
    pub value: String,
    /// With which other variables it stands and falls.
    pub group: Group,
    /// Why it is there, for `explain` and the documentation.
    pub why: &'static str,
}

/// The user's choice wins by group, since a half-kept group loses traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// A container with its own tracking URI gets nothing else of ours.
    Address,
    /// A container with its own experiment name, id or destination gets neither name nor destination of ours.
    Experiment,
    /// A container with any credentials or method of its own gets none of ours.
    Auth,
    /// Goes with a part of the pod: without it, it would name what is not there.
    Part(&'static PartKind),
    /// A container with any of its own that begins with [`OTLP_EXPORTER_PREFIX`] gets none of these: half of ours and half of its
    /// own would send its traces nowhere.
    Otlp,
    /// Only in a container that has an OTLP endpoint, its own or ours, see [`OTLP_ENDPOINTS`].
    OtlpExporter,
    /// Kept or injected by itself.
    Single,
}

/// Why there is no wiring yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// MLflow has not answered yet, so no address is known to work.
    TrackingUri,
    /// `experiment.pin` is set and the experiment's id is not known yet.
    ExperimentId,
    /// In mode CR: the service account may not write to MLflow yet.
    Binding,
    /// The relay has never been ready.
    Relay,
}

/// A workload, as far as its wiring depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its kind.
    pub kind: Kind,
    /// What it is called to people: its name, or that of its family.
    pub name: &'a str,
    /// The experiment that its annotation names.
    pub experiment: Option<&'a str>,
    /// The version of the agent, as its pods' label has it.
    pub version: Option<&'a str>,
}

/// The user's variables that decide the [`Group::Experiment`] group.
pub const EXPERIMENT_GROUP: [&str; 3] =
    ["MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACING_DESTINATION"];
/// The user's variable that decides the [`Group::Address`] group.
pub const TRACKING_URI: &str = "MLFLOW_TRACKING_URI";

/// The user's variables that decide the [`Group::Auth`] group.
pub const AUTH_GROUP: [&str; 5] = [
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_TOKEN_FILE",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_AUTH",
];
/// With it the SDK refuses to work beside [`SERVER_CERT_PATH`].
pub const INSECURE_TLS: &str = "MLFLOW_TRACKING_INSECURE_TLS";
/// Certificate authorities for MLflow alone.
pub const SERVER_CERT_PATH: &str = "MLFLOW_TRACKING_SERVER_CERT_PATH";

/// The authorities that Python's requests trusts.
pub const REQUESTS_CA_BUNDLE: &str = "REQUESTS_CA_BUNDLE";
/// A container that sets one of these has chosen what Python's requests trusts: ours would win over the second and be beside
/// the point of the third, and calls that worked would fail.
pub const REQUESTS_TRUST: [&str; 3] = [REQUESTS_CA_BUNDLE, "CURL_CA_BUNDLE", "SSL_CERT_FILE"];

/// A container that names one of these sends OpenTelemetry data there. MLflow's SDK would send its traces there too, and only
/// there: with 3.10.1, 3.14 and 3.17 none of five reached MLflow, and all of them with [`OTLP_EXPORTER`] off (docs/measurements.md).
/// Where `MLFLOW_TRACING_DESTINATION` is set, as the slim package needs it, the SDK pays no attention to them.
pub const OTLP_ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", OTLP_TRACES_ENDPOINT];
/// Where traces go by OTLP, and nothing else.
pub const OTLP_TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
/// The user's variables that decide the [`Group::Otlp`] group begin so.
pub const OTLP_EXPORTER_PREFIX: &str = "OTEL_EXPORTER_OTLP";
/// Switches that off.
pub const OTLP_EXPORTER: &str = "MLFLOW_ENABLE_OTLP_EXPORTER";
/// Whoever sets it wants traces in both places.
pub const OTLP_DUAL_EXPORT: &str = "MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT";

/// A text as a command, an argument or a value of a container has to spell it, so that the process gets it letter by letter:
/// the kubelet replaces `$(NAME)` there and reads `$$` as `$`.
///
/// An experiment `cash$$flow` was once looked for under that name and filled by the agent as `cash$flow`.
pub fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// What the process gets of a value in a template: the way back from [`literal`]. `None` where a variable may be named.
pub fn expand(value: &str) -> Option<String> {
    if !value.contains('$') {
        return Some(value.to_owned());
    }
    let parts: Vec<&str> = value.split("$$").collect();
    let names_none = parts.iter().all(|part| !part.contains("$("));
    names_none.then(|| parts.join("$"))
}

/// The wiring of a workload under an AgentTracing.
///
/// A template that cannot be changed later (Job, Pod) is wired with what is known now: an address that has not answered yet,
/// an experiment by its name alone.
#[expect(clippy::too_many_lines, reason = "a table: one entry for each variable")]
pub fn wiring(policy: &Policy, subject: &Subject<'_>) -> Result<Wiring, Missing> {
    let Policy { settings, facts } = policy;
    let waits = subject.kind.template_is_mutable();
    let address = if waits { None } else { settings.address() };
    let mlflow = facts.tracking_uri.as_ref().or(address.as_ref());
    let relay = settings.relays_all().then(|| otlp_group::relay_uri(settings, subject, names::RELAY_PORT));
    let Some(uri) = relay.as_ref().filter(|_| !waits || mlflow.is_some()).or(mlflow) else {
        return Err(Missing::TrackingUri);
    };
    if waits && settings.relay.is_some() && !facts.relay {
        return Err(Missing::Relay);
    }
    let experiment = settings.experiment_of(subject.name, subject.experiment);
    let entry = |name: &str, value: &str, group, why| Entry { name: name.into(), value: literal(value), group, why };

    let mut env = vec![
        entry(TRACKING_URI, uri, Group::Address, "where MLflow is, or the relay before it"),
        entry(
            "MLFLOW_EXPERIMENT_NAME",
            &experiment,
            Group::Experiment,
            "the experiment that traces are logged to: one for a workload, or for the family of Jobs with unique names or Knative revisions",
        ),
    ];
    if settings.experiment.pin {
        let why = "the experiment's id: no look-ups, and it wins over set_experiment() in code";
        match facts.experiment_ids.get(&experiment) {
            Some(id) => env.push(entry("MLFLOW_TRACING_DESTINATION", id, Group::Experiment, why)),
            None if waits => return Err(Missing::ExperimentId),
            None => {}
        }
    }
    if let Some(workspace) = policy.workspace().filter(|_| !settings.relays_all()) {
        env.push(entry("MLFLOW_WORKSPACE", workspace, Group::Single, "the workspace that the experiment is in"));
    }
    let token_file = format!("{}/token", names::TOKEN_FOLDER);
    match settings.auth {
        AuthMethod::None | AuthMethod::Relay => {}
        AuthMethod::TokenFile => {
            let why = "the pod's token, which the agent's code copies into MLFLOW_TRACKING_TOKEN";
            env.push(entry("MLFLOW_TRACKING_TOKEN_FILE", &token_file, Group::Auth, why));
        }
        AuthMethod::KubernetesPlugin => {
            let why = "MLflow's own plugin sends the pod's token (MLflow 3.11 and later)";
            env.push(entry("MLFLOW_TRACKING_AUTH", "kubernetes-namespaced", Group::Auth, why));
        }
    }
    if let Some(choice) = &settings.ca {
        let file = format!("{}/{}", names::CA_FOLDER, names::CA_FILE);
        let bundles = [
            (REQUESTS_CA_BUNDLE, "the authorities that Python's requests trust: the public ones and the cluster's"),
            (SERVER_CERT_PATH, "the same for MLflow alone, which wins over the first"),
            ("NODE_EXTRA_CA_CERTS", "the same for Node.js"),
        ];
        let concerned = |name: &str| choice.scope == CaBundleScope::All || name == SERVER_CERT_PATH;
        let bundles = bundles.into_iter().filter(|(name, _)| concerned(name));
        env.extend(bundles.map(|(name, why)| entry(name, &file, Group::Part(&AUTHORITIES), why)));
    }
    let timeout = settings.sdk.timeout_seconds.unwrap_or(5).to_string();
    let retries = settings.sdk.max_retries.unwrap_or(1).to_string();
    let ratio = settings.sdk.sampling_ratio.as_deref().unwrap_or("1.0");
    let singles = [
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", timeout.as_str(), "the SDK's 120 s hang an agent when MLflow is down"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", &retries, "the SDK's 7 retries hang an agent when MLflow is down"),
        ("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1", "the SDK's 2 doubles the wait between retries"),
        (
            "MLFLOW_ASYNC_TRACE_LOGGING_RETRY_TIMEOUT",
            "10",
            "the SDK tries for 500 s, which keeps a process from exiting",
        ),
        ("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "true", "MLflow up to 3.11 otherwise blocks the agent for each trace"),
        (
            "MLFLOW_USE_BATCH_SPAN_PROCESSOR",
            "false",
            "MLflow 3.12 and later otherwise loses the traces of a short process",
        ),
        ("MLFLOW_DISABLE_TELEMETRY", "true", "no usage data leaves the cluster"),
    ];
    env.extend(singles.map(|(name, value, why)| entry(name, value, Group::Single, why)));
    if ratio.parse::<f64>() != Ok(1.0) {
        env.push(entry("MLFLOW_TRACE_SAMPLING_RATIO", ratio, Group::Single, "the share of traces that is kept"));
    }
    env.extend(otlp_group::entries(policy, subject, &experiment, mlflow)?);
    if !settings.env.iter().any(|own| own.name == OTLP_EXPORTER) {
        let why = "the SDK otherwise sends its traces to that endpoint and none to MLflow";
        env.push(entry(OTLP_EXPORTER, "false", Group::OtlpExporter, why));
    }
    env.extend(settings.env.iter().map(|e| entry(&e.name, &e.value, Group::Single, "from injection.env")));
    let parts = parts::parts(settings);
    Ok(Wiring { tracing: settings.name.clone(), experiment, env, parts, token: None, renews: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::AgentTracing;

    fn wired(spec: &str) -> Wiring {
        let yaml = format!(
            "{{apiVersion: agenttracing.dev/v1alpha1, kind: AgentTracing, metadata: {{name: tracing, namespace: bank}}, spec: {spec}}}"
        );
        let mut policy = Policy::of(&serde_yaml::from_str::<AgentTracing>(&yaml).unwrap());
        policy.facts.tracking_uri = policy.settings.address();
        wiring(&policy, &Subject { kind: Kind::Deployment, name: "teller", experiment: None, version: None }).unwrap()
    }

    /// The kubelet reads from the left: of `$$$(A)` the first two are a `$`, the rest names a variable.
    #[test]
    fn a_value_is_read_as_the_kubelet_reads_it() {
        for (value, process) in [
            ("cash", Some("cash")),
            ("cash$$flow", Some("cash$flow")),
            ("$$", Some("$")),
            ("$$$", Some("$$")),
            ("$5 $", Some("$5 $")),
            ("$$(POD_NAME)", Some("$(POD_NAME)")),
            ("$$$$(A)", Some("$$(A)")),
            ("$(POD_NAME)", None),
            ("a$$$(A)", None),
        ] {
            assert_eq!(expand(value).as_deref(), process, "{value}");
        }
    }

    /// review A7, case B29
    #[test]
    fn every_value_reaches_the_process_letter_by_letter() {
        let text = "pa$$word $(POD_NAME) $$(X) $5 $";
        let uri = "http://mlflow.example.com/$(X)";
        let spec = format!(
            "{{mlflow: {{mode: External, external: {{trackingURI: '{uri}', workspace: '{text}'}}}}, \
             experiment: {{name: '{text}'}}, injection: {{env: [{{name: PASS, value: '{text}'}}]}}}}"
        );
        let wiring = wired(&spec);
        assert_eq!(wiring.experiment, text, "the operator ensures what the process logs to");
        let value = |name: &str| wiring.env.iter().find(|e| e.name == name).and_then(|e| expand(&e.value)).unwrap();
        assert_eq!(value("MLFLOW_TRACKING_URI"), uri);
        for name in ["MLFLOW_EXPERIMENT_NAME", "MLFLOW_WORKSPACE", "PASS"] {
            assert_eq!(value(name), text, "{name}");
        }
    }

    /// A value that means the same as before rolls no workload.
    #[test]
    fn a_value_without_a_dollar_is_written_as_it_is() {
        let wiring = wired("{mlflow: {mode: Standalone}, injection: {env: [{name: A, value: '100 % {x} (y)'}]}}");
        assert!(wiring.env.iter().all(|entry| !entry.value.contains('$')), "{:?}", wiring.env);
        assert_eq!(wiring.env.last().map(|entry| entry.value.as_str()), Some("100 % {x} (y)"));
    }
}
