//! The relay, and agents that speak OTLP.

use super::modes::{accepts, refuses, rule};
use super::*;

const DIRECT: &str = "otlp.mode Direct sends no token, so it is for mode Standalone, and for mode External where auth.method is \
    None; write otlp.mode Relay";
const ENDPOINT: &str = "otlp.endpoint belongs to otlp.mode Collector and to no other: give the collector's address there, for \
    example 'http://collector.observability.svc:4318/v1/traces', take it out elsewhere";
const UNUSED: &str = "relay is set, but nothing uses a relay: set otlp.mode or auth.method to Relay, or take relay out";
const VOLUME: &str = "relay.storage.storageClassName is of a volume, and without relay.storage.size there is none: give a size, \
    for example 1Gi, or take storageClassName out";
const STORAGE: &str = "relay.storage cannot change while the relay runs, since its volumes may hold traces: set it back; for \
    another one set otlp.mode and auth.method so that nothing uses the relay, delete its PersistentVolumeClaims, and switch it \
    on again";

#[test]
#[ignore = "needs an API server: make test"]
fn every_way_of_otlp_is_accepted_where_it_works() {
    let https = "mlflow: {mode: External, external: {trackingURI: 'https://mlflow.example.com'}}";
    let collector = "otlp: {mode: Collector, endpoint: 'http://collector.observability.svc:4318/v1/traces'}";
    accepts(&[
        "{mlflow: {mode: Standalone}, otlp: {}}".to_owned(),
        "{mlflow: {mode: Standalone}, otlp: null, relay: null}".to_owned(),
        "{mlflow: {mode: Standalone}, otlp: {mode: Direct}}".to_owned(),
        "{mlflow: {mode: External, external: {trackingURI: 'http://m'}}, otlp: {mode: Direct}}".to_owned(),
        format!("{{{https}, auth: {{method: None}}, otlp: {{mode: Direct}}}}"),
        format!("{{{https}, auth: {{method: Relay}}, {collector}}}"),
        format!("{{mlflow: {{mode: CR}}, {collector}}}"),
        "{mlflow: {mode: CR}, auth: {method: Relay}}".to_owned(),
        "{mlflow: {mode: Standalone}, otlp: {mode: Relay}, relay: {}}".to_owned(),
        "{mlflow: {mode: CR}, auth: {method: Relay}, otlp: {mode: Relay}, relay: {replicas: 5, storage: {}, from: [{podSelector: \
         {}}], resources: {limits: {memory: 128Mi}}}}"
            .to_owned(),
        "{mlflow: {mode: CR}, otlp: {mode: Relay}, relay: {storage: {size: 2Gi, storageClassName: fast}}}".to_owned(),
    ]);
}

#[test]
#[ignore = "needs an API server: make test"]
fn a_way_that_cannot_work_is_refused_with_the_one_that_does() {
    let address = r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$";
    let https = "mlflow: {mode: External, external: {trackingURI: 'https://mlflow.example.com'}}";
    let relay = |fields: &str| format!("{{mlflow: {{mode: CR}}, otlp: {{mode: Relay}}, relay: {{{fields}}}}}");
    let endpoint = |value: &str| format!("{{mlflow: {{mode: CR}}, otlp: {{mode: Collector, endpoint: '{value}'}}}}");
    let no_address =
        |value: &str| invalid(json!(value), &format!("spec.otlp.endpoint in body should match '{address}'"));
    refuses(&[
        ("{mlflow: {mode: CR}, otlp: {mode: Direct}}".into(), "spec", rule(DIRECT)),
        (format!("{{{https}, auth: {{method: TokenFile}}, otlp: {{mode: Direct}}}}"), "spec", rule(DIRECT)),
        ("{mlflow: {mode: CR}, otlp: {mode: Collector}}".into(), "spec.otlp", rule(ENDPOINT)),
        ("{mlflow: {mode: CR}, otlp: {mode: Relay, endpoint: 'http://c'}}".into(), "spec.otlp", rule(ENDPOINT)),
        ("{mlflow: {mode: CR}, otlp: {endpoint: 'http://c'}}".into(), "spec.otlp", rule(ENDPOINT)),
        (endpoint("collector:4317"), "spec.otlp.endpoint", no_address("collector:4317")),
        (endpoint("http://u:p@c"), "spec.otlp.endpoint", no_address("http://u:p@c")),
        (
            "{mlflow: {mode: CR}, otlp: {mode: Grpc}}".into(),
            "spec.otlp.mode",
            r#"Unsupported value: "Grpc": supported values: "None", "Direct", "Relay", "Collector""#.into(),
        ),
        ("{mlflow: {mode: CR}, relay: {}}".into(), "spec", rule(UNUSED)),
        (format!("{{{https}, otlp: {{mode: Direct}}, relay: {{replicas: 2}}}}"), "spec", rule(UNUSED)),
        (relay("storage: {storageClassName: fast}"), "spec.relay.storage", rule(VOLUME)),
        (
            relay("replicas: 0"),
            "spec.relay.replicas",
            invalid(0, "spec.relay.replicas in body should be greater than or equal to 1"),
        ),
        (
            relay("replicas: 6"),
            "spec.relay.replicas",
            invalid(6, "spec.relay.replicas in body should be less than or equal to 5"),
        ),
    ]);
}

/// A StatefulSet cannot change its volumes, and what they hold is not to be left behind.
#[test]
#[ignore = "needs an API server: make test"]
fn the_volumes_of_a_relay_stay_as_they_are_while_it_runs() {
    let (admin, _namespace) = prepare();
    let off = "{mlflow: {mode: CR}}";
    let on = |relay: &str| format!("{{mlflow: {{mode: CR}}, otlp: {{mode: Relay}}{relay}}}");
    let sized = |size: &str| on(&format!(", relay: {{storage: {{size: {size}}}}}"));
    for (old, new, is_refused) in [
        (on(""), sized("1Gi"), false),
        (on(""), sized("1024Mi"), false),
        (on(""), on(", relay: {replicas: 2}"), false),
        (on(""), sized("2Gi"), true),
        (sized("2Gi"), on(""), true),
        (sized("2Gi"), on(", relay: {storage: {}}"), true),
        (on(", relay: {storage: {}}"), sized("1Gi"), true),
        (on(""), on(", relay: {storage: {size: 1Gi, storageClassName: fast}}"), true),
        (sized("2Gi"), off.to_owned(), false),
        (off.to_owned(), sized("3Gi"), false),
        (sized("2Gi"), "{mlflow: {mode: CR}, auth: {method: Relay}, relay: {storage: {size: 2Gi}}}".to_owned(), false),
        (sized("2Gi"), "{mlflow: {mode: CR}, auth: {method: Relay}}".to_owned(), true),
    ] {
        admin.delete("AgentTracing", PLACE, "tracing");
        let live = admin.create(&tracing("tracing", &old), STRICT).unwrap_or_else(|refused| panic!("{old}: {refused}"));
        let mut changed = tracing("tracing", &new);
        changed["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
        let causes = admin.replace(&changed, DRY).map_or_else(|refused| refused.causes, |_| Vec::new());
        let expected: Vec<_> = is_refused.then(|| ("spec".to_owned(), rule(STORAGE))).into_iter().collect();
        assert_eq!(causes, expected, "{old} to {new}");
    }
}
