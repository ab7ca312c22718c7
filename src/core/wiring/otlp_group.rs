//! What agents that speak OTLP get, and the address by which the relay knows them.

use super::{Entry, Group, Missing, OTLP_TRACES_ENDPOINT, Subject, literal};
use crate::core::relay::sender::{EXPERIMENT_ID, Sender};
use crate::core::selection::kind::Kind;
use crate::core::settings::policy::Policy;
use crate::core::settings::{OtlpTarget, Settings};
use crate::core::url::origin;
use crate::names;

/// Where a workload finds the relay: the address names it, and stays the same wherever MLflow is.
pub(super) fn relay_uri(settings: &Settings, subject: &Subject<'_>, port: u16) -> String {
    let host = names::relay_host(&settings.name, &settings.namespace);
    format!("http://{host}:{port}/w/{}/{}", subject.kind.as_str().to_ascii_lowercase(), sender_name(subject))
}

/// A workload's name as the relay takes it. That of a family of Jobs may come from a label, which allows more.
fn sender_name(subject: &Subject<'_>) -> String {
    let Subject { kind, name, .. } = *subject;
    if Sender::new(kind.as_str(), name).is_some() || name.contains('{') {
        return name.to_owned();
    }
    let allowed = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() || "-.".contains(c) => c,
        _ => '-',
    };
    name.chars().map(allowed).collect::<String>().trim_matches(['-', '.']).to_owned()
}

/// The variables of the group; none where the spec wants none.
pub(super) fn entries(
    policy: &Policy,
    subject: &Subject<'_>,
    experiment: &str,
    mlflow: Option<&String>,
) -> Result<Vec<Entry>, Missing> {
    let Policy { settings, facts } = policy;
    let (endpoint, needs_id) = match &settings.otlp {
        OtlpTarget::None => return Ok(Vec::new()),
        OtlpTarget::Mlflow => {
            let mlflow = mlflow.ok_or(Missing::TrackingUri)?;
            (traces_of(origin(mlflow).as_deref().unwrap_or(mlflow)), true)
        }
        OtlpTarget::Relay => {
            let uri = relay_uri(settings, subject, names::RELAY_OTLP_PORT);
            // The relay knows the experiment by the workload; another one is told by its id.
            (traces_of(&uri), settings.experiment_of(&sender_name(subject), None) != experiment)
        }
        OtlpTarget::Collector(endpoint) => (endpoint.clone(), false),
    };
    // The relay adds the workspace itself.
    let workspace = policy.workspace().filter(|_| settings.otlp == OtlpTarget::Mlflow);
    let workspace = workspace.map(|name| format!(",x-mlflow-workspace={}", encoded(name))).unwrap_or_default();
    let headers = match facts.experiment_ids.get(experiment).filter(|_| needs_id) {
        Some(id) => Some(format!("{EXPERIMENT_ID}={id}{workspace}")),
        None if needs_id && subject.kind.template_is_mutable() => return Err(Missing::ExperimentId),
        None => None,
    };
    let all = [
        (OTLP_TRACES_ENDPOINT, Some(endpoint), "where traces go by OTLP"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", Some("http/protobuf".to_owned()), "what is spoken there"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", headers, "the experiment's id, without which MLflow takes no OTLP"),
        ("OTEL_SERVICE_NAME", Some(subject.name.to_owned()), "whose spans they are"),
        ("OTEL_RESOURCE_ATTRIBUTES", Some(attributes(settings, subject)), "the same in Kubernetes' words"),
        (
            "OTEL_METRICS_EXPORTER",
            Some("none".to_owned()),
            "MLflow takes no metrics by OTLP, and SDKs send them by default",
        ),
        ("OTEL_LOGS_EXPORTER", Some("none".to_owned()), "MLflow takes no logs by OTLP"),
    ];
    let is_free = |name: &str| !settings.env.iter().any(|own| own.name == name);
    let entry = |(name, value, why): (&str, Option<String>, &'static str)| {
        let value = literal(&value?);
        is_free(name).then(|| Entry { name: name.to_owned(), value, group: Group::Otlp, why })
    };
    Ok(all.into_iter().filter_map(entry).collect())
}

/// As a value of a list of headers has to be: exporters decode it.
fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => char::from(b).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(one).collect()
}

fn traces_of(base: &str) -> String {
    format!("{base}/v1/traces")
}

