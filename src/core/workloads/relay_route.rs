//! Whether a workload's traces go to the relay, and under which name: its own environment says it, since a Job keeps the wiring that
//! it was made with.

use crate::core::inject::view::Workload;
use crate::core::relay::report::RelayRoute;
use crate::core::relay::sender::Sender;
use crate::core::settings::Settings;
use crate::core::wiring::{OTLP_ENDPOINTS, TRACKING_URI};
use crate::names;

/// Where a container's traces go, by MLflow's SDK or by OTLP.
const ADDRESSES: [&str; 3] = [TRACKING_URI, OTLP_ENDPOINTS[0], OTLP_ENDPOINTS[1]];

/// The way of a workload to the relay of its AgentTracing; `None` where no address of its containers leads there.
pub(super) fn route(workload: &Workload<'_>, settings: &Settings) -> Option<RelayRoute> {
    let base = format!("http://{}:", names::relay_host(&settings.name, &settings.namespace));
    let entries = workload.pod.containers.iter().flat_map(|container| container.env.iter().flatten());
    let addresses = entries.filter(|entry| ADDRESSES.contains(&&*entry.name));
    let (mut route, mut mlflow, mut elsewhere) = (None, false, false);
    for entry in addresses {
        match entry.value.as_deref().and_then(|value| sender(value.strip_prefix(&base)?)) {
            Some(sender) => {
                mlflow |= &*entry.name == TRACKING_URI;
                route.get_or_insert(sender);
            }
            None => elsewhere = true,
        }
    }
    route.map(|sender| RelayRoute { sender, all: mlflow && !elsewhere })
}

/// `5500/w/deployment/teller/…`
fn sender(rest: &str) -> Option<String> {
    let (_port, path) = rest.split_once("/w/")?;
    let mut parts = path.split('/');
    Some(Sender::new(parts.next()?, parts.next()?)?.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::core::selection::kind::Kind;
    use crate::core::settings::parse;

    fn of(containers: &[&[(&str, &str)]]) -> Option<RelayRoute> {
        let tracing = "{apiVersion: agenttracing.dev/v1alpha1, kind: AgentTracing, metadata: {name: tracing, namespace: bank}, \
                       spec: {mlflow: {mode: CR}, auth: {method: Relay}}}";
        let settings = parse(&serde_yaml::from_str(tracing).unwrap()).unwrap();
        let env = |env: &&[(&str, &str)]| -> Vec<_> {
            env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
        };
        let containers: Vec<_> =
            containers.iter().map(|container| json!({"name": "agent", "env": env(container)})).collect();
        let template = json!({"spec": {"containers": containers}});
        let object = json!({"metadata": {"name": "courier"}, "spec": {"selector": {}, "template": template}});
        route(&Workload::read(Kind::Deployment, &object).unwrap(), &settings)
    }

    const SDK: (&str, &str) = (TRACKING_URI, "http://tracing-relay.bank.svc:5500/w/deployment/courier");
    const OTLP: (&str, &str) =
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://tracing-relay.bank.svc:4318/w/deployment/courier/v1/traces");
    const MLFLOW: (&str, &str) = (TRACKING_URI, "https://mlflow.redhat-ods-applications.svc:8443");

    #[test]
    fn who_sends_all_by_the_relay_is_told_from_who_may_send_past_it() {
        let route = |all| Some(RelayRoute { sender: "deployment/courier".to_owned(), all });
        assert_eq!(of(&[&[SDK]]), route(true));
        assert_eq!(of(&[&[SDK, OTLP], &[]]), route(true));
        assert_eq!(of(&[&[MLFLOW, OTLP]]), route(false));
        assert_eq!(of(&[&[OTLP]]), route(false), "its SDK may have an address from elsewhere");
        assert_eq!(of(&[&[SDK, ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")]]), route(false));
        assert_eq!(of(&[&[MLFLOW]]), None);
        assert_eq!(of(&[&[(TRACKING_URI, "http://tracing-relay.shop.svc:5500/w/deployment/courier")]]), None);
        assert_eq!(of(&[&[(TRACKING_URI, "http://tracing-relay.bank.svc:5500/x")]]), None);
    }
}
