//! Specs that cannot work.

use super::*;

/// Spec, field and message.
#[expect(clippy::too_many_lines, reason = "a table")]
pub fn specs() -> Vec<(String, String, String)> {
    let mut table = Vec::new();
    let mut standalone = |fields: &str, field: &str, message: &str| {
        let spec = format!("{{mlflow: {{mode: Standalone, standalone: {{{fields}}}}}}}");
        table.push((spec, format!("spec.mlflow.standalone.{field}"), message.to_owned()));
    };
    for port in [1023, 65536, -1, 0] {
        let bound = if port < 1024 { "greater than or equal to 1024" } else { "less than or equal to 65535" };
        standalone(
            &format!("port: {port}"),
            "port",
            &invalid(port, &format!("spec.mlflow.standalone.port in body should be {bound}")),
        );
    }
    standalone(
        "port: 80.5",
        "port",
        "Invalid value: \"float64\": spec.mlflow.standalone.port in body must be of type int32: \"float64\"",
    );
    standalone(
        "port: '5500'",
        "port",
        "Invalid value: \"string\": spec.mlflow.standalone.port in body must be of type integer: \"string\"",
    );
    standalone(
        "workers: 0",
        "workers",
        &invalid(0, "spec.mlflow.standalone.workers in body should be greater than or equal to 1"),
    );
    standalone(
        "workers: 33",
        "workers",
        &invalid(33, "spec.mlflow.standalone.workers in body should be less than or equal to 32"),
    );
    let size = r"^[0-9]+(\.[0-9]{1,3})?(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E)?$";
    for bad in ["5GB", "5 Gi", "-5Gi", "five", "5gi"] {
        let message =
            invalid(json!(bad), &format!("spec.mlflow.standalone.storage.size in body should match '{size}'"));
        standalone(&format!("storage: {{size: '{bad}'}}"), "storage.size", &message);
    }
    let unsupported = |value: &str, known: &str| format!("Unsupported value: \"{value}\": supported values: {known}");
    standalone("deletionPolicy: Keep", "deletionPolicy", &unsupported("Keep", r#""Retain", "Delete""#));
    standalone(
        "imagePullPolicy: always",
        "imagePullPolicy",
        &unsupported("always", r#""Always", "IfNotPresent", "Never""#),
    );
    standalone(
        "image: 'a b'",
        "image",
        &invalid(json!("a b"), r"spec.mlflow.standalone.image in body should match '^\S+$'"),
    );
    let hosts = (0..33).map(|n| format!("h{n}")).collect::<Vec<_>>().join(", ");
    standalone(&format!("allowedHosts: [{hosts}]"), "allowedHosts", "Too many: 33: must have at most 32 items");
    standalone(
        "allowedHosts: ['a,b']",
        "allowedHosts[0]",
        &invalid(json!("a,b"), r"spec.mlflow.standalone.allowedHosts[0] in body should match '^[^\s,]+$'"),
    );
    standalone(
        "artifacts: {destination: bucket}",
        "artifacts.destination",
        &invalid(
            json!("bucket"),
            r"spec.mlflow.standalone.artifacts.destination in body should match '^[a-z][a-z0-9+.-]*://\S+$'",
        ),
    );
    standalone("backendStoreSecret: {name: db}", "backendStoreSecret.key", "Required value");

    let mut beside = |fields: &str, field: &str, message: &str| {
        table.push((
            format!("{{mlflow: {{mode: Standalone}}, {fields}}}"),
            format!("spec.{field}"),
            message.to_owned(),
        ));
    };
    let braces = r"^([^{}]|\{workload\}|\{namespace\}|\{tracing\})+$";
    for bad in ["{Workload}", "{workload", "a}", "{}", "{pod}"] {
        let message = invalid(json!(bad), &format!("spec.experiment.name in body should match '{braces}'"));
        beside(&format!("experiment: {{name: '{bad}'}}"), "experiment.name", &message);
    }
    let long = "x".repeat(251);
    beside(&format!("experiment: {{name: {long}}}"), "experiment.name", "Too long: may not be more than 250 bytes");
    let ratio = r"^(0(\.[0-9]+)?|1(\.0+)?)$";
    for bad in ["1.1", "2", ".5", "-0.1", "50%", "1e-1", ""] {
        let message = invalid(json!(bad), &format!("spec.sdk.samplingRatio in body should match '{ratio}'"));
        beside(&format!("sdk: {{samplingRatio: '{bad}'}}"), "sdk.samplingRatio", &message);
    }
    beside(
        "sdk: {samplingRatio: 0.5}",
        "sdk.samplingRatio",
        "Invalid value: \"number\": spec.sdk.samplingRatio in body must be of type string: \"number\"",
    );
    beside(
        "sdk: {timeoutSeconds: 0}",
        "sdk.timeoutSeconds",
        &invalid(0, "spec.sdk.timeoutSeconds in body should be greater than or equal to 1"),
    );
    beside(
        "sdk: {maxRetries: 11}",
        "sdk.maxRetries",
        &invalid(11, "spec.sdk.maxRetries in body should be less than or equal to 10"),
    );
    for name in RESERVED_NAMES {
        beside(
            &format!("injection: {{env: [{{name: A, value: x}}, {{name: {name}, value: x}}]}}"),
            "injection.env[1]",
            &format!("Invalid value: {RESERVED}"),
        );
    }
    beside(
        "injection: {env: [{name: 1A, value: x}]}",
        "injection.env[0].name",
        &invalid(json!("1A"), "spec.injection.env[0].name in body should match '^[A-Za-z_][A-Za-z0-9_]*$'"),
    );
    beside("injection: {env: [{name: A}]}", "injection.env[0].value", "Required value");
    beside(
        "injection: {env: [{name: A, value: x}, {name: A, value: y}]}",
        "injection.env[1]",
        r#"Duplicate value: {"name":"A"}"#,
    );
    let env = (0..51).map(|n| format!("{{name: V{n}, value: x}}")).collect::<Vec<_>>().join(", ");
    beside(&format!("injection: {{env: [{env}]}}"), "injection.env", "Too many: 51: must have at most 50 items");
    let kinds = r#""Deployment", "StatefulSet", "DaemonSet", "CronJob", "Job""#;
    beside("injection: {kinds: [Job, Pod]}", "injection.kinds[1]", &unsupported("Pod", kinds));
    beside("injection: {kinds: [Job, Job]}", "injection.kinds[1]", "Duplicate value: \"Job\"");
    beside(
        "injection: {selector: {matchExpressions: [{key: a, operator: in}]}}",
        "injection.selector.matchExpressions[0].operator",
        &unsupported("in", r#""In", "NotIn", "Exists", "DoesNotExist""#),
    );

    table.push((
        "{mlflow: {mode: standalone}}".into(),
        "spec.mlflow.mode".into(),
        unsupported("standalone", r#""Standalone", "CR", "External""#),
    ));
    table.push(("{mlflow: {}}".into(), "spec.mlflow.mode".into(), "Required value".into()));
    table.push(("{}".into(), "spec.mlflow".into(), "Required value".into()));
    table
}