/// OpenTelemetry's names. A Pod goes by its owner here, which they have no name for.
fn attributes(settings: &Settings, subject: &Subject<'_>) -> String {
    let Subject { kind, name, version, .. } = *subject;
    let workload = match kind {
        Kind::Pod => None,
        kind => Some(format!("k8s.{}.name={name}", kind.as_str().to_ascii_lowercase())),
    };
    let version = version.filter(|version| !version.is_empty()).map(|version| format!("service.version={version}"));
    let namespace = format!("k8s.namespace.name={}", settings.namespace);
    [Some(namespace), workload, version].into_iter().flatten().collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::AgentTracing;
    use crate::core::wiring::wiring;

    fn policy(spec: &str, status: &str) -> Policy {
        let yaml = format!(
            "{{apiVersion: agenttracing.dev/v1alpha1, kind: AgentTracing, metadata: {{name: tracing, namespace: bank}}, spec: {spec}, \
             status: {status}}}"
        );
        Policy::of(&serde_yaml::from_str::<AgentTracing>(&yaml).unwrap())
    }

    fn subject<'a>(kind: Kind, name: &'a str, experiment: Option<&'a str>) -> Subject<'a> {
        Subject { kind, name, experiment, version: Some("1.4.0") }
    }

    const ANSWERED: &str = "mlflow: {url: 'https://m:8443/mlflow', version: 3.14.0, workspaces: true, source: Spec}";
    const RELAY: &str = "{mlflow: {mode: CR}, auth: {method: Relay}, otlp: {mode: Relay}}";

    #[test]
    fn an_agent_of_the_relay_gets_addresses_that_name_it_and_nothing_that_follows_mlflow() {
        let ready = format!("{{{ANSWERED}, relay: {{url: u}}}}");
        let wiring = wiring(&policy(RELAY, &ready), &subject(Kind::CronJob, "nightly", None)).unwrap();
        let value = |name: &str| wiring.env.iter().find(|e| e.name == name).map(|e| e.value.as_str());
        let host = "http://tracing-relay.bank.svc";
        assert_eq!(value("MLFLOW_TRACKING_URI"), Some(&*format!("{host}:5500/w/cronjob/nightly")));
        assert_eq!(value(OTLP_TRACES_ENDPOINT), Some(&*format!("{host}:4318/w/cronjob/nightly/v1/traces")));
        assert_eq!(value("OTEL_EXPORTER_OTLP_TRACES_HEADERS"), None);
        let attributes = "k8s.namespace.name=bank,k8s.cronjob.name=nightly,service.version=1.4.0";
        assert_eq!(value("OTEL_RESOURCE_ATTRIBUTES"), Some(attributes));
        for absent in ["MLFLOW_WORKSPACE", "MLFLOW_TRACKING_TOKEN_FILE", "REQUESTS_CA_BUNDLE"] {
            assert_eq!(value(absent), None, "{absent}");
        }
        assert!(wiring.parts.is_empty() && value("MLFLOW_EXPERIMENT_NAME") == Some("nightly"));
        let moved = ready.replace("https://m:8443/mlflow", "https://elsewhere");
        let after = super::super::wiring(&policy(RELAY, &moved), &subject(Kind::CronJob, "nightly", None)).unwrap();
        assert_eq!(after.env, wiring.env, "MLflow moved, and no agent is rolled");
    }

    #[test]
    fn what_has_a_second_chance_waits_until_the_relay_was_ready_once() {
        let waiting = policy(RELAY, &format!("{{{ANSWERED}}}"));
        for kind in Kind::ALL {
            let wired = wiring(&waiting, &subject(kind, "teller", None));
            match kind.template_is_mutable() {
                true => assert_eq!(wired, Err(Missing::Relay), "{kind:?}"),
                false => assert!(wired.is_ok(), "{kind:?}"),
            }
        }
        assert_eq!(wiring(&policy(RELAY, "{}"), &subject(Kind::Deployment, "teller", None)), Err(Missing::TrackingUri));
        assert!(wiring(&policy(RELAY, "{}"), &subject(Kind::Job, "import", None)).is_ok(), "its address is known");
    }

    #[test]
    fn an_experiment_that_the_address_does_not_tell_is_told_by_its_id() {
        let ready = format!("{{{ANSWERED}, relay: {{url: u}}, experiments: [{{name: tills, id: '12'}}]}}");
        let policy = policy(RELAY, &ready);
        let headers = |subject: Subject<'_>| {
            let env = wiring(&policy, &subject)?.env;
            Ok::<_, Missing>(env.into_iter().find(|e| e.name == "OTEL_EXPORTER_OTLP_TRACES_HEADERS").map(|e| e.value))
        };
        let by_id = Some("x-mlflow-experiment-id=12".to_owned());
        assert_eq!(headers(subject(Kind::Deployment, "teller", Some("tills"))), Ok(by_id));
        assert_eq!(headers(subject(Kind::Deployment, "teller", Some("vaults"))), Err(Missing::ExperimentId));
        assert_eq!(headers(subject(Kind::Deployment, "teller", Some("teller"))), Ok(None));
    }

    #[test]
    fn a_server_with_workspaces_is_told_which_beside_the_experiment() {
        let spec =
            "{mlflow: {mode: External, external: {trackingURI: 'https://m', workspace: team a}}, otlp: {mode: Direct}}";
        let policy = policy(spec, &format!("{{{ANSWERED}, experiments: [{{name: teller, id: '12'}}]}}"));
        let wiring = wiring(&policy, &subject(Kind::Deployment, "teller", None)).unwrap();
        let headers = wiring.env.iter().find(|e| e.name == "OTEL_EXPORTER_OTLP_TRACES_HEADERS");
        let expected = "x-mlflow-experiment-id=12,x-mlflow-workspace=team%20a";
        assert_eq!(headers.map(|e| e.value.as_str()), Some(expected));
    }

    #[test]
    fn every_workload_has_a_name_that_the_relay_takes() {
        for name in ["teller", "a.b-c", "Crew_1", "_x_", "import-20240501"] {
            let subject = subject(Kind::Job, name, None);
            assert!(Sender::new("job", &sender_name(&subject)).is_some(), "{name}");
        }
    }
}
