//! The relay, and agents that speak OTLP, as the spec has them.

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;

use super::resources::{self, Default};
use super::{Problems, Server};
use crate::api::{AuthMethod, ConfigMapKey, Otlp, OtlpMode, Relay, RelayStorage, Resources};
use crate::core::children::quantity;

/// The relay, every default resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct RelaySettings {
    /// Its pods.
    pub replicas: u8,
    /// The volume of each; `None`: memory alone.
    pub volume: Option<RelayVolume>,
    /// Requests and limits, defaults filled in.
    pub resources: Resources,
    /// The user's peers of the NetworkPolicy.
    pub from: Vec<NetworkPolicyPeer>,
    /// More certificate authorities that it trusts.
    pub authorities: Vec<ConfigMapKey>,
}

/// The volume of a pod of the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayVolume {
    /// Its size.
    pub size: String,
    /// Its class; `None` is the cluster's default class.
    pub storage_class_name: Option<String>,
}

/// Where agents send what they say in OTLP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OtlpTarget {
    /// Nowhere that the operator decides.
    #[default]
    None,
    /// MLflow itself.
    Mlflow,
    /// The relay.
    Relay,
    /// The collector at this address.
    Collector(String),
}

/// Where agents send OTLP. What cannot work is a problem, and nothing is given to agents for it.
pub(super) fn otlp(spec: Otlp, auth: AuthMethod, server: &Server, problems: &mut Problems) -> OtlpTarget {
    let Otlp { mode, endpoint } = spec;
    let mode = mode.unwrap_or_default();
    if let (Some(endpoint), true) = (&endpoint, mode != OtlpMode::Collector) {
        let remedy = "it belongs to otlp.mode Collector; take it out, or set the mode";
        problems.add("spec.otlp.endpoint", endpoint, remedy);
    }
    match (mode, endpoint) {
        (OtlpMode::None, _) => OtlpTarget::None,
        (OtlpMode::Relay, _) => OtlpTarget::Relay,
        (OtlpMode::Direct, _) if matches!(server, Server::Cr(_)) || auth != AuthMethod::None => {
            let remedy = "it sends no token, so it is for mode Standalone, and for mode External where auth.method is None; write Relay";
            problems.add("spec.otlp.mode", "Direct", remedy);
            OtlpTarget::None
        }
        (OtlpMode::Direct, _) => OtlpTarget::Mlflow,
        (OtlpMode::Collector, Some(endpoint)) if is_address(&endpoint) => OtlpTarget::Collector(endpoint),
        (OtlpMode::Collector, endpoint) => {
            let remedy = "write the address to which the collector takes traces, for example \
                          http://collector.observability.svc:4318/v1/traces";
            problems.add("spec.otlp.endpoint", &endpoint.unwrap_or_default(), remedy);
            OtlpTarget::None
        }
    }
}

/// The relay; `None` where nothing uses one.
pub(super) fn relay(
    spec: Option<Relay>,
    authorities: &[ConfigMapKey],
    is_used: bool,
    problems: &mut Problems,
) -> Option<RelaySettings> {
    let is_given = spec.is_some();
    // Destructured, so that a new field of the spec cannot be forgotten here.
    let Relay { replicas, storage, resources, from } = spec.unwrap_or_default();
    if is_given && !is_used {
        let remedy = "nothing uses a relay: set otlp.mode or auth.method to Relay, or take the block out";
        problems.add("spec.relay", "", remedy);
    }
    let settings = RelaySettings {
        replicas: replicas.unwrap_or(1),
        volume: match storage {
            None => Some(RelayVolume { size: DEFAULT_SIZE.to_owned(), storage_class_name: None }),
            Some(storage) => volume(storage, problems),
        },
        resources: resources::with_defaults(resources.unwrap_or_default(), &DEFAULTS, "spec.relay.resources", problems),
        from,
        authorities: authorities.to_vec(),
    };
    is_used.then_some(settings)
}

fn volume(storage: RelayStorage, problems: &mut Problems) -> Option<RelayVolume> {
    let RelayStorage { size, storage_class_name } = storage;
    match (size, &storage_class_name) {
        (None, Some(class)) => {
            let remedy = "it is of a volume: give relay.storage.size as well, for example 1Gi, or take it out";
            problems.add("spec.relay.storage.storageClassName", class, remedy);
            None
        }
        (None, None) => None,
        (Some(size), _) => {
            if quantity::parse(&size).is_none_or(|bytes| bytes <= 0) {
                problems.add("spec.relay.storage.size", &size, "write a size above zero, for example 1Gi");
            }
            Some(RelayVolume { size, storage_class_name })
        }
    }
}

/// Agents may be given a token's stand-in only where a token is sent over TLS.
pub(super) fn check_auth(auth: AuthMethod, server: &Server, problems: &mut Problems) {
    let takes_token = match server {
        Server::Standalone(_) => false,
        Server::Cr(_) => true,
        Server::External(external) => external.tracking_uri.as_ref().is_none_or(|uri| uri.starts_with("https://")),
    };
    if auth == AuthMethod::Relay && !takes_token {
        let remedy = "the relay shows a token only in mode CR and to an https:// address; take auth out, and for agents that \
                      speak OTLP set otlp.mode to Relay";
        problems.add("spec.auth.method", "Relay", remedy);
    }
}

fn is_address(text: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
}

