//! What the API server says to an AgentTracing: accepted as it is, or refused in words from which the remedy can be typed.

mod modes;
mod refused;
mod relay;

use agent_tracing::api::AgentTracing;
use agent_tracing::core::settings;
use serde_json::{Value, json};

use crate::cluster::{Cluster, DRY, Namespace, Refusal, STRICT, install, kubectl};

const NAME: &str = "metadata.name prefixes the name of a Service: at most 56 lower-case letters, digits and '-', starting \
    with a letter and ending with a letter or digit; choose such a name, for example 'tracing'";
const RESERVED: &str = "injection.env may not name a variable that the operator sets itself or one that carries a credential \
    or switches TLS off; use the field of the spec made for it (see 'agent-tracing-operator explain')";
const SIZE: &str = "mlflow.standalone.storage.size can only grow: Kubernetes cannot shrink a volume; keep the old size or a \
    larger one";
const CLASS: &str = "mlflow.standalone.storage.storageClassName is immutable: the class of a volume cannot change; set it \
    back to the old value";
const MODE: &str = "mlflow.mode is immutable: delete this AgentTracing and create it again with the other mode";

/// A namespace that no operator is asked to look at.
const PLACE: &str = "api-server-crd";

#[test]
#[ignore = "needs an API server: make test"]
fn a_spec_that_means_something_is_accepted_and_can_be_read_back() {
    let (admin, _namespace) = prepare();
    for spec in accepted_specs() {
        let stored =
            admin.create(&tracing("tracing", &spec), DRY).unwrap_or_else(|refused| panic!("{spec}: {refused}"));
        let read: AgentTracing = serde_json::from_value(stored).unwrap_or_else(|error| panic!("{spec}: {error}"));
        settings::parse(&read).unwrap_or_else(|problems| panic!("{spec}: {problems:?}"));
    }
}

fn accepted_specs() -> Vec<String> {
    let standalone = |fields: &str| format!("{{mlflow: {{mode: Standalone, standalone: {{{fields}}}}}}}");
    let beside = |fields: &str| format!("{{mlflow: {{mode: Standalone}}, {fields}}}");
    let env = (0..50).map(|n| format!("{{name: V{n}, value: x}}")).collect::<Vec<_>>().join(", ");
    let hosts = (0..32).map(|n| format!("h{n}.example.com")).collect::<Vec<_>>().join(", ");
    let mut specs = vec![
        "{mlflow: {mode: Standalone}}".to_owned(),
        // A block whose lines are all commented out is null in YAML.
        "{mlflow: {mode: Standalone, standalone: null}, experiment: null, injection: null, sdk: null, suspend: null}"
            .to_owned(),
        standalone("storage: null, resources: null, networkPolicy: null, allowedHosts: null, nodeSelector: null"),
        standalone("storage: {size: null, storageClassName: null}, image: null, port: null"),
        standalone(&format!("allowedHosts: [{hosts}]")),
        standalone("allowedHosts: ['*.apps.example.com', '*']"),
        standalone("artifacts: {destination: 's3://bucket/a/b'}, backendStoreSecret: {name: db, key: uri}"),
        standalone("resources: {limits: {memory: 2Gi, nvidia.com/gpu: 1}, requests: {cpu: 100m}}"),
        standalone("tolerations: [{operator: Exists}], networkPolicy: {enabled: false}"),
        standalone("networkPolicy: {from: [{ipBlock: {cidr: 10.0.0.0/8}}, {podSelector: {}}]}"),
        standalone("imagePullPolicy: Never, imagePullSecrets: [{name: a}], deletionPolicy: Delete, workers: 32"),
        beside(&format!("injection: {{env: [{env}]}}")),
        beside("injection: {env: [{name: MLFLOW_TRACE_TIMEOUT_SECONDS, value: ''}]}"),
        beside("injection: {selector: {matchExpressions: [{key: a/b, operator: Exists}]}, containers: {exclude: [x]}}"),
        beside("injection: {kinds: [Deployment, StatefulSet, DaemonSet, CronJob, Job]}"),
        beside("injection: {kinds: []}"),
        beside("sdk: {timeoutSeconds: 300, maxRetries: 0}, suspend: true"),
    ];
    specs.extend(["1024", "5500", "65535"].map(|port| standalone(&format!("port: {port}"))));
    specs
        .extend(["5Gi", "500", "1.5Ti", "100M", "1Ei"].map(|size| standalone(&format!("storage: {{size: '{size}'}}"))));
    let experiments =
        ["{workload}", "{namespace}/{workload}", "{tracing}", "Bank: tellers", "{workload}{workload}", "日本"];
    specs.extend(experiments.map(|name| beside(&format!("experiment: {{name: '{name}'}}"))));
    specs.extend(["0", "0.0", "0.25", "1", "1.0"].map(|ratio| beside(&format!("sdk: {{samplingRatio: '{ratio}'}}"))));
    specs
}

