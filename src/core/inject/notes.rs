//! What the user should know about a container: what of theirs was kept, and what will lose its traces.

use std::fmt;

use super::super::wiring::expand;
use super::view::{Container, PodSpec};
use crate::core::url::{authority, host, origin};

/// Something the user should know about a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// The container sets these variables itself; they were kept.
    KeptByUser {
        /// Container.
        container: String,
        /// The user's variables.
        variables: Vec<String>,
    },
    /// The container has `envFrom`, whose variables ours would beat if the names are the same.
    MayOverrideEnvFrom {
        /// Container.
        container: String,
    },
    /// The container has an OTLP endpoint, to which MLflow's SDK does not send.
    OtlpEndpoint {
        /// Container.
        container: String,
        /// The variable with the endpoint.
        variable: &'static str,
    },
    /// The container has no token that MLflow takes, so it is left out.
    NoToken {
        /// Container.
        container: String,
    },
    /// The container sends what it says to MLflow to a proxy, which does not know the cluster's names.
    Proxied {
        /// Container.
        container: String,
        /// MLflow's host.
        host: String,
    },
    /// The container switches off the SDK that makes the traces.
    SdkDisabled {
        /// Container.
        container: String,
    },
    /// The pods ask another name server than the cluster's for MLflow.
    NodeDns {
        /// MLflow's host.
        host: String,
        /// The setting that brings the cluster's.
        remedy: &'static str,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeptByUser { container, variables } => write!(f, "KeptByUser {container}: {}", variables.join(" ")),
            Self::MayOverrideEnvFrom { container } => write!(f, "MayOverrideEnvFrom {container}"),
            Self::OtlpEndpoint { container, variable } => write!(
                f,
                "OTLPEndpoint {container}: MLflow's SDK would send its traces to {variable} alone; MLFLOW_ENABLE_OTLP_EXPORTER=false \
                 keeps it with MLflow if the image has package opentelemetry-exporter-otlp-proto-http, and \
                 MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT=true of the container's own sends to both"
            ),
            Self::NoToken { container } => write!(
                f,
                "NoServiceAccountToken {container}: no token for the API server is mounted at its usual place, so it is left out; mount \
                 one there or set automountServiceAccountToken to true"
            ),
            Self::Proxied { container, host } => write!(
                f,
                "Proxied {container}: its proxy gets what is meant for {host}, and the traces are lost; add that name or .svc to its NO_PROXY"
            ),
            Self::SdkDisabled { container } => {
                write!(f, "OTEL_SDK_DISABLED {container}: it makes no traces; take the variable out or set it to false")
            }
            Self::NodeDns { host, remedy } => {
                write!(f, "NodeDNS: its pods do not ask the cluster's DNS, which alone knows {host}; set {remedy}")
            }
        }
    }
}

/// What keeps the traces of a wired container from an address.
pub(super) fn losses(container: &Container<'_>, pod: &PodSpec<'_>, uri: &str) -> Vec<Note> {
    let name = || container.name.to_string();
    let disabled = literal_of(container, "OTEL_SDK_DISABLED").is_some_and(|v| v.trim().eq_ignore_ascii_case("true"));
    let mut notes = Vec::new();
    if disabled {
        notes.push(Note::SdkDisabled { container: name() });
    }
    // What is outside the cluster may be reached through a proxy, and its name is known to every name server.
    let Some(host) = host(uri).filter(|host| host.split('.').nth(2) == Some("svc")) else { return notes };
    if is_proxied(container, uri, &host) {
        notes.push(Note::Proxied { container: name(), host: host.clone() });
    }
    notes.extend(other_dns(pod).map(|remedy| Note::NodeDns { host, remedy }));
    notes
}