/// Size of a pod's volume.
const DEFAULT_SIZE: &str = "1Gi";
/// Measured: 12 MiB at rest, 48 MiB under load.
const DEFAULTS: [Default; 3] =
    [("requests", "cpu", "10m"), ("requests", "memory", "32Mi"), ("limits", "memory", "96Mi")];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::settings::{Settings, parse, read};

    fn tracing(spec: &str) -> crate::api::AgentTracing {
        let yaml = format!(
            "{{apiVersion: agenttracing.dev/v1alpha1, kind: AgentTracing, metadata: {{name: tracing, namespace: bank}}, spec: {spec}}}"
        );
        serde_yaml::from_str(&yaml).unwrap()
    }

    fn settings(spec: &str) -> Settings {
        parse(&tracing(spec)).unwrap_or_else(|problems| panic!("{spec}: {problems:?}"))
    }

    #[test]
    fn a_relay_runs_where_something_uses_one_and_has_a_default_for_everything() {
        for none in [
            "{mlflow: {mode: CR}}",
            "{mlflow: {mode: Standalone}, otlp: {mode: Direct}}",
            "{mlflow: {mode: CR}, otlp: {mode: Collector, endpoint: 'http://c:4318/v1/traces'}}",
        ] {
            assert_eq!(settings(none).relay, None, "{none}");
        }
        for used in [
            "{mlflow: {mode: CR}, auth: {method: Relay}}",
            "{mlflow: {mode: CR}, otlp: {mode: Relay}}",
            "{mlflow: {mode: Standalone}, otlp: {mode: Relay}, relay: {}}",
        ] {
            let relay = settings(used).relay.unwrap();
            assert_eq!((relay.replicas, relay.volume.unwrap().size.as_str()), (1, "1Gi"), "{used}");
            assert_eq!(relay.resources.limits["memory"].0, "96Mi");
        }
        let memory = settings("{mlflow: {mode: CR}, otlp: {mode: Relay}, relay: {storage: {}, replicas: 2}}").relay;
        assert_eq!(memory.map(|relay| (relay.replicas, relay.volume)), Some((2, None)));
    }

    #[test]
    fn agents_of_a_relay_that_shows_the_token_need_nothing_but_its_address() {
        let all = settings(
            "{mlflow: {mode: CR}, auth: {method: Relay}, caBundle: {configMaps: [{name: corp, key: ca.crt}]}}",
        );
        assert!(all.needs_token() && all.relays_all() && !all.agents_need_token());
        assert_eq!(all.ca, None);
        assert_eq!(all.relay.unwrap().authorities.len(), 1, "the relay trusts them");
        let otlp = settings("{mlflow: {mode: CR}, otlp: {mode: Relay}}");
        assert!(otlp.agents_need_token() && otlp.ca.is_some(), "the SDK's own way stays as it was");
    }

    #[test]
    fn each_problem_names_field_value_and_remedy() {
        let http = "mlflow: {mode: External, external: {trackingURI: 'http://m'}}";
        let https = "mlflow: {mode: External, external: {trackingURI: 'https://m'}}";
        let relay = |block: &str| format!("{{mlflow: {{mode: CR}}, otlp: {{mode: Relay}}, relay: {{{block}}}}}");
        for (spec, told) in [
            ("{mlflow: {mode: CR}, otlp: {mode: Direct}}".to_owned(), "spec.otlp.mode is \"Direct\": "),
            (
                format!("{{{https}, auth: {{method: TokenFile}}, otlp: {{mode: Direct}}}}"),
                "spec.otlp.mode is \"Direct\": ",
            ),
            (format!("{{{http}, auth: {{method: Relay}}}}"), "spec.auth.method is \"Relay\": "),
            ("{mlflow: {mode: Standalone}, auth: {method: Relay}}".to_owned(), "spec.auth.method is \"Relay\": "),
            (format!("{{{http}, otlp: {{mode: Collector}}}}"), "spec.otlp.endpoint is \"\": "),
            (
                format!("{{{http}, otlp: {{mode: Collector, endpoint: 'c:4317'}}}}"),
                "spec.otlp.endpoint is \"c:4317\": ",
            ),
            (format!("{{{http}, otlp: {{endpoint: 'http://c'}}}}"), "spec.otlp.endpoint is \"http://c\": "),
            (format!("{{{http}, relay: {{replicas: 2}}}}"), "spec.relay is \"\": "),
            (relay("storage: {size: '0'}"), "spec.relay.storage.size is \"0\": "),
            (relay("storage: {storageClassName: fast}"), "spec.relay.storage.storageClassName is \"fast\": "),
            (relay("resources: {limits: {memory: lots}}"), "spec.relay.resources.limits.memory is \"lots\": "),
            (
                format!(
                    "{{{http}, otlp: {{mode: Direct}}, injection: {{env: [{{name: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, value: x}}]}}}}"
                ),
                "spec.injection.env.name is \"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT\": ",
            ),
        ] {
            let problems: Vec<_> = read(&tracing(&spec)).1.iter().map(ToString::to_string).collect();
            assert_eq!(problems.len(), 1, "{spec}: {problems:?}");
            assert!(problems[0].starts_with(told), "{spec}: {problems:?}");
        }
    }

    #[test]
    fn what_cannot_work_is_given_to_no_agent() {
        let direct = "{mlflow: {mode: CR}, otlp: {mode: Direct}}";
        assert_eq!(read(&tracing(direct)).0.otlp, OtlpTarget::None);
    }
}