#[test]
#[ignore = "needs an API server: make test"]
fn a_spec_that_cannot_work_is_refused_with_field_and_reason() {
    let (admin, _namespace) = prepare();
    for (spec, field, message) in refused::specs() {
        let refused = admin.create(&tracing("tracing", &spec), DRY).expect_err(&spec);
        // With the first cause the API server may say that rules were not evaluated: not a second thing to mend.
        assert_eq!(first_cause(&refused), (field, message), "{spec}: {refused}");
        assert_eq!(refused.code, 422, "{spec}");
    }
}

/// What api.md promises to reserve.
const RESERVED_NAMES: [&str; 23] = [
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

#[test]
#[ignore = "needs an API server: make test"]
fn a_name_must_do_for_a_service() {
    let (admin, _namespace) = prepare();
    let [longest, too_long] = [56, 57].map(|length| "a".repeat(length));
    for name in ["a", "t0", "team-a", &longest] {
        admin
            .create(&tracing(name, "{mlflow: {mode: Standalone}}"), DRY)
            .unwrap_or_else(|refused| panic!("{name}: {refused}"));
    }
    for name in [too_long.as_str(), "0tracing", "team.a", "9"] {
        let refused = admin.create(&tracing(name, "{mlflow: {mode: Standalone}}"), DRY).expect_err(name);
        assert_eq!(refused.causes, [("<nil>".to_owned(), format!("Invalid value: {NAME}"))], "{name}: {refused}");
    }
}

#[test]
#[ignore = "needs an API server: make test"]
fn a_change_that_the_volume_cannot_follow_is_refused() {
    let (admin, _namespace) = prepare();
    let none = "{mlflow: {mode: Standalone}}";
    let size = |size: &str| format!("{{mlflow: {{mode: Standalone, standalone: {{storage: {{size: '{size}'}}}}}}}}");
    let class = |class: &str| {
        format!("{{mlflow: {{mode: Standalone, standalone: {{storage: {{storageClassName: {class}}}}}}}}}")
    };
    let with = |fields: &str| format!("{{mlflow: {{mode: Standalone, standalone: {{{fields}}}}}}}");
    let table: &[(String, String, Option<&str>)] = &[
        (size("5Gi"), size("6Gi"), None),
        (size("5Gi"), size("4Gi"), Some(SIZE)),
        (size("10Gi"), size("9.999Gi"), Some(SIZE)),
        (size("5Gi"), size("5120Mi"), None),
        (size("5Gi"), size("5G"), Some(SIZE)),
        // An absent block is its default of 5Gi.
        (none.into(), size("5Gi"), None),
        (none.into(), size("6Gi"), None),
        (none.into(), size("1Gi"), Some(SIZE)),
        (with("port: 5600"), size("1Gi"), Some(SIZE)),
        (with("storage: {}"), size("1Gi"), Some(SIZE)),
        (size("10Gi"), none.into(), Some(SIZE)),
        (size("10Gi"), with("storage: {}"), Some(SIZE)),
        (size("4Gi"), none.into(), None),
        (size("4Gi"), size("4Gi"), None),
        (class("fast"), class("fast"), None),
        (class("fast"), class("slow"), Some(CLASS)),
        (class("fast"), none.into(), Some(CLASS)),
        (class("fast"), with("storage: {}"), Some(CLASS)),
        (none.into(), class("fast"), Some(CLASS)),
        (none.into(), with("port: 5600, workers: 2, deletionPolicy: Delete"), None),
        // A block whose lines are all commented out is null in YAML, and no other than an absent one.
        (none.into(), with("storage: null"), None),
        (none.into(), "{mlflow: {mode: Standalone, standalone: null}}".into(), None),
        (with("storage: {size: null, storageClassName: null}"), with("port: 5600"), None),
        (with("storage: {size: null, storageClassName: null}"), size("1Gi"), Some(SIZE)),
        ("{mlflow: {mode: Standalone, standalone: null}}".into(), size("1Gi"), Some(SIZE)),
        ("{mlflow: {mode: Standalone, standalone: null}}".into(), class("fast"), Some(CLASS)),
        (class("fast"), "{mlflow: {mode: Standalone, standalone: null}}".into(), Some(CLASS)),
    ];
    for (old, new, refusal) in table {
        admin.delete("AgentTracing", PLACE, "tracing");
        let live = admin.create(&tracing("tracing", old), STRICT).unwrap_or_else(|refused| panic!("{old}: {refused}"));
        let mut changed = tracing("tracing", new);
        changed["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
        let causes = admin.replace(&changed, DRY).map_or_else(|refused| refused.causes, |_| Vec::new());
        let expected: Vec<_> =
            refusal.iter().map(|message| ("spec".to_owned(), format!("Invalid value: {message}"))).collect();
        assert_eq!(causes, expected, "{old} to {new}");
    }
}

#[test]
#[ignore = "needs an API server: make test"]
fn a_misspelt_field_is_named_under_strict_validation() {
    let (admin, _namespace) = prepare();
    for (spec, field) in [
        ("{mlflow: {mode: Standalone}, experiments: {name: x}}", "spec.experiments"),
        (
            "{mlflow: {mode: Standalone, standalone: {storage: {storageClass: fast}}}}",
            "spec.mlflow.standalone.storage.storageClass",
        ),
        ("{mlflow: {mode: Standalone, Standalone: {}}}", "spec.mlflow.Standalone"),
        (
            "{mlflow: {mode: Standalone}, injection: {env: [{name: A, value: x, valueFrom: {}}]}}",
            "spec.injection.env[0].valueFrom",
        ),
    ] {
        let refused = admin.create(&tracing("tracing", spec), DRY).expect_err(spec);
        assert_eq!(refused.code, 400, "{spec}");
        assert!(
            refused.message.ends_with(&format!("strict decoding error: unknown field \"{field}\"")),
            "{spec}: {refused}"
        );
    }
}

#[test]
#[ignore = "needs an API server: make test"]
fn the_samples_are_accepted_by_kubectl() {
    let (_admin, _namespace) = prepare();
    let mut samples: Vec<_> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/config/samples"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    samples.sort();
    assert!(samples.len() >= 4, "{samples:?}");
    for sample in samples {
        let sample = sample.to_str().unwrap();
        for verb in [&["create"][..], &["apply"], &["apply", "--server-side"]] {
            let rest = ["-n", PLACE, "--dry-run=server", "--validate=strict", "-f", sample];
            kubectl(&[verb, &rest].concat(), "").unwrap();
        }
    }
}

#[test]
#[ignore = "needs an API server: make test"]
fn who_may_edit_an_agent_tracing_cannot_say_that_it_is_ready() {
    let (admin, _namespace) = prepare();
    admin.delete("AgentTracing", PLACE, "tracing");
    admin.create(&tracing("tracing", "{mlflow: {mode: Standalone}}"), STRICT).unwrap();
    let user = "paula";
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": user, "namespace": PLACE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "agenttracing-edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    });
    admin.create(&binding, STRICT).unwrap();
    let paula = Cluster::user(user);
    let mut change = tracing("tracing", "{mlflow: {mode: Standalone}, suspend: true}");
    crate::cluster::wait_until("the binding counts", || paula.merge(&change, STRICT).is_ok());

    change["status"] = json!({"mlflow": {"url": "http://evil.example.com", "version": "3.10.1", "workspaces": false, "source": "Service"}});
    let refused = paula.merge_subresource(&change, "status", STRICT).expect_err("status is the operator's");
    assert_eq!(refused.code, 403, "{refused}");
    let expected = format!(
        "agenttracings.agenttracing.dev \"tracing\" is forbidden: User \"paula\" cannot patch resource \"agenttracings/status\" in API group \"agenttracing.dev\" in the namespace \"{PLACE}\""
    );
    assert_eq!(refused.message, expected);
    // Through the main resource it is not refused but left out: `kubectl apply` of an exported object must work.
    let stored = paula.merge(&change, STRICT).unwrap();
    assert_eq!(stored["status"], Value::Null);
    admin.merge_subresource(&change, "status", STRICT).unwrap();
    assert_eq!(admin.live(&change)["status"]["mlflow"]["url"], "http://evil.example.com", "the administrator may");
}

fn prepare() -> (Cluster, Namespace) {
    install();
    (Cluster::admin(), Namespace::create(PLACE, json!({})))
}

fn tracing(name: &str, spec: &str) -> Value {
    let spec: Value = serde_yaml::from_str(spec).unwrap_or_else(|error| panic!("{spec}: {error}"));
    json!({
        "apiVersion": "agenttracing.dev/v1alpha1",
        "kind": "AgentTracing",
        "metadata": {"name": name, "namespace": PLACE},
        "spec": spec,
    })
}

fn first_cause(refused: &Refusal) -> (String, String) {
    refused.causes.first().cloned().unwrap_or_else(|| panic!("no cause: {refused}"))
}

fn invalid(value: impl Into<Value>, rule: &str) -> String {
    format!("Invalid value: {}: {rule}", value.into())
}