/// What brings the cluster's DNS to pods that ask another one.
fn other_dns(pod: &PodSpec<'_>) -> Option<&'static str> {
    let on_host = pod.host_network == Some(true);
    match pod.dns_policy.as_deref().unwrap_or_default() {
        "ClusterFirstWithHostNet" => None,
        _ if on_host => Some("dnsPolicy: ClusterFirstWithHostNet"),
        "Default" => Some("dnsPolicy: ClusterFirst"),
        "None" => Some("dnsPolicy: ClusterFirst, or name the cluster's DNS in dnsConfig"),
        _ => None,
    }
}

/// Whether Python's requests would go through a proxy: it reads both spellings of each variable, the lower case first, and
/// compares ends of names. What cannot be seen is not told.
fn is_proxied(container: &Container<'_>, uri: &str, host: &str) -> bool {
    let either =
        |lower: &str| env_value(container, lower).or_else(|| env_value(container, &lower.to_ascii_uppercase()));
    let scheme = uri.split("://").next().unwrap_or_default().to_ascii_lowercase();
    let is_set = |value: Option<String>| value.is_none_or(|proxy| !proxy.is_empty());
    if ![format!("{scheme}_proxy"), "all_proxy".to_owned()].iter().filter_map(|name| either(name)).any(is_set) {
        return false;
    }
    let full = origin(uri).and_then(|origin| authority(&origin)).unwrap_or_default().to_ascii_lowercase();
    let exempts = |list: Option<String>| {
        list.is_none_or(|list| {
            let mut entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            entries.any(|entry| entry == "*" || host.ends_with(entry) || full.ends_with(entry))
        })
    };
    !["no_proxy", "NO_PROXY"].into_iter().filter_map(|name| env_value(container, name)).any(exempts)
}

/// A variable as the process sees it: `None` where it is not set, and within where its value comes from elsewhere.
fn env_value(container: &Container<'_>, name: &str) -> Option<Option<String>> {
    let entry = container.env.iter().flatten().rev().find(|entry| &*entry.name == name)?;
    let literal = entry.value_from.is_none().then(|| entry.value.as_deref().unwrap_or_default());
    Some(literal.and_then(expand))
}

fn literal_of(container: &Container<'_>, name: &str) -> Option<String> {
    env_value(container, name)?
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::core::inject::view::Workload;
    use crate::core::selection::kind::Kind;

    const URI: &str = "http://tracing-mlflow.agents.svc:5500";

    fn notes(pod: Value, env: Value, uri: &str) -> Vec<String> {
        let mut pod = pod;
        pod["containers"] = json!([{"name": "agent", "env": env}]);
        let text = json!({"metadata": {}, "spec": {"template": {"spec": pod}}}).to_string();
        let workload = Workload::parse(Kind::Deployment, &text).unwrap();
        let notes = losses(&workload.pod.containers[0], &workload.pod, uri);
        notes.iter().map(|note| note.to_string().split([' ', ':']).next().unwrap().to_owned()).collect()
    }

    /// case B13
    #[test]
    fn a_proxy_is_in_the_way_unless_mlflow_is_exempt() {
        let env = |no_proxy: &str| json!([{"name": "HTTP_PROXY", "value": "http://proxy:3128"}, {"name": "NO_PROXY", "value": no_proxy}]);
        for lost in ["", "localhost,127.0.0.1", ".svc.cluster.local", "*.svc", "10.0.0.0/8"] {
            assert_eq!(notes(json!({}), env(lost), URI), ["Proxied"], "{lost}");
        }
        for exempt in [".svc", "localhost, .svc", "svc", "tracing-mlflow.agents.svc", "agents.svc:5500", "*"] {
            assert!(notes(json!({}), env(exempt), URI).is_empty(), "{exempt}");
        }
        for (env, uri) in [
            (json!([]), URI),
            (json!([{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]), URI),
            (json!([{"name": "http_proxy", "value": ""}, {"name": "HTTP_PROXY", "value": "http://proxy"}]), URI),
            (json!([{"name": "HTTP_PROXY", "value": "http://proxy"}, {"name": "NO_PROXY", "valueFrom": {}}]), URI),
            (env("localhost"), "http://mlflow.example.com"),
        ] {
            assert!(notes(json!({}), env.clone(), uri).is_empty(), "{env}");
        }
        for env in [
            json!([{"name": "http_proxy", "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "url"}}}]),
            json!([{"name": "ALL_PROXY", "value": "http://proxy:3128"}]),
        ] {
            assert_eq!(notes(json!({}), env.clone(), URI), ["Proxied"], "{env}");
        }
    }

    /// case B32
    #[test]
    fn pods_that_do_not_ask_the_clusters_dns_are_told() {
        for pod in [
            json!({"hostNetwork": true}),
            json!({"hostNetwork": true, "dnsPolicy": "ClusterFirst"}),
            json!({"dnsPolicy": "Default"}),
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.1"]}}),
        ] {
            assert_eq!(notes(pod.clone(), json!([]), URI), ["NodeDNS"], "{pod}");
            assert!(notes(pod.clone(), json!([]), "https://mlflow.example.com").is_empty(), "{pod}");
        }
        for pod in [
            json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
            json!({"hostNetwork": false, "dnsPolicy": "ClusterFirst"}),
            json!({"dnsPolicy": null}),
        ] {
            assert!(notes(pod.clone(), json!([]), URI).is_empty(), "{pod}");
        }
    }

    #[test]
    fn a_disabled_sdk_is_told_wherever_mlflow_is() {
        for (value, expected) in [("true", 1), (" TRUE", 1), ("false", 0), ("", 0), ("1", 0)] {
            let env = json!([{"name": "OTEL_SDK_DISABLED", "value": value}]);
            assert_eq!(notes(json!({}), env, "https://mlflow.example.com").len(), expected, "{value}");
        }
    }
}
